"""The listing sensor: looks at the source every so often and asks for a run per new batch."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
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

TRIES = 3
"""Runs of one batch that are started without anyone asking."""

PARTITION_NAME_TAG = "dagster/partition"


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
        requests = [
            RunRequest(run_key=f"batch-{batch}", partition_key=batch)
            for batch in not_started(offered, context.instance)
        ] + list(to_retry(context.instance, datetime.now(UTC)))
        if not offered and not requests:
            return SkipReason(problem or f"nothing new in {source.url}")
        return SensorResult(
            dynamic_partitions_requests=[BATCHES.build_add_request(offered)] if offered else [],
            run_requests=requests,
            cursor=offered[-1] if offered else context.cursor,
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
    """Batches that no run has ever been started for: a renamed sensor starts nothing twice."""
    return [batch for batch in batches if not _runs(instance, batch)]


def to_retry(instance: DagsterInstance, now: datetime) -> Iterator[RunRequest]:
    """Batches whose newest run failed or was killed today, the command line's too; each a few times.

    What is wrong with a video fails no run. What fails a run, a store out of reach, a process that
    was killed, may be over by now.
    """
    failed = RunsFilter(
        job_name=PROCESS_BATCH,
        statuses=[DagsterRunStatus.FAILURE],
        created_after=now - timedelta(days=1),
    )
    batches = {
        run.tags.get(PARTITION_NAME_TAG, "") for run in instance.get_runs(failed, limit=OFFERED_PER_TICK)
    }
    for batch in sorted(batches - {""}):
        runs = _runs(instance, batch)
        if runs[0].status is DagsterRunStatus.FAILURE and len(runs) < TRIES:
            yield RunRequest(run_key=f"batch-{batch}-try-{len(runs) + 1}", partition_key=batch)


def _runs(instance: DagsterInstance, batch: str) -> Sequence[DagsterRun]:
    """The newest first."""
    return instance.get_runs(
        RunsFilter(job_name=PROCESS_BATCH, tags={PARTITION_NAME_TAG: batch}), limit=TRIES
    )
