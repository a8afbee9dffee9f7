"""Sidecars: files beside a video, of the same name, that say something about it.

``talk.ctm`` (words with their times), ``talk.srt``, ``talk.vtt`` or ``talk.txt`` hold what is truly said in
``talk.mp4``; ``talk.json`` may say its ``language``, ``hints`` (names and words to expect) and ``metadata``.
"""

import json
import re
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from resources.observations import Video
from speech.errors import VideoError, what_is_wrong
from speech.types import Seconds

if TYPE_CHECKING:
    from resources.source import Source

REFERENCES = (".ctm", ".srt", ".vtt", ".txt")
MAX_BYTES = 1 << 20
_TIMING = re.compile(r"^.*-->.*$", re.MULTILINE)
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


def _readable(metadata: dict[str, Any]) -> dict[str, Any]:
    """What DuckDB reads as JSON, too; Python's own JSON has more numbers."""
    try:
        json.loads(json.dumps(metadata), parse_int=_number, parse_float=_number, parse_constant=_number)
    except ValueError as error:
        raise ValueError("holds a number that is none in JSON (NaN, Infinity), or is too large") from error
    return metadata


def _number(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(text)
    return number


class About(BaseModel, frozen=True):
    """What a JSON sidecar may say."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None
    hints: tuple[str, ...] = ()
    metadata: Annotated[dict[str, Any], AfterValidator(_readable)] = {}


class Sidecar(BaseModel, frozen=True):
    """All that stands beside a video; ``problem`` says what of it could not be read.

    ``metadata`` is JSON: how deep it is is nobody else's concern.
    """

    language: str | None = None
    hints: tuple[str, ...] = ()
    metadata: str | None = None
    reference: str | None = None
    reference_starts_s: tuple[Seconds, ...] | None = None
    reference_ends_s: tuple[Seconds, ...] | None = None
    """Of each word of the reference, between blanks; None when nobody says."""
    problem: str | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The metadata as it was written."""
        return dict(json.loads(self.metadata)) if self.metadata else {}


def read_sidecars(source: "Source", video: Video) -> Sidecar:
    """What stands beside a video now. A bad sidecar is a problem of its own, never of the video.

    Raises :class:`~speech.errors.SourceUnavailable`.
    """
    folder, slash, name = video.key.rpartition("/")
    stem = f"{folder}{slash}{name.rpartition('.')[0] or name}"
    about, problems = About(), []
    said: TimedReference | str | None = None
    for suffix in (".json", *REFERENCES):
        try:
            text = _text(source, f"{stem}{suffix}")
            if text is None:
                continue
            if suffix == ".json":
                about = About.model_validate_json(text)
            elif suffix == ".ctm":
                said = timed_reference(text)
            elif suffix != ".txt" and not _TIMING.search(text):
                problems.append(f"{suffix}: has no caption: no line with -->")
            else:
                said = said or spoken_text(text)
        except ValidationError as error:
            problems.append(f"{suffix}: {what_is_wrong(error)}")
        except (ValueError, VideoError) as error:
            problems.append(f"{suffix}: {error}")
    timed = said if isinstance(said, TimedReference) else None
    return Sidecar(
        language=about.language,
        hints=about.hints,
        metadata=json.dumps(about.metadata) if about.metadata else None,
        reference=said if isinstance(said, str) else said and " ".join(said.words),
        reference_starts_s=timed and timed.starts_s,
        reference_ends_s=timed and timed.ends_s,
        problem="; ".join(problems) or None,
    )


def _text(source: "Source", key: str) -> str | None:
    found = source.backend.find(key)
    if found is None:
        return None
    if found.size_bytes > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MB")
    with source.open(found) as data:
        return data.read_at(0, data.size).decode("utf-8-sig")


class TimedReference(NamedTuple):
    """What is truly said, word by word, with when each starts and ends on the video's timeline."""

    words: tuple[str, ...]
    starts_s: tuple[Seconds, ...]
    ends_s: tuple[Seconds, ...]


def timed_reference(text: str) -> TimedReference | None:
    """The words of NIST's CTM: recording, channel, start, length and word on each line; None for no words.

    Raises ValueError for a line that is none.

    >>> timed_reference("talk 1 0.50 0.25 good\\ntalk 1 0.75 0.50 morning 0.98\\n").ends_s
    (0.75, 1.25)
    """
    words = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith(";;"):  # a comment
            continue
        try:
            _, _, start, length, word = line.split()[:5]
            begins, lasts = _seconds(start), _seconds(length)
            words.append((begins, round(begins + lasts, 3), word))
        except ValueError as error:
            raise ValueError(f"line {number} is not: recording, channel, start, length, word") from error
    if not words:
        return None
    starts, ends, said = zip(*sorted(words), strict=True)
    return TimedReference(said, starts, ends)


def _seconds(text: str) -> Seconds:
    if not 0 <= (seconds := float(text)) < 1e9:  # nor is it "nan"
        raise ValueError(text)
    return seconds


def spoken_text(text: str) -> str | None:
    """The words of plain text, SubRip or WebVTT, on one line; None when there are none.

    >>> spoken_text("1\\n00:00:01,000 --> 00:00:02,000\\n<i>Good</i>\\nmorning\\n")
    'Good morning'
    """
    blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
    if _TIMING.search(text):
        # Numbers, headers, notes and styles stand above a timing line, or in blocks without one.
        blocks = [_TIMING.split(block, maxsplit=1)[1] for block in blocks if _TIMING.search(block)]
    return " ".join(_TAG.sub("", "\n".join(blocks)).split()) or None
