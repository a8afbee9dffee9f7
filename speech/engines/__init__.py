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
    batch_size: int = 8


class Engine(Protocol):
    """A loaded model."""

    def transcribe(self, windows: Sequence[Window]) -> list[list[Word]]:
        """The words of each window, in order, with times from the window's own start.

        A window's words never depend on which windows stand beside it.
        """


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where ``load(model, hardware)`` gives an :class:`Engine`, and the package that decides what it hears.

    One with ``weights`` reads them from where the model version says; others carry their own. Raise
    ``version`` when a change in our own code, decoding or timing, can change its words.
    """

    module: str
    package: str
    weights: bool
    version: int


ENGINES = {
    "pocketsphinx": EngineEntry(
        module="speech.engines.pocketsphinx", package="pocketsphinx", weights=False, version=1
    ),
    "whisper": EngineEntry(module="speech.engines.whisper", package="transformers", weights=True, version=1),
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
