"""The listing sensor: looks through the source, tick by tick, and records what is new or changed."""

import time
from collections.abc import Iterator

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from resources import layout
from resources.ingest_log import IngestLog, shared_log
from resources.observations import Video
from resources.published import JsonObject
from resources.source import Look, Source
from resources.store import Store
from sensors.batches import READING_S, BatchLimits, record
from sensors.patience import patiently
from speech.errors import SourceUnavailable
from speech.types import Seconds

TICK_S: Seconds = 20.0
"""How long one tick looks; Dagster ends an evaluation after 60 s, and the last answer may be slow."""


class Position(JsonObject, frozen=True):
    """Where a look through a source stopped. It stands in the store and not in Dagster's cursor: from
    Dagster's database a key could not be erased."""

    source: str
    after: str


def listing_sensor(limits: BatchLimits, interval_s: int) -> SensorDefinition:
    """The sensor, with the limits of this deployment. Its runs are started by :mod:`sensors.offering`."""

    @sensor(
        name="new_videos",
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Lists the source, a piece a tick, and records new and changed videos in the ingest log.",
    )
    def new_videos(context: SensorEvaluationContext, source: Source, store: Store) -> SkipReason:
        return patiently(context, lambda: look_on(source, store, shared_log(store.url), limits))

    return new_videos


def look_on(source: Source, store: Store, log: IngestLog, limits: BatchLimits) -> str:
    """One tick: go on where the last one stopped; what came of it, as a sentence.

    Killed at any moment it has recorded whole batches or nothing; what was looked at without its position
    being saved is looked at again, and known by then. Raises :class:`~speech.errors.SourceUnavailable` when
    what was found before that is recorded.
    """
    if not log.catch_up(time.monotonic() + READING_S):
        return f"reading the ingest log, at entry {log.tail}"
    until = time.monotonic() + TICK_S
    former = Position.read(store, layout.LISTING)
    look = source.look(former.after if former and former.source == source.url else None, until)
    troubles: list[SourceUnavailable] = []
    added = list(record(log, _until_trouble(look, troubles), limits, as_of=log.tail))
    if look.position is not None:
        position = Position(source=source.url, after=look.position)
        store.put(layout.LISTING, position.model_dump_json().encode())
    elif former:
        store.delete(layout.LISTING)
    for trouble in troubles:
        raise trouble
    recorded = f"recorded {len(added)} entries" if added else "nothing new"
    return f"{recorded} in {source.url}{'' if look.position is None else ', not yet at its end'}"


def _until_trouble(look: Look, troubles: list[SourceUnavailable]) -> Iterator[Video]:
    """What a bucket told before it stopped answering counts: the next tick goes on from there."""
    try:
        yield from look
    except SourceUnavailable as error:
        troubles.append(error)
