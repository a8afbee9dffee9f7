"""Whisper's tokens and the words they write, for every engine that runs a Whisper."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.engines import Asked, Heard
from speech.errors import ModelError
from speech.types import Seconds, Window, Word, normalize_word

FRAME_S: Seconds = 0.02
"""One frame of the encoder."""
FRAME_SAMPLES = 320

Spans: TypeAlias = npt.NDArray[Any]
"""Frames of each token, ``(n, 2)``: the first, and the one after the last."""

_OPENING = set("\"'\u201c\u00bf([{-")  # punctuation that belongs to the word behind it
_NO_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}  # languages whose words no space separates
_LONGEST_NUMBER = 80  # letters
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


_ENGLISH_ONLY = 51864
"""Tokens of every Whisper for English alone; the names of languages are among them, all the same."""


class Piece(NamedTuple):
    """A word and its tokens, from ``first`` to ``last``; punctuation is in the text, not in the tokens."""

    text: str
    first: int
    last: int


class Written(NamedTuple):
    """What was written for one window: tokens of text, their probabilities, and the language.

    ``log_probability`` is the mean over the tokens and the end behind them: an empty text has one, too.
    """

    tokens: list[int]
    probabilities: list[float]
    language: str
    log_probability: float


class Spoken(NamedTuple):
    """Tokens as a text is pronounced, and which of them are each word's, ``(first, last)``."""

    tokens: list[int]
    words: list[tuple[int, int]]


