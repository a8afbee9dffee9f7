"""A look through the whole source that compares it with the ingest log, however long it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.source import Source, ask_each
from sensors.batches import BatchLimits, record

DELETED_AT_ONCE = 1000
"""Deletions that one entry of the log may hold."""


@dataclass
class Reconciled:
    """What a look found, in videos, and the ``batches`` it added.

    ``lost`` and ``superseded`` had not been noticed by anyone until now: new keys, and new versions of
    known ones. ``doubled`` were taken in more than once, which must not happen.
    """

    listed: int = 0
    lost: int = 0
    superseded: int = 0
    deleted: int = 0
    doubled: int = 0
    batches: list[str] = field(default_factory=list)


def reconcile(source: Source, log: IngestLog, limits: BatchLimits) -> Reconciled:
    """Record what nobody has noticed: new and changed videos, and those that are gone.

    Raises :class:`~speech.errors.SourceUnavailable`; then nothing is taken for gone.
    """
    log.catch_up()
    found = Reconciled()
    tail, look = log.tail, log.begin_look()
    superseding: set[str] = set()
    for entry in record(log, _noticed(source, log, look, found, superseding), limits, as_of=tail):
        known = superseding.intersection(video.video_id for video in entry.videos)
        found.superseded += len(known)
        found.lost += len(entry.videos) + len(entry.seen_again) - len(known)
        found.batches += [entry.batch] if entry.batch else []
    for gone in _gone(source, log, look, tail):
        for first in range(0, len(gone), DELETED_AT_ONCE):
            deleted = log.append([], gone=gone[first : first + DELETED_AT_ONCE], as_of=tail)
            found.deleted += len(deleted.deleted) if deleted else 0
    found.doubled = len(log.doubled)
    return found


def compare(source: Source, log: IngestLog) -> dict[str, int]:
    """Videos at the source and in the log, and how many differ; nothing is recorded.

    ``missing`` are at the source and not in the log as they are now, ``gone`` are current and not there.
    """
    log.catch_up()
    tail, look = log.tail, log.begin_look()
    counts = {"at_the_source": 0, "missing": 0}
    for video in filter(None, map(log.unless_erased, source.look())):
        log.looked_at(video, look)
        counts["at_the_source"] += 1
        if log.is_news(video):
            log.catch_up()  # somebody may have taken it in since
            counts["missing"] += log.is_news(video)
    gone = sum(map(len, _gone(source, log, look, tail)))
    return counts | {"gone": gone, "doubled": len(log.doubled)}


def _gone(source: Source, log: IngestLog, look: int, tail: int) -> Iterator[list[Video]]:
    """Each is asked for by its key: a listing that skips one must not make it gone."""
    for overlooked in log.overlooked(source.name, look, tail):
        ours = [video for video in overlooked if source.covers(video)]
        there = map(log.unless_erased, ask_each(source.find, [video.key for video in ours]))
        yield [video for video, found in zip(ours, there, strict=True) if found is None]


def _noticed(
    source: Source, log: IngestLog, look: int, found: Reconciled, superseding: set[str]
) -> Iterator[Video]:
    for video in filter(None, map(log.unless_erased, source.look())):
        log.looked_at(video, look)
        found.listed += 1
        if log.is_news(video) and log.has_key(video):
            superseding.add(video.video_id)
        yield video
