"""An engine that takes its time and hears nothing: what is left of a run is what the platform adds."""

import time
from collections.abc import Sequence

from pydantic import BaseModel, Field

from speech.engines import Asked, EngineEntry, Hardware, Heard
from speech.models import ModelVersion, options_of
from speech.types import Window, Word

ENTRY = EngineEntry(
    module="benchmarks.paced", package="numpy", version=1, weights=(), asked=False, draws=False
)
WORD_S = 0.4
"""150 words a minute, as people speak."""


class Options(BaseModel):
    """``times_real_time``: seconds of sound that take a second; 0 takes none at all."""

    times_real_time: float = Field(default=100.0, ge=0)


class Paced:
    """See :class:`speech.engines.Engine`."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        """A word every :data:`WORD_S`."""
        if self._options.times_real_time:
            time.sleep(sum(window.duration_s for window in windows) / self._options.times_real_time)
        return [self._heard(window, asked) for window in windows]

    def _heard(self, window: Window, asked: Asked) -> Heard:
        words = (
            Word(f"w{n % 97}", n * WORD_S, (n + 1) * WORD_S, 0.9)
            for n in range(int(window.duration_s / WORD_S))
        )
        return Heard(tuple(words), asked.language)


def load(model: ModelVersion, _: Hardware) -> Paced:
    """See :data:`speech.engines.ENGINES`."""
    return Paced(options_of(model, Options))
