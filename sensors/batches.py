"""Batches: the unit of work and the partition of every asset up to the words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from dagster import DagsterRunStatus, DynamicPartitionsDefinition

from resources.ingest_log import IngestLog, Video
from resources.source import Source
from speech.types import Seconds

BATCHES = DynamicPartitionsDefinition(name="batch")
"""One partition per batch; its key is the number of its entry in the ingest log."""

PROCESS_BATCH = "process_batch"
LOAD_WORDS = "load_words"

UNDER_WAY = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
"""A run that some process should be at work on; a queued one waits for nobody who could have died."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch grows, and how long its first videos wait for more.

    A backlog fills batches and goes at once. A trickle goes as it is when its oldest video has
    waited ``wait_s`` since it was last modified. What was modified less than ``min_age_s`` ago may
    still be being written, and is left alone.
    """

    videos: int = 64
    size_bytes: int = 64 << 30
    wait_s: Seconds = 60.0
    min_age_s: Seconds = 5.0


AT_ONCE = BatchLimits(wait_s=0.0, min_age_s=0.0)
"""For the command line: whatever is there goes now."""


def plan_batches(videos: Iterable[Video], now: datetime, limits: BatchLimits) -> Iterator[list[Video]]:
    """Group videos into batches that are due; videos that should wait are in none of them."""
    batch: list[Video] = []
    for video in videos:
        if _age(video, now) < limits.min_age_s:
            continue
        full = len(batch) >= limits.videos
        if batch and (full or sum(v.size_bytes for v in batch) + video.size_bytes > limits.size_bytes):
            yield batch
            batch = []
        batch.append(video)
    if batch and (len(batch) >= limits.videos or _longest_wait(batch, now) >= limits.wait_s):
        yield batch


def _longest_wait(batch: Sequence[Video], now: datetime) -> Seconds:
    return max(_age(video, now) for video in batch)


def _age(video: Video, now: datetime) -> Seconds:
    """Time since the last change; a clock that is ahead says nothing, so such a video waits for nothing."""
    age = (now - video.modified_at).total_seconds()
    return age if age >= 0 else inf


def ingest(source: Source, log: IngestLog, now: datetime, limits: BatchLimits) -> list[str]:
    """List the source and record what is new or changed; the batches that were added.

    Raises :class:`~speech.errors.SourceUnavailable`, and then has recorded nothing or whole batches.
    """
    log.catch_up()
    added = []
    # The whole listing first: one that breaks off half-way must not decide anything.
    news = [video for video in source.list() if not log.is_current(video)]
    for planned in plan_batches(news, now, limits):
        entry = log.append(planned)
        if entry and entry.batch:
            added.append(entry.batch)
    return added
