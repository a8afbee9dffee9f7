"""postgres_words: the published words in a PostgreSQL database, too."""

from collections.abc import Mapping
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetsDefinition, MaterializeResult, asset

from asr_assets.columns import WORD_COLUMNS, columns
from asr_assets.console import READERS_CACHE
from asr_assets.progress import Progress
from asr_assets.word_timings import WORD_TIMINGS
from resources.postgres import PostgresMirror
from resources.store import Store
from sensors.following import TAKEN_THROUGH, published_through

POSTGRES_WORDS = AssetKey("postgres_words")


def postgres_words_asset(pod: Mapping[str, Any] | None = None) -> AssetsDefinition:
    """The asset; ``pod`` is as in transcripts_asset."""

    @asset(
        key=POSTGRES_WORDS,
        deps=[WORD_TIMINGS],
        group_name="warehouse",
        kinds={"postgres"},
        pool="postgres",  # syncs exclude each other: a second one would only wait
        op_tags=pod,
        metadata={"dagster/column_schema": columns(("model_version", "string"), *WORD_COLUMNS)},
        description=(
            "Words, segments, videos and transcripts in schema asr of a PostgreSQL database: whatever the "
            "newest published copy has in another state replaces what is there, each batch in one "
            "transaction."
        ),
    )
    def postgres_words(
        context: AssetExecutionContext, store: Store, postgres: PostgresMirror
    ) -> MaterializeResult:
        # Read before the copy is: what is published meanwhile counts as news for the next sync.
        mark = published_through(context.instance, [WORD_TIMINGS])
        report = postgres.sync(store, READERS_CACHE, Progress(context, "copying to PostgreSQL").at)
        return MaterializeResult(
            metadata={
                TAKEN_THROUGH: mark,
                "dagster/row_count": report.rows["words"],
                "objects_copied": report.objects,
                **report.rows,
            }
        )

    return postgres_words
