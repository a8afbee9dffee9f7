"""The offering sensor: every batch of the ingest log, whoever recorded it, gets a partition and a run."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, takewhile

from dagster import (
    AddDynamicPartitionsRequest,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from resources import layout
from resources.ingest_log import shared_log
from resources.models import SpeechModels
from resources.routing import Routing
from resources.store import Store
from sensors.batches import BATCHES, PARTITION_TAG, PROCESS_BATCH, READING_S, Steps

OFFERED_PER_TICK = 100
"""The daemon looks every new partition up one by one; more wait for the next tick."""

RUNS_PER_TICK = 4
"""The daemon makes runs one by one, each with twenty planned events: half a second on a quiet disk, two on a
busy one, and no other sensor ticks meanwhile."""

WAITS = (timedelta(0), timedelta(minutes=20), timedelta(hours=2), timedelta(hours=8))
"""Before the second run of a batch, the third and so on, without anyone asking; after the last one, never."""

LOOK_BACK = timedelta(days=7)
"""Within which a run must have failed: a daemon that was away for a weekend asks for the next one still."""


def offering_sensor(steps: Steps, interval_s: int) -> SensorDefinition:
    """The sensor. Its cursor is the number of the last batch offered."""

    @sensor(
        name="new_batches",
        job_name=PROCESS_BATCH,
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Each new batch of the ingest log gets a partition and a run; failed runs are repeated.",
    )
    def new_batches(
        context: SensorEvaluationContext, store: Store, speech_models: SpeechModels
    ) -> SensorResult | SkipReason:
        log = shared_log(store.url)
        if not log.catch_up(time.monotonic() + READING_S):
            return SkipReason(f"reading the ingest log, at entry {log.tail}")
        new = to_offer(log.batches, context.cursor)
        requests = list(islice(to_retry(context.instance, datetime.now(UTC)), RUNS_PER_TICK))
        if not new and not requests:
            return SkipReason(f"no new batches after {context.cursor or 'the beginning'}")
        routing = Routing.of(speech_models, store)
        offered = []
        for batch in new:
            if len(requests) == RUNS_PER_TICK:
                break
            offered.append(batch)
            if not was_started(batch, context.instance) and not is_finished(batch, steps, routing, store):
                requests.append(RunRequest(run_key=f"batch-{batch}", partition_key=batch))
        return SensorResult(
            dynamic_partitions_requests=[with_partitions(requests, offered)],
            run_requests=with_steps(requests, steps, routing),
            cursor=offered[-1] if offered else context.cursor,
        )

    return new_batches


def with_steps(requests: Iterable[RunRequest], steps: Steps, routing: Routing) -> list[RunRequest]:
    """The same requests, for the model versions alone that are to hear each batch."""
    return [
        request.with_replaced_attrs(asset_selection=steps.of(str(request.partition_key), routing))
        for request in requests
    ]


def with_partitions(
    requests: Iterable[RunRequest], batches: Iterable[str] = ()
) -> AddDynamicPartitionsRequest:
    """Partitions for all that is asked for: an old batch may have lost its own."""
    return BATCHES.build_add_request(sorted({*batches, *(str(r.partition_key) for r in requests)}))


def to_offer(batches: Sequence[str], cursor: str | None) -> list[str]:
    """The batches after the last one offered, those that the command line ingested included.

    Batch numbers sort as text.

    >>> to_offer(["00000001", "00000002", "00000003"], "00000001")
    ['00000002', '00000003']
    """
    return [batch for batch in batches if batch > (cursor or "")][:OFFERED_PER_TICK]


def was_started(batch: str, instance: DagsterInstance) -> bool:
    """Whether a run was ever started for a batch: a renamed sensor starts nothing twice."""
    return bool(_runs(instance, [batch], limit=1))


def is_finished(batch: str, steps: Steps, routing: Routing, store: Store) -> bool:
    """Whether all that a run of a batch makes is there; the run may be gone, with Dagster's database."""
    models = [model for model in steps.transcripts if routing.takes(model, batch)]
    made = [layout.extracted(batch), *(layout.transcripts(model, batch) for model in models)]
    return all(map(store.head, made))


def to_retry(instance: DagsterInstance, now: datetime) -> Iterator[RunRequest]:
    """Batches whose newest run failed or was killed, the command line's too; each a few times, over hours.

    What is wrong with a video fails no run. What fails a run, a process that was killed, a store out of
    reach, may be over by now, or else in a while.
    """
    failed = RunsFilter(
        job_name=PROCESS_BATCH, statuses=[DagsterRunStatus.FAILURE], updated_after=now - LOOK_BACK
    )
    # A query that reads no run's body: most of these batches, or all, have succeeded since.
    batches = sorted(run.partition for run in instance.get_run_partition_data(failed))
    for first in range(0, len(batches), OFFERED_PER_TICK):
        runs = sorted(_runs(instance, batches[first : first + OFFERED_PER_TICK]), key=_batch)
        for batch, of_batch in groupby(runs, key=_batch):
            failures = list(takewhile(_has_failed, of_batch))
            if not 0 < len(failures) <= len(WAITS):
                continue
            ended = datetime.fromtimestamp(failures[0].end_time or 0, UTC)
            if now >= ended + WAITS[len(failures) - 1]:
                newest = failures[0].dagster_run.run_id
                yield RunRequest(run_key=f"batch-{batch}-after-{newest}", partition_key=batch)


def _has_failed(run: RunRecord) -> bool:
    return run.dagster_run.status is DagsterRunStatus.FAILURE


def _runs(instance: DagsterInstance, batches: Sequence[str], limit: int | None = None) -> Sequence[RunRecord]:
    """The newest first."""
    of_batches = RunsFilter(job_name=PROCESS_BATCH, tags={PARTITION_TAG: batches})
    return instance.get_run_records(of_batches, limit=limit)


def _batch(run: RunRecord) -> str:
    return run.dagster_run.tags[PARTITION_TAG]
