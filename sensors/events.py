"""The event sensor: what the bucket says has changed is looked up there, and recorded.

An event is a hint and no more: which version a key holds now is asked of the bucket itself. So events
may come twice, late, in any order, or about a key that is long gone.
"""

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from resources import layout
from resources.event_queue import EventQueue, Message
from resources.ingest_log import IngestLog, shared_log
from resources.observations import Video
from resources.published import JsonObject
from resources.source import LOOK_UPS, Source, ask_each
from resources.store import Store
from sensors.batches import BatchLimits, record
from sensors.patience import patiently
from speech.types import Seconds

TICK_S: Seconds = 10.0
MESSAGES_PER_TICK = 1000
LOOK_UP_S: Seconds = 15.0


class BadEvent(ValueError):
    """A message that tells of no object, or also of something that is none; says why.

    ``changed`` are the objects that it does tell of.
    """

    def __init__(self, reason: str, changed: Sequence["Changed"] = ()) -> None:
        super().__init__(reason)
        self.changed = list(changed)


class Changed(NamedTuple):
    """An object that may have changed, and the ETag that it has since then, if the event says it."""

    bucket: str
    key: str
    version: str | None


class DeadLetter(JsonObject, frozen=True):
    """A message that nobody can read, and why not."""

    reason: str
    body: str
    received_at: datetime


def changed_objects(body: str) -> list[Changed]:
    """The objects that a message is about: as S3 sends it, inside SNS's envelope, or from EventBridge.

    Raises :class:`BadEvent` for anything else; S3's test event is about none.

    >>> changed_objects('{"Event": "s3:TestEvent"}')
    []
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise BadEvent("is not a JSON object")
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        return changed_objects(event["Message"])
    if event.get("Event") == "s3:TestEvent":
        return []
    if event.get("source") == "aws.s3":
        return _each([event], lambda record: _changed(record["detail"], record.get("detail-type")))
    records = event.get("Records")
    if not isinstance(records, list):
        raise BadEvent("is no event of S3")
    # In S3's own events the key is encoded as in a query string, in EventBridge's it is not.
    return _each(records, lambda record: _decoded(_changed(record["s3"], record.get("eventName"))))


def _each(records: list[Any], read: Callable[[Any], Changed]) -> list[Changed]:
    changed, problems = [], []
    for told in records:
        try:
            changed.append(read(told))
        except (KeyError, TypeError, AttributeError, UnicodeError) as error:
            problems.append(f"is no event of S3: {error!r}")
    if problems:
        raise BadEvent(problems[0], changed)
    return changed


def _decoded(changed: Changed) -> Changed:
    return changed._replace(key=unquote_plus(changed.key, errors="strict"))


def _changed(about: Any, what: Any) -> Changed:
    bucket, changed = about["bucket"]["name"], about["object"]
    # Some say of a deleted object what it was.
    created = isinstance(what, str) and what.startswith(("ObjectCreated", "Object Created"))
    key, version = changed["key"], created and (changed.get("eTag") or changed.get("etag"))
    if not isinstance(bucket, str) or not isinstance(key, str) or not key:
        raise TypeError("bucket and key are no text")
    key.encode()  # JSON can hold halves of characters, which no bucket has
    return Changed(bucket, key, version if isinstance(version, str) else None)


def event_sensor(queue: EventQueue, limits: BatchLimits, interval_s: int) -> SensorDefinition:
    """The sensor of one queue. Its runs are started by :mod:`sensors.offering`."""

    @sensor(
        name="bucket_events",
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Takes the bucket's notifications from the queue and records what they are about.",
    )
    def bucket_events(context: SensorEvaluationContext, source: Source, store: Store) -> SkipReason:
        return patiently(context, lambda: take_events(queue, source, store, shared_log(store.url), limits))

    return bucket_events


def take_events(queue: EventQueue, source: Source, store: Store, log: IngestLog, limits: BatchLimits) -> str:
    """One tick: empty the queue, as far as time goes; what came of it, as a sentence.

    A message is deleted only when what it is about stands in the ingest log, or it is a dead letter; one
    whose videos wait for more comes back when they have waited. Killed before that, all of them come back.
    Raises :class:`~speech.errors.SourceUnavailable`; then nothing is deleted.
    """
    until = time.monotonic() + TICK_S
    if not log.catch_up(until):
        return f"reading the ingest log, at entry {log.tail}"
    messages: list[Message] = []
    # All of them first: ten messages are no batch.
    while len(messages) < MESSAGES_PER_TICK and time.monotonic() < until:
        received = queue.receive()
        if not received:
            break
        messages += received
    dead = 0
    told: dict[Message, set[str]] = {}
    for message in messages:
        try:
            changed = changed_objects(message.body)
        except BadEvent as error:
            bury(store, message, str(error))
            changed = error.changed
            dead += 1
        # What the log has already is no news, however old the event is: most of them, beside a listing.
        told[message] = {
            key
            for bucket, key, version in changed
            if f"s3://{bucket}" == source.name and not (version and log.holds(source.name, key, version))
        }
    # An event comes when the upload is complete: nothing is too young.
    of_any_age = replace(limits, min_age_s=0.0)
    left = record_changes(set().union(*told.values()), source, log, of_any_age, until + LOOK_UP_S)
    queue.delete([message for message, keys in told.items() if keys.isdisjoint(left)])
    waiting = [message for message, keys in told.items() if not keys.isdisjoint(left)]
    queue.postpone(waiting, limits.wait_s)
    unreadable = f", {dead} unreadable (in {store.url}/{layout.DEAD_LETTERS})" if dead else ""
    return f"{len(messages)} messages{unreadable}{f', {len(waiting)} wait' if waiting else ''}"


def record_changes(
    changed: Collection[str],
    source: Source,
    log: IngestLog,
    limits: BatchLimits,
    until: Seconds = inf,
) -> set[str]:
    """Look every key up and record what is there now, or that it is gone; the keys that are left.

    Those are keys that were not looked up before ``until``, whose batch is not due yet, and about which
    somebody else has said something in the meantime.
    """
    as_of = log.tail
    keys = sorted(changed)
    there: dict[str, Video | None] = {}
    while len(there) < len(keys) and time.monotonic() < until:
        some = keys[len(there) :][: 4 * LOOK_UPS]
        there.update(zip(some, map(log.unless_erased, ask_each(source.find, some)), strict=True))
    missing = [key for key, found in there.items() if found is None]
    known = ask_each(partial(log.current, source.name), missing)
    gone = [video for video in known if video and source.covers(video)]
    found = [video for video in there.values() if video]
    list(record(log, found, limits, as_of))  # it records as far as it is asked
    if gone:
        log.append([], gone, as_of)
    unsettled = [video.key for video in found if log.is_news(video)]
    return {*keys[len(there) :], *unsettled, *(video.key for video in gone if log.is_current(video))}


def bury(store: Store, message: Message, reason: str) -> None:
    """Keep a message that nobody can read, where somebody can look at it."""
    body = message.body.encode(errors="backslashreplace").decode()  # half a character may be in it
    letter = DeadLetter(reason=reason, body=body, received_at=datetime.now(UTC))
    store.put(layout.dead_letter(body), letter.model_dump_json().encode())
