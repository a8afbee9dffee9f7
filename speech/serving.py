"""What is said to a model version that listens behind HTTP, and what it answers: both sides use this."""

from dataclasses import dataclass, field
from typing import Self

from pydantic import TypeAdapter

from speech.listening import Usage
from speech.types import Seconds, Transcript


@dataclass(frozen=True, slots=True)
class Told:
    """How a recording is to be heard, beside its sound; ``fingerprint``: of which model."""

    fingerprint: str
    language: str = ""
    prompt: str = ""

    def encode(self) -> str:
        """As a header: ASCII alone, on one line."""
        return _TOLD.dump_json(self, ensure_ascii=True).decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """Raises ValueError for what is none."""
        return _TOLD.validate_json(text)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Listened:
    """What was heard by the model with this ``fingerprint``; no transcript: another one was meant.

    ``seconds`` of wall time, ``usage`` up to then.
    """

    fingerprint: str
    transcript: Transcript | None = None
    seconds: Seconds = 0.0
    usage: Usage | None = field(default=None)

    def encode(self) -> bytes:
        """As JSON; times and probabilities to the last digit."""
        return _LISTENED.dump_json(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError for what is none."""
        return _LISTENED.validate_json(data)  # type: ignore[return-value]


_TOLD, _LISTENED = TypeAdapter(Told), TypeAdapter(Listened)
