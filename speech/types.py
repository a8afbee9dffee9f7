"""The nouns of the library: small frozen dataclasses, with units in the type names."""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Seconds: TypeAlias = float
"""A time or a length in seconds. On a video's own timeline unless said otherwise."""

Samples: TypeAlias = npt.NDArray[np.int16]
"""PCM at :data:`SAMPLE_RATE`, shape ``(n,)``; where it is said, ``(2, n)`` for the sides of stereo."""

SAMPLE_RATE = 16_000
"""Samples per second of all audio inside the platform."""

_NOT_WORD = re.compile(r"[^\w']+")


def normalize_word(text: str) -> str:
    r"""The form in which words are searched and compared: lower case, no punctuation.

    >>> normalize_word("Don\u2019t,")
    "don't"
    """
    plain = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    return _NOT_WORD.sub("", plain).strip("'_")


_SENTENCE_ENDS = (".", "?", "!", "\u2026", "\u3002")
_CLOSING = "\"')]}\u201d\u2019\u00bb"


def ends_sentence(text: str) -> bool:
    """Whether a word is the last of its sentence.

    >>> [ends_sentence(word) for word in ("stop.", 'stop."', "stop,")]
    [True, True, False]
    """
    return text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


@dataclass(frozen=True, slots=True)
class Signals:
    """What says whether a window's text can be believed; the same for all of its words.

    ``log_probability`` is the mean over what the engine wrote, ``compression_ratio`` of the text in bytes,
    ``loop_words`` how many words only repeat what stands before them, ``temperature`` 0 unless it was heard
    again.
    """

    language: str
    log_probability: float = 0.0
    compression_ratio: float = 0.0
    loop_words: int = 0
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word.

    ``start_s`` and ``end_s`` are on the video's timeline (inside an engine: on the window's),
    ``probability`` is in [0, 1], ``timing_source`` says what the times come from; ``channel`` is 0 for
    left and 1 for right where the sides of stereo were heard apart. ``voice`` is how sure voice activity is
    that somebody speaks then, in [0, 1], and ``signals`` are those of its window; None where nobody asked.
    """

    text: str
    start_s: Seconds
    end_s: Seconds
    probability: float
    timing_source: str
    channel: int | None = None
    voice: float | None = None
    signals: Signals | None = None

    @property
    def side(self) -> str:
        """Whose word it is, as a reader is told; empty where sides were not heard apart."""
        return "" if self.channel is None else ("Left", "Right")[self.channel]


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence-like stretch of speech: at least one word, in order."""

    words: tuple[Word, ...]

    @property
    def start_s(self) -> Seconds:
        """Where its first word starts."""
        return self.words[0].start_s

    @property
    def end_s(self) -> Seconds:
        """Where its last word ends."""
        return self.words[-1].end_s

    @property
    def text(self) -> str:
        """Its words in one line."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one recording that an engine hears at once.

    ``samples`` is cut out of the recording at ``start_s``; its borders lie where nobody speaks, or, in
    speech without a pause, where it is quietest. ``voice`` says for each 32 ms how sure it is that somebody
    speaks, ``(n,)``; empty where nobody has asked.
    """

    samples: Samples
    start_s: Seconds
    voice: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def duration_s(self) -> Seconds:
        """Its length."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class HeardWindow:
    """What was heard in a window: its words, with times from its own start, and what to think of them."""

    start_s: Seconds
    duration_s: Seconds
    words: tuple[Word, ...]
    signals: Signals
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that one model version heard in one recording."""

    language: str
    duration_s: Seconds
    segments: tuple[Segment, ...]

    @property
    def words(self) -> list[Word]:
        """All words, in order."""
        return [word for segment in self.segments for word in segment.words]
