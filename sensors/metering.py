"""The metering sensor: reads what the newest load, the store and Dagster know, and sends it to a collector.

Here and not in the steps that do the work: a step that hangs, or a load that does not come, counts nothing,
and that is when somebody looks. It reads a handful of rows, however many videos there are.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterInstance,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from resources.retries import all_pending
from resources.store import Store
from resources.telemetry import (
    AUDIO_HEARD,
    ENGINE_BUSY,
    LOADER_LAG,
    QUEUE_OLDEST,
    QUEUE_VIDEOS,
    REFUSALS,
    RETRIES,
    VIDEOS,
    MetricsRefused,
    Reading,
    push,
)
from sensors.following import TAKEN_THROUGH, mark
from sensors.lateness import figures_of, not_loaded_since, waiting_since
from sensors.patience import refusals


def metering_sensor(words: AssetKey, published: Sequence[AssetKey], interval_s: int = 60) -> SensorDefinition:
    """The sensor, for the asset that loads and those that it loads."""

    @sensor(
        name="metrics",
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sends metrics to the collector in OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    def metrics(context: SensorEvaluationContext, store: Store) -> SkipReason:
        readings = list(collect(context.instance, store, words, published, datetime.now(UTC)))
        try:
            push(readings)
        except MetricsRefused as error:
            return SkipReason(str(error))
        return SkipReason(f"sent {len(readings)} values")

    return metrics


def collect(
    instance: DagsterInstance, store: Store, words: AssetKey, published: Sequence[AssetKey], now: datetime
) -> Iterator[Reading]:
    """All there is to tell."""
    load = instance.get_latest_materialization_event(words)
    figures = figures_of(load)

    def age(since: datetime | None) -> float:
        return max((now - since).total_seconds(), 0.0) if since else 0.0

    yield Reading(QUEUE_VIDEOS, figures.waiting)
    yield Reading(QUEUE_OLDEST, age(waiting_since(instance, store, words)))
    behind = [not_loaded_since(load, store), published_since(instance, published, mark(load, TAKEN_THROUGH))]
    yield Reading(LOADER_LAG, max(map(age, behind)))
    for heard in figures.heard:
        yield Reading(AUDIO_HEARD, heard.audio_s, {"model": heard.model})
        yield Reading(ENGINE_BUSY, heard.engine_s, {"model": heard.model})
    for ended in figures.ended:
        yield Reading(VIDEOS, ended.videos, {"model": ended.model, "outcome": ended.outcome})
    # A zero for each model version: what is put right must be seen to go away.
    models = {heard.model for heard in figures.heard} | {ended.model for ended in figures.ended}
    retries = {(model, state): 0 for model in models for state in ("due", "given_up")}
    for pending in all_pending(store):
        at = (pending.model, "due" if pending.due_at else "given_up")
        retries[at] = retries.get(at, 0) + len(pending.video_ids)
    for (model, state), videos in retries.items():
        yield Reading(RETRIES, videos, {"model": model, "state": state})
    for name, times in refusals(instance).items():
        yield Reading(REFUSALS, times, {"sensor": name})


def published_since(instance: DagsterInstance, published: Sequence[AssetKey], taken: int) -> datetime | None:
    """When the first of these was published after that position of the event log; None when none was."""
    after = [AssetRecordsFilter(asset, after_storage_id=taken) for asset in published]
    found = [instance.fetch_materializations(one, limit=1, ascending=True).records for one in after]
    return min(
        (datetime.fromtimestamp(record.timestamp, UTC) for (record,) in filter(None, found)), default=None
    )
