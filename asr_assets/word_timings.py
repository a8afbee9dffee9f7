"""word_timings: every published word in DuckDB, and a fresh copy of it for the readers."""

from collections.abc import Mapping
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetsDefinition, MaterializeResult, asset

from asr_assets.checks import LOAD_CHECKS, check_load, specs
from asr_assets.columns import WORD_COLUMNS, columns
from asr_assets.extracted_audio import extracted_audio
from asr_assets.measuring import measure
from asr_assets.pictures import growth
from asr_assets.progress import Progress
from asr_assets.transcripts import transcripts_key
from resources import snapshot
from resources.champions import crown_first
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.following import CROWNED_THROUGH, INGESTED_THROUGH, TAKEN_THROUGH, published_through
from sensors.lateness import FIGURES
from speech.models import ModelVersion

WORD_TIMINGS = AssetKey("word_timings")


def word_timings_asset(
    models: list[str], first_champion: ModelVersion, pod: Mapping[str, Any] | None = None
) -> AssetsDefinition:
    """The asset; it depends on every model version's transcripts. ``pod`` is as in transcripts_asset."""
    transcripts = [transcripts_key(model) for model in models]

    @asset(
        key=WORD_TIMINGS,
        deps=transcripts,
        group_name="warehouse",
        kinds={"duckdb"},
        pool="warehouse",  # one writer
        op_tags=pod,
        check_specs=specs(LOAD_CHECKS, WORD_TIMINGS),
        metadata={"dagster/column_schema": columns(("model_version", "string"), *WORD_COLUMNS)},
        description=(
            "The warehouse: loads whatever is published and not loaded yet, many batches at once, together "
            "with its ledger; then publishes a read-only copy. Can be rebuilt from the store at any time."
        ),
    )
    def word_timings(context: AssetExecutionContext, store: Store, warehouse: Warehouse) -> MaterializeResult:
        # Read before the load: what is published while it runs counts as news for the next one.
        mark = published_through(context.instance, [extracted_audio.key, *transcripts])
        crown_first(store, first_champion.name, first_champion.fingerprint)
        with warehouse.exclusive() as path:
            report = warehouse.load(store, Progress(context, "loading words").at)
            figures = measure(path)
            fresh = snapshot.publish(store, path, report)
        return MaterializeResult(
            metadata={
                TAKEN_THROUGH: mark,
                INGESTED_THROUGH: report.ingested_through,
                CROWNED_THROUGH: report.crowned_through,
                "dagster/row_count": report.words,
                "objects_loaded": report.objects,
                "videos": report.videos,
                "videos_waiting": figures.waiting,
                FIGURES: figures.model_dump(mode="json"),
                "snapshot_published": fresh,
                **({"over_time": growth(report.growth)} if report.growth else {}),
            },
            check_results=list(check_load(report, WORD_TIMINGS)),
        )

    return word_timings
