"""Synthetic words with a natural frequency curve, published in a store as the assets publish theirs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from resources import layout
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.published import (
    WORD_SCHEMA,
    ExtractedBatch,
    ExtractedVideo,
    Outcome,
    PublishedTranscripts,
    Status,
    TranscriptsHead,
)
from resources.store import Store
from speech.media import AudioInfo, MediaInfo

VOCABULARY = 200_000
MODELS = ("model_a", "model_b")
SOURCE = "s3://bucket/talks"
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_SYLLABLES = [c + v for c in "bdfghklmnprstvwz" for v in ("a", "e", "i", "o", "u")]


class Shape(NamedTuple):
    """How much is said: videos in a batch, words in a video."""

    videos: int = 64
    words: int = 1500  # ten minutes

    @property
    def rows(self) -> int:
        """Words in one batch's object."""
        return self.videos * self.words


SHAPE = Shape()


def word(rank: int) -> str:
    """The word of a frequency rank, from 1: frequent ones are short, as in any language.

    >>> word(1), word(1_000)
    ('ba', 'lubalo')
    """
    # Bijective base 80, so that no two ranks share a word.
    parts = []
    while rank > 0:
        rank, digit = divmod(rank - 1, len(_SYLLABLES))
        parts.append(_SYLLABLES[digit])
    return "".join(parts)


@lru_cache(maxsize=1)
def _vocabulary() -> tuple["pa.StringArray", np.ndarray]:
    """Words by rank, and how often a word has that rank or a lower one: Mandelbrot's curve, 1 / (rank + 2.7).

    B. Mandelbrot, "An informational theory of the statistical structure of language" (1953).
    """
    ranks = np.arange(1, VOCABULARY + 1)
    cumulated = np.cumsum(1 / (ranks + 2.7))
    return pa.array([word(int(rank)) for rank in ranks]), cumulated / cumulated[-1]


def ingest(store: Store, batches: int, shape: Shape = SHAPE) -> None:
    """Append so many batches of videos to the ingest log."""
    log = IngestLog(store)
    log.catch_up()
    for number in range(log.tail, log.tail + batches):
        taken = BEGUN + timedelta(minutes=number)
        log.append(
            [
                Video(
                    source=SOURCE,
                    key=f"{number:06d}/{n:03d}.mp4",
                    version="1",
                    size_bytes=1,
                    modified_at=taken,
                )
                for n in range(shape.videos)
            ]
        )


def publish(store: Store, number: int, seed: int, shape: Shape = SHAPE) -> Iterator[int]:
    """Publish a batch that is in the log, its sound and its words by each model; yields words written."""
    videos = IngestLog(store).entry(number).videos
    batch = f"{number:08d}"
    length = shape.words * 0.4
    extracted = ExtractedBatch(
        batch=batch,
        videos=tuple(
            ExtractedVideo(
                video=video,
                status=Status.OK,
                media=MediaInfo("mov,mp4", length, "h264", "aac", 1, 1, 0.0, 48_000, 2),
                audio=AudioInfo(length, 0, 0, kbit_per_s=96.0, noise_db=-60, speech_db=-20),
            )
            for video in videos
        ),
    )
    store.put(layout.extracted(batch), extracted.model_dump_json().encode())
    ids = [video.video_id for video in videos]
    rng = np.random.default_rng([seed, number])
    vocabulary, cumulated = _vocabulary()
    truth = np.searchsorted(cumulated, rng.random(shape.rows))
    for model in MODELS:
        wrong = rng.random(shape.rows) < 0.08
        heard = np.where(wrong, np.searchsorted(cumulated, rng.random(shape.rows)), truth)
        outcomes = tuple(
            Outcome(video_id=one, status=Status.OK, language="en", duration_s=length, words=shape.words)
            for one in ids
        )
        head = TranscriptsHead(model=model, fingerprint=model, batch=batch, outcomes=outcomes)
        words = _words(ids, vocabulary.take(pa.array(heard)), rng, shape)
        store.put(layout.transcripts(model, batch), PublishedTranscripts(head, words).encode())
        yield shape.rows


def _words(ids: list[str], spoken: pa.Array, rng: np.random.Generator, shape: Shape) -> pa.Table:
    """Twelve words a segment, six segments a window, each word somewhere in its own 0.4 seconds."""
    index = np.tile(np.arange(shape.words, dtype=np.int32), shape.videos)
    segment = index // 12
    first, last = index % 12 == 0, index % 12 == 11
    starts = np.round(index * 0.4 + rng.random(shape.rows) * 0.1, 3)
    shown = pc.if_else(pa.array(first), pc.utf8_capitalize(spoken), spoken)
    shown = pc.if_else(pa.array(last), pc.binary_join_element_wise(shown, ".", ""), shown)

    def of_window(low: float, high: float, digits: int) -> np.ndarray:
        values = np.round(rng.uniform(low, high, shape.rows // 72 + shape.videos), digits)
        place = np.repeat(np.arange(shape.videos), shape.words) + np.arange(shape.rows) // 72
        return np.asarray(values[place])

    columns = {
        "video_id": pa.array(np.repeat(ids, shape.words)),
        "segment_index": segment,
        "word_index": index,
        "word": shown,
        "word_normalized": spoken,
        "start_s": starts,
        "end_s": np.round(starts + 0.1 + rng.random(shape.rows) * 0.2, 3),
        "probability": np.round(rng.beta(8, 1, shape.rows), 4),
        "language": pa.array(["en"]).take(pa.array(np.zeros(shape.rows, np.int8))),
        "channel": pa.nulls(shape.rows, pa.int32()),
        "speaker": pa.nulls(shape.rows, pa.string()),
        "timing_source": pa.array(["cross_attention"]).take(pa.array(np.zeros(shape.rows, np.int8))),
        "voice": np.round(rng.beta(20, 1, shape.rows), 3),
        "log_probability": of_window(-0.6, -0.1, 4),
        "compression_ratio": of_window(1.2, 2.0, 3),
        "loop_words": np.zeros(shape.rows, np.int32),
        "temperature": np.zeros(shape.rows),
    }
    return pa.table([pa.array(columns[name]) for name in WORD_SCHEMA.names], schema=WORD_SCHEMA)
