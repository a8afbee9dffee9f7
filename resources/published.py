"""What the assets publish in the store, and the form it has there.

A batch's transcripts are one Parquet object: a row a word, and in the file's metadata the outcome of
every video. Nothing in it differs between two runs of the same work, so its bytes do not either.
"""

import io
import json
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Self, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from resources.observations import Video
from resources.sidecars import Sidecar
from resources.store import Store
from speech.errors import Reason, StoreError
from speech.media import AudioInfo, MediaInfo
from speech.types import HeardWindow, Seconds, Transcript, normalize_word

WORD_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int32(), nullable=False),
        pa.field("word_index", pa.int32(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        pa.field("word_normalized", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("channel", pa.int32()),
        pa.field("speaker", pa.string()),
        pa.field("timing_source", pa.string(), nullable=False),
        # Whether to believe it: how sure voice activity is, and what is known of the word's window.
        pa.field("voice", pa.float64()),
        pa.field("log_probability", pa.float64()),
        pa.field("compression_ratio", pa.float64()),
        pa.field("loop_words", pa.int32()),
        pa.field("temperature", pa.float64()),
    ]
)
Row: TypeAlias = tuple[str | int | float | None, ...]
_METADATA_KEY = b"asr"


class Status(StrEnum):
    """How a video ended. ``empty`` is a success without words; its reason says why there are none.

    ``left``: to another model version.
    """

    OK = "ok"
    EMPTY = "empty"
    FAILED = "failed"
    LEFT = "left"


class JsonObject(BaseModel, frozen=True):
    """Base of what is stored as one JSON object."""

    @classmethod
    def read(cls, store: Store, key: str) -> Self | None:
        """None when there is no such object."""
        data = store.get(key)
        try:
            return None if data is None else cls.model_validate_json(data)
        except ValidationError as error:
            raise _damaged(store, key) from error


class ProbedVideo(BaseModel, frozen=True):
    """What raw_videos saw; ``media`` is None when the video could not be opened.

    ``message`` is the reason as a sentence, for a failure.
    """

    video: Video
    status: Status
    reason: Reason | None = None
    message: str | None = None
    media: MediaInfo | None = None
    sidecar: Sidecar = Sidecar()


class ExtractedVideo(ProbedVideo, frozen=True):
    """What extracted_audio made of it; ``audio`` is None when there is no FLAC."""

    audio: AudioInfo | None = None

    @property
    def duration_s(self) -> Seconds | None:
        """The video's length: what the container says, or the audio where that goes on for longer."""
        lengths = [
            self.media.duration_s if self.media else None,
            self.audio.duration_s if self.audio else None,
        ]
        return max((length for length in lengths if length is not None), default=None)


class ProbedBatch(JsonObject, frozen=True):
    """The object that raw_videos writes for a batch."""

    batch: str
    videos: tuple[ProbedVideo, ...]


class ExtractedBatch(JsonObject, frozen=True):
    """The object that extracted_audio writes for a batch."""

    batch: str
    videos: tuple[ExtractedVideo, ...]


class Outcome(BaseModel, frozen=True):
    """What became of one video under one model version.

    ``told`` names what its sidecar told the model, ``rule`` is the one that sends the video to this model.
    """

    video_id: str
    status: Status
    reason: Reason | None = None
    language: str | None = None
    duration_s: Seconds | None = None
    words: int = 0
    told: str = ""
    rule: str | None = None


class Attempt(BaseModel, frozen=True):
    """One try at one video by one model version. ``seconds`` is wall time inside the engine."""

    video_id: str
    run_id: str
    worker: str
    started_at: datetime
    ended_at: datetime
    seconds: Seconds
    outcome: str
    """A status, or the reason of a failure."""
    message: str | None = None
    device: str | None = None
    peak_mb: int | None = None
    """Of the process that heard it, up to then."""
    peak_gpu_mb: int | None = None


class AttemptsBatch(JsonObject, frozen=True):
    """The object that one run writes for the attempts it made."""

    model: str
    batch: str
    attempts: tuple[Attempt, ...]


class FinishedVideo(JsonObject, frozen=True):
    """One video's result; ``rows`` are its words, in the schema's order of columns.

    ``attempt`` is None when no engine was asked, or when it was in a run before.
    """

    outcome: Outcome
    rows: tuple[Row, ...] = ()
    attempt: Attempt | None = None


class HeardWindows(JsonObject, frozen=True):
    """Some windows of a video that is being transcribed."""

    windows: tuple[HeardWindow, ...]


class TranscriptsHead(BaseModel, frozen=True):
    """The metadata of a transcripts object; ``routing`` names what decided on its videos."""

    model: str
    fingerprint: str
    batch: str
    outcomes: tuple[Outcome, ...]
    routing: str = ""


class PublishedTranscripts:
    """A transcripts object: ``head`` and a table of words in :data:`WORD_SCHEMA`."""

    def __init__(self, head: TranscriptsHead, words: pa.Table) -> None:
        self.head, self.words = head, words

    @classmethod
    def build(cls, head: TranscriptsHead, finished: Sequence[FinishedVideo]) -> Self:
        """Rows in the order of the batch's videos."""
        rows = [row for video in finished for row in video.rows]
        columns = list(zip(*rows, strict=True)) or [()] * len(WORD_SCHEMA)
        arrays = [
            pa.array(column, type=field.type) for column, field in zip(columns, WORD_SCHEMA, strict=True)
        ]
        return cls(head, pa.table(arrays, schema=WORD_SCHEMA))

    def encode(self) -> bytes:
        """The object's bytes: the same for the same content."""
        # Sorted keys: the metadata is part of the bytes.
        head = json.dumps(self.head.model_dump(mode="json"), sort_keys=True).encode()
        out = io.BytesIO()
        pq.write_table(self.words.replace_schema_metadata({_METADATA_KEY: head}), out, compression="zstd")
        return out.getvalue()

    @classmethod
    def read(cls, store: Store, key: str) -> Self | None:
        """None when nothing is published under that key."""
        data = store.get(key)
        if data is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(data))
            return cls(_head(table.schema), table)
        except (pa.ArrowException, KeyError, ValidationError) as error:
            raise _damaged(store, key) from error

    def rows_of(self, video_id: str) -> tuple[Row, ...]:
        """The words of one video, in the schema's order of columns."""
        mine = self.words.filter(pa.compute.equal(self.words["video_id"], video_id))
        return tuple(zip(*(mine[name].to_pylist() for name in WORD_SCHEMA.names), strict=True))


