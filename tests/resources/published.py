"""Videos whose words are published as the assets publish them, and a warehouse that has loaded them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from resources import layout, snapshot
from resources.champions import crown_first
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.published import (
    ExtractedBatch,
    ExtractedVideo,
    FinishedVideo,
    Outcome,
    PublishedTranscripts,
    Status,
    TranscriptsHead,
    word_rows,
)
from resources.store import Store
from resources.warehouse import LoadReport, Warehouse
from speech.types import Segment, Transcript, Word

NOWHERE = Path("/nonexistent")
"""Where a snapshot of a store that is a folder is cached."""


def add_videos(store: Store, *keys: str, source: str = "s3://b", version: str = "1") -> tuple[str, list[str]]:
    """Ingest and extract a batch of videos; the batch and their ids."""
    now = datetime.now(UTC)
    videos = [Video(source=source, key=key, version=version, size_bytes=1, modified_at=now) for key in keys]
    entry = IngestLog(store).append(videos)
    assert entry is not None
    assert entry.batch is not None
    extracted = tuple(ExtractedVideo(video=video, status=Status.OK) for video in videos)
    done = ExtractedBatch(batch=entry.batch, videos=extracted)
    store.put(layout.extracted(entry.batch), done.model_dump_json().encode())
    return entry.batch, [video.video_id for video in videos]


def publish(store: Store, batch: str, heard: Mapping[str, Transcript | None], model: str = "m") -> None:
    """Publish what ``model`` heard in a batch's videos, by their ids; None: it failed."""
    finished = []
    for video_id, transcript in heard.items():
        rows = word_rows(video_id, transcript) if transcript else ()
        status = Status.FAILED if transcript is None else Status.OK if rows else Status.EMPTY
        duration_s = transcript.duration_s if transcript else 60.0
        outcome = Outcome(video_id=video_id, status=status, duration_s=duration_s, words=len(rows))
        finished.append(FinishedVideo(outcome=outcome, rows=rows))
    outcomes = tuple(video.outcome for video in finished)
    head = TranscriptsHead(model=model, fingerprint="f", batch=batch, outcomes=outcomes)
    store.put(layout.transcripts(model, batch), PublishedTranscripts.build(head, finished).encode())


def spoken(words: str, duration_s: float = 60.0) -> Transcript:
    """A word a second, each for half of it; ``|`` ends a segment."""
    seconds = count()
    segments = (
        Segment(tuple(Word(text, n, n + 0.5, 0.9, "test") for text, n in zip(texts, seconds, strict=False)))
        for texts in map(str.split, words.split("|"))
        if texts
    )
    return Transcript("en", duration_s, tuple(segments))


def add_batch(store: Store, key: str, words: str, source: str = "s3://b") -> str:
    """Ingest, extract and publish one video; its id."""
    batch, (video_id,) = add_videos(store, key, source=source)
    publish_words(store, batch, video_id, words)
    return video_id


def publish_words(store: Store, batch: str, video_id: str, words: str) -> None:
    """Publish one video's words."""
    publish(store, batch, {video_id: spoken(words)})


def load(warehouse: Warehouse, store: Store) -> LoadReport:
    """Load and publish, with model version ``m`` for its champion."""
    crown_first(store, "m", "f")
    with warehouse.exclusive() as path:
        report = warehouse.load(store, lambda done, total: None)
        snapshot.publish(store, path, report)
    return report


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    """The answer of the newest snapshot."""
    with snapshot.read(store, NOWHERE) as connection:
        return connection.execute(sql).fetchall()
