"""Batches: the unit of work and the partition of every asset up to the words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Self

from dagster import AssetKey, DagsterInstance, DagsterRunStatus, DynamicPartitionsDefinition, RunsFilter

from resources.ingest_log import IngestLog
from resources.observations import IngestEntry, Video
from resources.routing import Routing
from resources.settings import Settings, local_path
from speech.types import Seconds

BATCHES = DynamicPartitionsDefinition(name="batch")
"""One partition per batch; its key is the number of its entry in the ingest log."""

PARTITION_TAG = "dagster/partition"
PROCESS_BATCH = "process_batch"
LOAD_WORDS = "load_words"
COMPARE_MODELS = "compare_models"
COPY_WORDS = "copy_words"
RECONCILE = "reconcile"

READING_S: Seconds = 5.0
"""How long a tick reads a long ingest log, after a restart, before it lets other sensors tick."""

UNDER_WAY = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
"""A run that some process should be at work on; a queued one waits for nobody who could have died."""


def at_work(instance: DagsterInstance, job: str | None = None, batch: str | None = None) -> bool:
    """Whether a run of a job, or for a batch, is under way or waits for its turn."""
    runs = RunsFilter(
        job_name=job,
        tags={PARTITION_TAG: batch} if batch else None,
        statuses=[DagsterRunStatus.QUEUED, *UNDER_WAY],
    )
    return bool(instance.get_runs(runs, limit=1))


def is_materializing(instance: DagsterInstance, asset: AssetKey) -> bool:
    """Whether a run of any job, the UI's own included, that is under way or waits has this asset to make."""
    runs = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED, *UNDER_WAY]))
    return any(asset in (run.asset_selection or ()) or run.job_name == COMPARE_MODELS for run in runs)


@dataclass(frozen=True, slots=True)
class Steps:
    """The assets of :data:`PROCESS_BATCH`: those of each batch, and those of each model version."""

    always: Sequence[AssetKey]
    transcripts: Mapping[str, AssetKey]

    @property
    def all(self) -> list[AssetKey]:
        """Whatever a batch may be heard by."""
        return [*self.always, *self.transcripts.values()]

    def of(self, batch: str, routing: Routing) -> list[AssetKey]:
        """What a run of a batch is to materialize: challengers hear a share of the batches."""
        return [
            *self.always,
            *(key for model, key in self.transcripts.items() if routing.takes(model, batch)),
        ]


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

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits of a deployment."""
        # A folder is somebody at a desk who wants to see words: two minutes from copy to query, the
        # second video in a row included. A bucket wants full batches.
        wait_s = 5.0 if local_path(settings.source_url) else 60.0
        return cls(
            videos=settings.batch_videos,
            wait_s=wait_s if settings.batch_wait_s is None else settings.batch_wait_s,
            min_age_s=settings.min_age_s,
        )

    @property
    def at_once(self) -> Self:
        """The same for somebody who waits for it: whatever is there goes now."""
        return replace(self, wait_s=0.0, min_age_s=0.0)


CLOCKS_DIFFER_S: Seconds = 600.0
"""By which a file system's clock may be ahead of ours and be believed."""


def plan_batches(videos: Iterable[Video], limits: BatchLimits) -> Iterator[list[Video]]:
    """Group videos into batches that are due; videos that should wait are in none of them."""
    batch: list[Video] = []
    size_bytes = 0
    for video in videos:
        if _age(video) < limits.min_age_s:
            continue
        if batch and (len(batch) >= limits.videos or size_bytes + video.size_bytes > limits.size_bytes):
            yield batch
            batch, size_bytes = [], 0
        batch.append(video)
        size_bytes += video.size_bytes
    if batch and (len(batch) >= limits.videos or max(map(_age, batch)) >= limits.wait_s):
        yield batch


def _age(video: Video) -> Seconds:
    """Time since the last change. The clock of whoever is far ahead says nothing: no waiting for that."""
    age = (datetime.now(UTC) - video.modified_at).total_seconds()
    return max(age, 0.0) if age > -CLOCKS_DIFFER_S else inf


def record(
    log: IngestLog, videos: Iterable[Video], limits: BatchLimits, as_of: int | None = None
) -> Iterator[IngestEntry]:
    """Record what is new or changed among videos, as far as it is due; the entries that were added.

    ``as_of`` as in :meth:`~resources.ingest_log.IngestLog.append`.
    """
    news = (video for video in videos if log.is_news(video))
    for batch in plan_batches(news, limits):
        if entry := log.append(batch, as_of=as_of):
            yield entry