def read_head(store: Store, key: str) -> TranscriptsHead | None:
    """Who ended how in a transcripts object, without reading its words; None when there is none."""
    file = store.open(key)
    if file is None:
        return None
    try:
        return _head(pq.ParquetFile(file).schema_arrow)
    except (pa.ArrowException, KeyError, ValidationError) as error:
        raise _damaged(store, key) from error


def _damaged(store: Store, key: str) -> StoreError:
    return StoreError(f"{store.url}/{key} is damaged: delete it and run its batch again")


def _head(schema: pa.Schema) -> TranscriptsHead:
    return TranscriptsHead.model_validate_json((schema.metadata or {})[_METADATA_KEY])


def word_rows(video_id: str, transcript: Transcript) -> tuple[Row, ...]:
    """A transcript as rows in the schema's order."""
    numbered = [
        (segment_index, word)
        for segment_index, segment in enumerate(transcript.segments)
        for word in segment.words
    ]
    return tuple(
        (
            video_id,
            segment_index,
            word_index,
            word.text,
            normalize_word(word.text),
            word.start_s,
            word.end_s,
            word.probability,
            word.signals.language if word.signals else transcript.language,
            word.channel,
            None,
            word.timing_source,
            word.voice,
            *(
                (s.log_probability, s.compression_ratio, s.loop_words, s.temperature)
                if (s := word.signals)
                else (None,) * 4
            ),
        )
        for word_index, (segment_index, word) in enumerate(numbered)
    )
