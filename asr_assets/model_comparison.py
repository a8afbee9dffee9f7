"""model_comparison: is one model version better than another, and how sure is that?"""

from collections.abc import Mapping
from typing import Any

import duckdb
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    Config,
    MaterializeResult,
    MetadataValue,
    TableRecord,
    asset,
)
from pydantic import Field

from asr_assets.comparing import MEASURED, compare_batch, not_compared
from asr_assets.comparison import rows_of
from asr_assets.comparison_pictures import as_markdown, differences, wer_by_condition
from asr_assets.progress import Progress
from asr_assets.report import write_report
from asr_assets.summarizing import Definitions, summarize
from asr_assets.word_timings import WORD_TIMINGS
from resources import layout, snapshot
from resources.champions import reigning
from resources.comparisons import Pair, Summary, publish
from resources.models import SpeechModels
from resources.routing import Routing
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.following import TAKEN_THROUGH, published_through
from speech.errors import NothingInCommon

MODEL_COMPARISON = AssetKey("model_comparison")
SHOWN = ("videos", "reference_words", "wer_a", "wer_b", "wer_difference_low",
         "wer_difference_high", "p_value", "disagreement", "rtfx_a", "rtfx_b")  # fmt: skip


class ComparisonConfig(Config):
    """Who is to be compared."""

    pairs: list[list[str]] = Field(
        default=[], description="[A, B] of model versions; by default the champion and each of the others"
    )


def model_comparison_asset(pod: Mapping[str, Any] | None = None) -> AssetsDefinition:
    """The asset; ``pod`` is as in transcripts_asset."""

    @asset(
        key=MODEL_COMPARISON,
        deps=[WORD_TIMINGS],
        group_name="warehouse",
        kinds={"duckdb"},
        pool="warehouse",  # one writer
        op_tags=pod,
        description=(
            "Pairs of model versions over all current videos: word and character error rates where it is "
            "known what is said, disagreement where it is not, with intervals; times, confidence, speed, "
            "memory, cost."
        ),
    )
    def model_comparison(
        context: AssetExecutionContext,
        config: ComparisonConfig,
        store: Store,
        speech_models: SpeechModels,
        warehouse: Warehouse,
    ) -> MaterializeResult:
        mark = published_through(context.instance, [WORD_TIMINGS])
        pairs = [Pair(*pair) for pair in config.pairs] or champion_and_others(
            Routing.of(speech_models, store)
        )
        if not pairs:
            return MaterializeResult(metadata={TAKEN_THROUGH: mark})
        for pair in pairs:
            progress = Progress(context, f"comparing {pair.a} and {pair.b}")
            for batch, states in progress(list(not_compared(store, pair))):
                if compared := compare_batch(store, pair, batch):
                    publish(store, compared, states)
        with warehouse.exclusive() as path:
            warehouse.load(store, Progress(context, "loading comparisons").at)
            with warehouse.connect() as connection:
                for pair in pairs:
                    sum_up(connection, store, speech_models, pair)
            report = warehouse.load(store, Progress(context, "loading summaries").at)
            with warehouse.connect() as connection:
                shown = [one for pair in pairs for one in show(connection, store, pair).items()]
            snapshot.publish(store, path, report)
        return MaterializeResult(metadata={TAKEN_THROUGH: mark, **dict(shown)})

    return model_comparison


def champion_and_others(routing: Routing) -> list[Pair]:
    """The champion and each of the others."""
    return [Pair(routing.champion, model.name) for model in routing.models if model.name != routing.champion]


def sum_up(connection: duckdb.DuckDBPyConnection, store: Store, models: SpeechModels, pair: Pair) -> None:
    """Publish a pair's summary."""
    definitions = Definitions(*(fingerprint_of(name, store, models) for name in pair))
    rows = summarize(connection, pair, definitions, models.policy.prices)
    summary = Summary(model_a=pair.a, model_b=pair.b, rows=tuple(rows))
    key, data = layout.summary(*pair), summary.model_dump_json().encode()
    if store.get(key) != data:  # what is put is loaded, and what is loaded is news to all readers
        store.put(key, data)


def fingerprint_of(name: str, store: Store, models: SpeechModels) -> str:
    """As it is defined now, or was when it became champion if it is not defined any more.

    Raises :class:`~speech.errors.ModelError` for a name that is neither.
    """
    champion = reigning(store)
    if champion and champion.model == name and champion.fingerprint and name not in models.all:
        return champion.fingerprint
    return models.get(name).fingerprint


def show(connection: duckdb.DuckDBPyConnection, store: Store, pair: Pair) -> dict[str, Any]:
    """Write a pair's report; what Dagster's UI shows of it, which has no words and no names."""
    try:
        rows = rows_of(connection, pair)
    except NothingInCommon:
        return {}
    key, name = layout.report(*pair), f"{pair.b}_against_{pair.a}"
    store.put(key, write_report(connection, *pair).encode())
    # What else stands in sidecars may be somebody's name, and the event log forgets nothing.
    measured = [row for row in rows if row["condition"] in MEASURED]
    drawn = {"differences": differences(measured), "conditions": wer_by_condition(measured)}
    return {
        name: MetadataValue.table([TableRecord(_plain(rows[0]))]),
        f"{name}_report": MetadataValue.url(f"{store.url}/{key}"),
        **{f"{name}_{what}": as_markdown(figure, what) for what, figure in drawn.items() if figure},
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: row[name] for name in SHOWN}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
