"""Sidecars: files beside a video, of the same name, that say something about it.

``talk.txt``, ``talk.srt`` or ``talk.vtt`` hold what is truly said in ``talk.mp4``; ``talk.json`` may say
its ``language``, ``hints`` (names and words to expect) and ``metadata`` of any kind.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from resources.observations import Video
from speech.errors import VideoError, what_is_wrong

if TYPE_CHECKING:
    from resources.source import Source

REFERENCES = (".srt", ".vtt", ".txt")
MAX_BYTES = 1 << 20
_TIMING = re.compile(r"^.*-->.*$", re.MULTILINE)
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


class About(BaseModel, frozen=True):
    """What a JSON sidecar may say."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None
    hints: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class Sidecar(BaseModel, frozen=True):
    """All that stands beside a video; ``problem`` says what of it could not be read.

    ``metadata`` is JSON: how deep it is is nobody else's concern.
    """

    language: str | None = None
    hints: tuple[str, ...] = ()
    metadata: str | None = None
    reference: str | None = None
    problem: str | None = None


def read_sidecars(source: "Source", video: Video) -> Sidecar:
    """What stands beside a video now. A bad sidecar is a problem of its own, never of the video.

    Raises :class:`~speech.errors.SourceUnavailable`.
    """
    folder, slash, name = video.key.rpartition("/")
    stem = f"{folder}{slash}{name.rpartition('.')[0] or name}"
    about, reference, problems = About(), None, []
    for suffix in (".json", *REFERENCES):
        try:
            text = _text(source, f"{stem}{suffix}")
            if text is None:
                continue
            if suffix == ".json":
                about = About.model_validate_json(text)
            else:
                reference = reference or spoken_text(text)
        except ValidationError as error:
            problems.append(f"{suffix}: {what_is_wrong(error)}")
        except (ValueError, VideoError) as error:
            problems.append(f"{suffix}: {error}")
    return Sidecar(
        language=about.language,
        hints=about.hints,
        metadata=json.dumps(about.metadata) if about.metadata else None,
        reference=reference,
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
