"""The retry sensor: runs batches again whose videos failed for a reason that may have passed."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from resources.ingest_log import shared_log
from resources.models import SpeechModels
from resources.retries import Pending, revived
from resources.routing import Routing
from resources.store import Store
from sensors.batches import PROCESS_BATCH, READING_S, Steps, at_work
from sensors.offering import RUNS_PER_TICK, with_partitions, with_steps


def retry_sensor(steps: Steps, interval_s: int = 60) -> SensorDefinition:
    """The sensor. What has failed for good, and what was tried often enough, it leaves alone."""

    @sensor(
        name="videos_to_retry",
        job_name=PROCESS_BATCH,
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Runs a batch again, later and later, while some of its videos fail for passing reasons.",
    )
    def videos_to_retry(
        context: SensorEvaluationContext, store: Store, speech_models: SpeechModels
    ) -> SensorResult | SkipReason:
        log, now = shared_log(store.url), datetime.now(UTC)
        if not log.catch_up(time.monotonic() + READING_S):
            return SkipReason(f"reading the ingest log, at entry {log.tail}")
        requests = list(islice(due(revived(store, log, now), context.instance, now), RUNS_PER_TICK))
        if not requests:
            return SkipReason("nothing is due")
        return SensorResult(
            run_requests=with_steps(requests, steps, Routing.of(speech_models, store)),
            dynamic_partitions_requests=[with_partitions(requests)],
        )

    return videos_to_retry


def due(pending: Iterator[Pending], instance: DagsterInstance, now: datetime) -> Iterator[RunRequest]:
    """A run for each batch of which something is due and that is not at work already."""
    for batch, of_batch in groupby(pending, key=lambda found: found.batch):
        ended = [p.ended_at for p in of_batch if p.due_at and p.due_at <= now]
        if ended and not at_work(instance, PROCESS_BATCH, batch):
            yield RunRequest(run_key=f"retry-{batch}-{max(ended):%Y%m%dT%H%M%S}", partition_key=batch)
