"""Engines: one small protocol, one file for each.

An engine is added by its file and its row in :data:`ENGINES`. Its heavy packages are imported in
that file only, when a model of it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from speech.errors import ModelError
from speech.types import Window, Word

if TYPE_CHECKING:
    from speech.models import ModelVersion


@dataclass(frozen=True, slots=True)
class Hardware:
    """What an engine runs on; what changes words stands in the model version.

    (With a whisper's ``precision = "auto"`` the device decides the precision, and that may change a word.)
    ``device`` is ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``threads`` 0 leaves their number to
    the engine; ``batch_size`` windows are heard at once by an engine that can.
    """

    device: str = "auto"
    threads: int = 0
    batch_size: int = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """How windows are to be heard, all of a batch in the same way.

    ``language`` is a code or ``auto``: each window's own. ``prompt`` holds names and words to expect.
    Above ``temperature`` 0 words are drawn by chance, the same ones each time for the same window.
    """

    language: str = "en"
    prompt: str = ""
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What an engine heard in one window: words in order, with times from the window's own start.

    ``log_probability`` is the mean over what the engine writes, tokens or words; 0 where it wrote nothing.
    """

    words: tuple[Word, ...]
    language: str
    log_probability: float = 0.0


class Engine(Protocol):
    """A loaded model."""

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        """What is heard in each window, in order.

        A window's words never depend on which windows stand beside it.
        """


# The other formats are pickles, which run code when they are opened. Whole, or in pieces; not the fp32
# twins that large-v3 has.
SAFETENSORS = ("model.safetensors", "model-*.safetensors")


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where ``load(model, hardware)`` gives an :class:`Engine`, the package that decides what it hears,
    and what such an engine can do.

    One with ``weights``, patterns of files, reads them from where the model version says; others carry
    their own. ``batches``:
    many windows at once are faster than one after the other. ``asked``: it may be told a language and what
    to expect. ``draws``: it can be asked for other words than the likeliest. Raise ``version`` when a
    change in our own code, decoding or timing, can change its words.
    """

    module: str
    package: str
    version: int
    weights: tuple[str, ...] = SAFETENSORS
    batches: bool = True
    asked: bool = True
    draws: bool = True


ENGINES = {
    "pocketsphinx": EngineEntry(
        module="speech.engines.pocketsphinx",
        package="pocketsphinx",
        version=1,
        weights=(),
        batches=False,
        asked=False,
        draws=False,
    ),
    "whisper": EngineEntry(module="speech.engines.whisper", package="transformers", version=2),
    "faster_whisper": EngineEntry(
        module="speech.engines.faster_whisper",
        package="ctranslate2",
        version=1,
        weights=("model.bin",),
        draws=False,
    ),
    "ctc": EngineEntry(
        module="speech.engines.ctc", package="transformers", version=1, asked=False, draws=False
    ),
}


def load(model: "ModelVersion", hardware: Hardware) -> Engine:
    """Load a model version. Raises :class:`~speech.errors.ModelError` with what is wrong, and what to do."""
    try:
        engine: Engine = import_module(ENGINES[model.engine].module).load(model, hardware)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model {model.name}: engine {model.engine} needs the package {error.name}, which is not "
            "installed: make install brings it"
        ) from error
    return engine
