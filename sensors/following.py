"""Sensors that follow: what was published, by a run or by a backfill, is taken in by one run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    EventLogEntry,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from resources import layout
from resources.store import Store
from sensors.batches import at_work
from speech.types import Seconds

TAKEN_THROUGH = "loaded_through"
"""Metadata of an asset that follows: the event log's position up to which publications were there when its
run began."""

INGESTED_THROUGH = "ingested_through"
"""Metadata of word_timings: the number of the newest ingest entry it has. An entry alone can change what
is current, without any transcript."""

CROWNED_THROUGH = "crowned_through"
"""Metadata of word_timings: the number of the newest champion it knows."""

NEWS_TAG = "asr/published_through"
TRIES = 3


@dataclass(frozen=True, slots=True)
class Following:
    """An asset, the job that materializes it, and the assets after which that is due, by their keys.

    Between two runs lie ``interval_s``. With ``log`` it is due after a new entry of the ingest log, or of the
    champions', too.
    """

    asset: AssetKey
    job: str
    after: Sequence[AssetKey]
    interval_s: Seconds
    log: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What the decision depends on; positions are storage ids of Dagster's event log.

    ``logged`` says that the ingest log, or the champions', has entries which are not taken in.
    """

    published_through: int
    taken_through: int
    logged: bool
    last_at: float
    in_flight: bool
    failures: int


def why_wait(state: State, now: float, interval_s: Seconds) -> str | None:
    """The reason to wait; None when a run is due.

    Readers' copies are published with each run, so ``interval_s`` between runs is also the shortest time
    between two copies.
    """
    if state.published_through <= state.taken_through and not state.logged:
        return "all that is published is taken in"
    if state.in_flight:
        return "a run is under way"
    if state.failures >= TRIES:
        return f"it failed {state.failures} times: look at its runs, then materialize the asset by hand"
    if now - state.last_at < interval_s:
        return f"the last run was less than {interval_s:g} s ago"
    return None


def following_sensor(name: str, following: Following, description: str, tick_s: int = 15) -> SensorDefinition:
    """The sensor that asks for the job."""

    @sensor(
        name=name,
        job_name=following.job,
        minimum_interval_seconds=tick_s,
        default_status=DefaultSensorStatus.RUNNING,
        description=description,
    )
    def follow(context: SensorEvaluationContext, store: Store) -> RunRequest | SkipReason:
        state = state_of(context.instance, store, following)
        if reason := why_wait(state, time.time(), following.interval_s):
            return SkipReason(reason)
        return RunRequest(tags={NEWS_TAG: str(state.published_through)})

    return follow


def state_of(instance: DagsterInstance, store: Store, following: Following) -> State:
    """Read the state: a handful of queries, however many batches there are."""
    newest = published_through(instance, following.after)
    last_run = instance.get_latest_materialization_event(following.asset)
    failed = RunsFilter(
        job_name=following.job, statuses=[DagsterRunStatus.FAILURE], tags={NEWS_TAG: str(newest)}
    )
    next_entries = [
        layout.numbered(layout.INGEST, mark(last_run, INGESTED_THROUGH) + 1),
        layout.numbered(layout.CHAMPIONS, mark(last_run, CROWNED_THROUGH) + 1),
    ]
    return State(
        published_through=newest,
        taken_through=mark(last_run, TAKEN_THROUGH),
        logged=following.log and any(store.head(entry) for entry in next_entries),
        last_at=last_run.timestamp if last_run else 0.0,
        in_flight=at_work(instance, following.job),
        failures=len(instance.get_runs(failed, limit=TRIES)),
    )


def mark(load: EventLogEntry | None, name: str) -> int:
    """A position that an asset that follows has reached, from its metadata; 0 before the first."""
    taken = load.asset_materialization if load else None
    found = taken.metadata.get(name) if taken else None
    return int(cast("int", found.value)) if found else 0


def published_through(instance: DagsterInstance, published: Sequence[AssetKey]) -> int:
    """The event log's position of the newest publication of any of these assets; 0 before the first."""
    records = instance.get_asset_records(published)
    return max((record.asset_entry.last_materialization_storage_id or 0 for record in records), default=0)
