"""The listing sensor: looks at the source every so often and asks for a run per new batch."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from resources.ingest_log import IngestLog
from resources.source import Source
from resources.store import Store
from sensors.batches import BATCHES, PROCESS_BATCH, BatchLimits, ingest
from speech.errors import SourceUnavailable

OFFERED_PER_TICK = 100
"""The daemon looks every new partition up one by one; more wait for the next tick."""


def listing_sensor(limits: BatchLimits, interval_s: int = 30) -> SensorDefinition:
    """The sensor, with the limits of this deployment."""

    @sensor(
        name="new_videos",
        job_name=PROCESS_BATCH,
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Lists the source, records new and changed videos in the ingest log, runs new batches.",
    )
    def new_videos(
        context: SensorEvaluationContext, source: Source, store: Store
    ) -> SensorResult | SkipReason:
        log = IngestLog(store)
        problem = None
        try:
            ingest(source, log, datetime.now(UTC), limits)
        except SourceUnavailable as error:
            # Batches that are in the log already need no source to be asked for.
            problem = str(error)
            log.catch_up()
        offered = to_offer(log.batches, context.cursor)
        if not offered:
            return SkipReason(problem or f"nothing new in {source.url}")
        return SensorResult(
            dynamic_partitions_requests=[BATCHES.build_add_request(offered)],
            run_requests=[
                RunRequest(run_key=f"batch-{batch}", partition_key=batch)
                for batch in not_started(offered, context.instance)
            ],
            cursor=offered[-1],
        )

    return new_videos


def to_offer(batches: Sequence[str], cursor: str | None) -> list[str]:
    """The batches after the last one offered, those that the command line ingested included.

    Batch numbers sort as text.

    >>> to_offer(["00000001", "00000002", "00000003"], "00000001")
    ['00000002', '00000003']
    """
    return [batch for batch in batches if batch > (cursor or "")][:OFFERED_PER_TICK]


def not_started(batches: Iterable[str], instance: DagsterInstance) -> list[str]:
    """Batches that no run has ever been started for: a renamed sensor starts nothing twice.

    A batch whose run failed is not among them: that it runs again is the retry's decision.
    """
    return [
        batch
        for batch in batches
        if not instance.get_runs(
            RunsFilter(job_name=PROCESS_BATCH, tags={"dagster/partition": batch}), limit=1
        )
    ]
