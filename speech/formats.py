"""A transcript as text, JSON, SubRip or WebVTT."""

import json
from collections.abc import Iterator
from enum import StrEnum

from speech.types import Seconds, Segment, Transcript


def as_text(transcript: Transcript) -> str:
    """A line per segment."""
    return transcript.text


def as_json(transcript: Transcript, name: str) -> str:
    """One line of JSON: each word once, with numeric ``start_s``, ``end_s`` and ``probability``."""
    words = [
        {
            "word": word.text,
            "start_s": word.start_s,
            "end_s": word.end_s,
            "probability": word.probability,
            "segment_index": index,
            "timing_source": word.timing_source,
        }
        for index, segment in enumerate(transcript.segments)
        for word in segment.words
    ]
    document = {
        "file": name,
        "language": transcript.language,
        "duration_s": transcript.duration_s,
        "words": words,
    }
    return json.dumps(document, ensure_ascii=False)


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered captions, times with a comma."""
    captions = (
        f"{number}\n{_clock(caption.start_s, ',')} --> {_clock(caption.end_s, ',')}\n{caption.text}\n"
        for number, caption in enumerate(_captions(transcript), start=1)
    )
    return "\n".join(captions)


def as_vtt(transcript: Transcript) -> str:
    """WebVTT, as the HTML track element reads it."""
    captions = (
        f"{_clock(caption.start_s, '.')} --> {_clock(caption.end_s, '.')}\n{_escape(caption.text)}\n"
        for caption in _captions(transcript)
    )
    return "\n".join(["WEBVTT\n", *captions])


class Format(StrEnum):
    """What a transcript can be written as."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"

    def write(self, transcript: Transcript, name: str) -> str:
        """The transcript of the recording of that name in this format."""
        if self is Format.JSON:
            return as_json(transcript, name)
        writers = {Format.TEXT: as_text, Format.SRT: as_srt, Format.VTT: as_vtt}
        return writers[self](transcript)


_CAPTION_WORDS = 14
"""About two lines of 42 characters, the usual limit of subtitle guidelines."""


def _captions(transcript: Transcript) -> Iterator[Segment]:
    for segment in transcript.segments:
        for first in range(0, len(segment.words), _CAPTION_WORDS):
            yield Segment(segment.words[first : first + _CAPTION_WORDS])


def _clock(time_s: Seconds, mark: str) -> str:
    """Hours, minutes, seconds and milliseconds.

    >>> _clock(3723.5, ",")
    '01:02:03,500'
    """
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{milliseconds:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