class Lettering:
    """A tokenizer of the ``tokenizers`` library with the special tokens of one Whisper."""

    longest = 448
    """Tokens that any Whisper's decoder has room for."""

    def __init__(self, name: str, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self._name, self._tokenizer = name, tokenizer
        self._settings = settings
        self.end: int = settings["eos_token_id"]
        self.start: int = settings["decoder_start_token_id"]
        self.languages: dict[str, int] = {
            token.strip("<|>"): number for token, number in (settings.get("lang_to_id") or {}).items()
        }
        self.speaks_many = bool(settings.get("is_multilingual", bool(self.languages)))

    def check(self, language: str) -> None:
        """Raises ModelError for a language that this Whisper does not know."""
        if not self.speaks_many and language != "en":
            raise ModelError(f"model {self._name} knows English only, not language {language!r}")
        if self.speaks_many and language != "auto" and language not in self.languages:
            raise ModelError(
                f"model {self._name} knows no language {language!r}; it is a code such as en or de, or auto"
            )

    def known(self, language: str) -> str:
        """A language as this Whisper calls it; one that it does not know is as good as not said."""
        code = language.lower().partition("-")[0].partition("_")[0]
        if not self.speaks_many:
            return "en"
        return code if code in self.languages else "auto"

    def prompt(self, language: str, asked: Asked, room: int) -> list[int]:
        """The tokens before the text; what to expect is cut from its front to ``room`` tokens."""
        tokens: list[int] = []
        if asked.prompt and (before := self._settings.get("prev_sot_token_id")):
            tokens = [before, *self._encode(f" {asked.prompt}")[-room:]]
        tokens.append(self.start)
        if self.speaks_many:
            # A checkpoint for English alone takes neither language nor task.
            tokens += [self.languages[language], self._settings["task_to_id"]["transcribe"]]
        return [*tokens, self._settings["no_timestamps_token_id"]]

    @classmethod
    def of_vocabulary(cls, name: str, tokenizer: Any) -> "Lettering":
        """What ``generation_config.json`` would say, from the names of the tokens alone."""
        numbers = {token: number for token, number in tokenizer.get_vocab().items() if token.startswith("<|")}
        transcribe = numbers.get("<|transcribe|>")
        # Languages stand between the start and the tasks.
        start = numbers["<|startoftranscript|>"]
        languages = {
            token: number
            for token, number in sorted(numbers.items(), key=lambda item: item[1])
            if transcribe and start < number < min(transcribe, numbers["<|translate|>"])
        }
        return cls(
            name,
            tokenizer,
            {
                "eos_token_id": numbers["<|endoftext|>"],
                "decoder_start_token_id": start,
                "no_timestamps_token_id": numbers["<|notimestamps|>"],
                "prev_sot_token_id": numbers.get("<|startofprev|>"),
                "task_to_id": {"transcribe": transcribe},
                "lang_to_id": languages,
                "is_multilingual": tokenizer.get_vocab_size() != _ENGLISH_ONLY,
            },
        )

    @property
    def forbidden(self) -> list[int]:
        """Tokens that no text has, the end and what stands behind it left out."""
        return [token for token in self._settings.get("suppress_tokens") or () if token >= 0]

    @property
    def forbidden_first(self) -> list[int]:
        """Tokens that no text begins with."""
        return list(self._settings.get("begin_suppress_tokens") or ())

    def spoken(self, tokens: list[int], pieces: Sequence[Piece], language: str) -> Spoken | None:
        """The same text with its numbers spelled out, as they are pronounced; None when it has none.

        A model looks at "1984" with a token or two, for the sound of four words.
        """
        spelled = [_spelled(piece.text, language)[:_LONGEST_NUMBER] for piece in pieces]
        if not any(spelled):
            return None
        said: list[int] = []
        words = []
        for piece, instead in zip(pieces, spelled, strict=True):
            first = len(said)
            said += self._encode(f" {instead}") if instead else tokens[piece.first : piece.last + 1]
            words.append((first, len(said) - 1))
        # Where there is no room for all of it, as it is written is near enough.
        return Spoken(said, words) if len(said) < self.longest // 2 else None

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def pieces(self, tokens: list[int], language: str) -> list[Piece]:
        """The words of a text."""
        words: list[Piece] = []
        opening = ""
        for text, first, last in self._characters(tokens):
            stripped = text.strip()
            apart = text[:1].isspace() or language in _NO_SPACES or not words
            if normalize_word(text) and (apart or opening):
                words.append(Piece(opening + stripped, first, last))
                opening = ""
            elif normalize_word(text):
                words[-1] = words[-1]._replace(text=words[-1].text + stripped, last=last)
            elif words and not (apart and set(stripped) <= _OPENING):
                words[-1] = words[-1]._replace(text=words[-1].text + stripped)
            else:
                opening += stripped
        if opening and words:
            words[-1] = words[-1]._replace(text=words[-1].text + opening)
        return words

    def _characters(self, tokens: list[int]) -> Iterator[tuple[str, int, int]]:
        """Runs of tokens that are whole characters, a space and what follows it; often one token each."""
        first = 0
        for last in range(len(tokens)):
            text = self._tokenizer.decode(tokens[first : last + 1])
            if last == len(tokens) - 1 or not ("\ufffd" in text or text.isspace()):
                yield text, first, last
                first = last + 1


def _spelled(word: str, language: str) -> str:
    """A word with digits as it is pronounced; empty for one without, or where nobody knows how.

    >>> _spelled("1984,", "en"), _spelled("blue", "en")
    ('nineteen eighty-four,', '')
    """
    if not _NUMBER.search(word):
        return ""
    from num2words import num2words

    def said(found: re.Match[str]) -> str:
        plain = found[0].replace(",", "")
        is_year = len(plain) == 4 and "1100" <= plain < "2100"
        return str(num2words(plain, lang=language, to="year" if is_year else "cardinal"))

    try:
        return _NUMBER.sub(said, word)
    except (NotImplementedError, ArithmeticError, ValueError, AttributeError, LookupError, TypeError):
        return ""  # in some languages num2words knows no numbers, or no long ones


class Chance:
    """Noise that makes the likeliest token one drawn at a temperature; a window's own, whatever its batch.

    Source: the Gumbel-max trick (Gumbel 1954).
    """

    def __init__(self, window: Window, temperature: float) -> None:
        seed = hashlib.blake2b(window.samples.tobytes() + str(temperature).encode(), digest_size=8)
        self._rng, self._temperature = np.random.default_rng(int.from_bytes(seed.digest())), temperature

    def draw(self, count: int) -> npt.NDArray[np.float32]:
        """``(count,)``, for one token."""
        return (self._temperature * self._rng.gumbel(size=count)).astype(np.float32)


class TimedEngine(ABC):
    """What every Whisper does: write, spell, look up the times, put the words together."""

    letters: Lettering

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        """See :class:`speech.engines.Engine`; a word's probability is the mean of its tokens'."""
        seen, written = self.write(windows, replace(asked, language=self.letters.known(asked.language)))
        pieces = [self.letters.pieces(text.tokens, text.language) for text in written]
        as_spoken = [
            self.letters.spoken(text.tokens, words, text.language)
            for text, words in zip(written, pieces, strict=True)
        ]
        spans = self.look(seen, written, as_spoken)
        return [
            Heard(
                tuple(_timed(window, text, words, spoken, where)),
                text.language,
                text.log_probability,
            )
            for window, text, words, spoken, where in zip(
                windows, written, pieces, as_spoken, spans, strict=True
            )
        ]

    @abstractmethod
    def write(self, windows: Sequence[Window], asked: Asked) -> tuple[Any, list[Written]]:
        """What is said in each window, and whatever :meth:`look` needs to know of them."""

    @abstractmethod
    def look(
        self, seen: Any, written: Sequence[Written], as_spoken: Sequence[Spoken | None]
    ) -> list[Spans | None]:
        """Frames of each token, as it is spoken where that differs; None for more tokens than frames."""


def _timed(
    window: Window, text: Written, words: Sequence[Piece], spoken: Spoken | None, spans: Spans | None
) -> Iterator[Word]:
    source = "cross_attention"
    if spans is None:  # a loop: its words stand evenly
        source = "interpolated"
        edges = np.linspace(0, window.duration_s / FRAME_S, len(words) + 1)
        spans, ranges = np.stack([edges[:-1], edges[1:]], axis=1), [(n, n) for n in range(len(words))]
    else:
        ranges = spoken.words if spoken else [(piece.first, piece.last) for piece in words]
    for piece, (first, last) in zip(words, ranges, strict=True):
        yield Word(
            text=piece.text,
            start_s=float(spans[first, 0]) * FRAME_S,
            end_s=float(spans[last, 1]) * FRAME_S,
            probability=float(np.mean(text.probabilities[piece.first : piece.last + 1])),
            timing_source=source,
        )
