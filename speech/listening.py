"""One engine at work on windows: as many at once as fit, again where what came out cannot be right.

Decoders of the Whisper kind write something whatever they hear. Four signs tell when it is made up, and
all of them are kept with the words: nobody's voice (:mod:`speech.voice`), text that compresses too well,
a loop of words, tokens the model itself did not believe in. A window with such a sign is heard again,
alone among its like, at rising temperatures, and the best of all is kept.
"""

import resource
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from speech.engines import ENGINES, Asked, Engine, Hardware, Heard, load
from speech.errors import AsrError, EngineError, WorkerBroken, first_line
from speech.models import ModelVersion
from speech.types import HeardWindow, Signals, Window, Word, normalize_word
from speech.voice import FRAME_S

COMPRESSION = 2.4
LOG_PROBABILITY = -1.0
"""Signs of a bad window. Source of both: Radford et al. 2022, section 4.5."""
_LONGEST_LOOP = 12  # words that repeat together
_LOOP_WORDS = 6  # repeated words that make it one
_POISON = ("cuda", "cublas", "cudnn", "device-side assert", "hip error", "mps backend")


class Usage(NamedTuple):
    """What hearing took so far: the device, and the most memory, of its process and of a GPU, in MB."""

    device: str
    peak_mb: int
    peak_gpu_mb: int | None


class Listener:
    """A model version loaded on one device. Raises :class:`~speech.errors.ModelError` when it cannot be."""

    def __init__(self, model: ModelVersion, hardware: Hardware, engine: Engine | None = None) -> None:
        self._model, self._entry = model, ENGINES[model.engine]
        self.engine = engine or load(model, hardware)
        self.fits = hardware.batch_size if self._entry.batches else 1
        """Windows at once that have not run out of memory."""

    def hear(self, windows: Sequence[Window], asked: Asked) -> list[HeardWindow]:
        """What is heard in each window.

        Raises EngineError when one alone does not fit into memory or the engine fails, and WorkerBroken
        when this process cannot go on.
        """
        best = [
            _signed(heard, window, 0.0)
            for heard, window in zip(self._all(windows, asked), windows, strict=True)
        ]
        for temperature in self._model.temperatures if self._entry.draws else ():
            flagged = [n for n, heard in enumerate(best) if is_doubtful(heard.signals)]
            if not flagged:
                break
            some = [windows[n] for n in flagged]
            for n, heard in zip(
                flagged, self._all(some, replace(asked, temperature=temperature)), strict=True
            ):
                best[n] = max(best[n], _signed(heard, windows[n], temperature), key=_credibility)
        return best

    @property
    def usage(self) -> Usage:
        """Since this process began."""
        unit = 1 if sys.platform == "darwin" else 1 << 10  # bytes there, kilobytes elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        device = getattr(self.engine, "device_name", "cpu")
        torch = sys.modules.get("torch")
        on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated()
        return Usage(device, peak >> 20, on_gpu >> 20 if on_gpu else None)

    def _all(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        heard: list[Heard] = []
        while len(heard) < len(windows):
            some = windows[len(heard) :][: self.fits]
            try:
                now = self.engine.transcribe(some, asked)
            except AsrError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever a library raises is about these windows
                self._halve(some, error)
                continue
            for one in now:
                if not np.isfinite([one.log_probability, *(w.probability for w in one.words)]).all():
                    raise WorkerBroken("the engine gave probabilities that are no numbers")
            heard += now
        return heard

    def _halve(self, windows: Sequence[Window], error: Exception) -> None:
        where = f"at {windows[0].start_s:.1f} s"
        if is_out_of_memory(error):
            getattr(self.engine, "let_go", lambda: None)()
            _let_go()
            if len(windows) > 1:
                self.fits = len(windows) // 2
                return
            raise EngineError(f"out of memory {where}, with one window alone: {first_line(error)}") from error
        if any(word in str(error).lower() for word in _POISON):
            # Whatever is asked of this device in this process from now on fails, too.
            raise WorkerBroken(f"the device failed {where}: {first_line(error)}") from error
        raise EngineError(f"the engine failed {where}: {first_line(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or of CTranslate2, which have no type in common, means that.

    >>> is_out_of_memory(RuntimeError("CUDA failed with error out of memory"))
    True
    """
    said = str(error).lower()
    signs = ("out of memory", "alloc_failed", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


def _let_go() -> None:
    """Give back what torch keeps for later; where torch was never loaded there is nothing."""
    import gc

    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_doubtful(signals: Signals) -> bool:
    """Whether a window's text has a sign of being made up."""
    return (
        signals.compression_ratio > COMPRESSION
        or signals.log_probability < LOG_PROBABILITY
        or signals.loop_words > 0
    )


def _credibility(heard: HeardWindow) -> tuple[bool, bool, float]:
    signals = heard.signals
    return signals.loop_words == 0, signals.compression_ratio <= COMPRESSION, signals.log_probability


def _signed(heard: Heard, window: Window, temperature: float) -> HeardWindow:
    signals = Signals(
        language=heard.language,
        log_probability=round(heard.log_probability, 4),
        compression_ratio=round(compression_ratio(" ".join(word.text for word in heard.words)), 3),
        loop_words=loop_words([normalize_word(word.text) for word in heard.words]),
        temperature=temperature,
    )
    words = tuple(replace(word, voice=voice_of(word, window)) for word in heard.words)
    return HeardWindow(window.start_s, window.duration_s, words, signals)


def voice_of(word: Word, window: Window) -> float | None:
    """How sure voice activity is, on the average, that somebody speaks during a word; None: nobody asked."""
    if not len(window.voice):
        return None
    first = min(int(word.start_s / FRAME_S), len(window.voice) - 1)
    last = max(first + 1, round(word.end_s / FRAME_S))
    return round(float(window.voice[first:last].mean()), 3)


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes when compressed: high for one that repeats itself. 0 for none.

    >>> compression_ratio("thank you " * 40) > COMPRESSION > compression_ratio("a bird in the hand")
    True
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loop_words(words: Sequence[str]) -> int:
    """Words that only say once more what was said just before, in the longest loop; 0 for what is no loop.

    >>> loop_words("so thank you thank you thank you thank you bye".split()), loop_words("no no no".split())
    (6, 0)
    """
    longest = 0
    for step in range(1, min(_LONGEST_LOOP, len(words) // 2) + 1):
        run = 0
        for before, word in zip(words, words[step:], strict=False):
            run = run + 1 if before == word else 0
            if run >= max(_LOOP_WORDS, 2 * step):
                longest = max(longest, run)
    return longest
