"""Column schemas, as the UI shows them."""

from dataclasses import fields

from dagster import TableColumn, TableSchema

from resources.published import WORD_SCHEMA
from speech.media import AudioInfo, MediaInfo

WORD_COLUMNS = [(column.name, str(column.type)) for column in WORD_SCHEMA]
PROBED_COLUMNS = [
    *((name, "string") for name in ("video_id", "status", "reason", "message")),
    *((field.name, str(field.type)) for field in fields(MediaInfo)),
]
EXTRACTED_COLUMNS = [*PROBED_COLUMNS, *((field.name, str(field.type)) for field in fields(AudioInfo))]

_MEANING = {
    "video_id": "128 bits over source, key and content version",
    "status": "ok, empty (a success without words) or failed",
    "reason": "why there are no words",
    "message": "the reason as a sentence",
    "segment_index": "sentence-like stretch, from 0 in each video",
    "word_index": "from 0 in each video",
    "word": "as the engine writes it",
    "word_normalized": "lower case, no punctuation: what is searched and compared",
    "start_s": "seconds on the video's own timeline",
    "end_s": "seconds on the video's own timeline",
    "probability": "the engine's confidence in [0, 1]; not comparable between model versions",
    "channel": "0 left, 1 right where they were heard apart, else NULL",
    "timing_source": "what the times come from",
    "voice": "how sure voice activity is, in [0, 1], that somebody speaks then",
    "log_probability": "mean over what the engine wrote for the window; under -1: doubtful",
    "compression_ratio": "of the window's text in bytes; over 2.4: it repeats itself",
    "loop_words": "words of the window that only say again what stands before them",
    "temperature": "over 0: the window was heard again, by chance",
    "audio_stream": "index of the stream that is transcribed",
    "audio_start_s": "where the sound begins on the video's timeline",
    "duration_s": "seconds",
    "decode_errors": "packets that gave no audio",
    "clock_jumps": "places where timestamps made no sense and were bridged",
    "lost_share": "part of its time for which there is no sound though there was before",
    "cut_short": "whether the file ends before its container says so",
    "kbit_per_s": "thousands of bits for each second of the encoded sound",
    "noise_db": "how loud it is between words, in decibels below the loudest possible",
    "speech_db": "how loud words are, in decibels below the loudest possible",
}


def columns(*named: tuple[str, str]) -> TableSchema:
    """A schema from names and types."""
    return TableSchema(
        [
            TableColumn(name, kind.removeprefix("<class '").removesuffix("'>"), _MEANING.get(name))
            for name, kind in named
        ]
    )
