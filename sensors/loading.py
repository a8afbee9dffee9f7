"""The loading sensor: when words were published, by a run or by a backfill, asks for one load."""

import time
from dataclasses import dataclass
from typing import cast

from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from resources import layout
from resources.store import Store
from sensors.batches import LOAD_WORDS, at_work
from speech.types import Seconds

LOADED_THROUGH = "loaded_through"
"""Metadata of word_timings: the event log's position up to which publications were there when it began."""

INGESTED_THROUGH = "ingested_through"
"""Metadata of word_timings: the number of the newest ingest entry it has. An entry alone can change what
is current, without any transcript."""

NEWS_TAG = "asr/published_through"
TRIES = 3


@dataclass(frozen=True, slots=True)
class LoadState:
    """What the decision to load depends on; positions are storage ids of Dagster's event log.

    ``ingested`` says that the ingest log has entries which are not loaded.
    """

    published_through: int
    loaded_through: int
    ingested: bool
    last_load_at: float
    in_flight: bool
    failures: int


def why_not_load(state: LoadState, now: float, interval_s: Seconds) -> str | None:
    """The reason to wait; None when a load is due.

    Readers' copies are published with each load, so ``interval_s`` between loads is also the
    shortest time between two copies.
    """
    if state.published_through <= state.loaded_through and not state.ingested:
        return "all that is published is loaded"
    if state.in_flight:
        return "a load is under way"
    if state.failures >= TRIES:
        return (
            f"loading failed {state.failures} times: look at its runs, then materialize word_timings by hand"
        )
    if now - state.last_load_at < interval_s:
        return f"the last load was less than {interval_s:g} s ago"
    return None


def loading_sensor(
    published: list[AssetKey], word_timings: AssetKey, interval_s: int = 60, tick_s: int = 15
) -> SensorDefinition:
    """The sensor; it knows assets by their keys only."""

    @sensor(
        name="published_words",
        job_name=LOAD_WORDS,
        minimum_interval_seconds=tick_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Asks for a load when transcripts were published that the warehouse does not have.",
    )
    def published_words(context: SensorEvaluationContext, store: Store) -> RunRequest | SkipReason:
        state = load_state(context.instance, store, published, word_timings)
        reason = why_not_load(state, time.time(), interval_s)
        if reason:
            return SkipReason(reason)
        return RunRequest(tags={NEWS_TAG: str(state.published_through)})

    return published_words


def load_state(
    instance: DagsterInstance, store: Store, published: list[AssetKey], word_timings: AssetKey
) -> LoadState:
    """Read the state: a handful of queries, however many batches there are."""
    newest = published_through(instance, published)
    last_load = instance.get_latest_materialization_event(word_timings)
    loaded = last_load.asset_materialization if last_load else None
    marks = {
        name: loaded.metadata.get(name) if loaded else None for name in (LOADED_THROUGH, INGESTED_THROUGH)
    }
    numbers = {name: int(cast("int", mark.value)) if mark else 0 for name, mark in marks.items()}
    failed = RunsFilter(
        job_name=LOAD_WORDS, statuses=[DagsterRunStatus.FAILURE], tags={NEWS_TAG: str(newest)}
    )
    return LoadState(
        published_through=newest,
        loaded_through=numbers[LOADED_THROUGH],
        ingested=store.head(layout.numbered(layout.INGEST, numbers[INGESTED_THROUGH] + 1)) is not None,
        last_load_at=last_load.timestamp if last_load else 0.0,
        in_flight=at_work(instance, LOAD_WORDS),
        failures=len(instance.get_runs(failed, limit=TRIES)),
    )


def published_through(instance: DagsterInstance, published: list[AssetKey]) -> int:
    """The event log's position of the newest publication of any of these assets; 0 before the first."""
    records = instance.get_asset_records(published)
    return max((record.asset_entry.last_materialization_storage_id or 0 for record in records), default=0)
