"""Engines: one small protocol, one file for each.

An engine is added by its file and its row in :data:`ENGINES`. Its heavy packages are imported in
that file only, when a model of it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from speech.types import Window, Word

if TYPE_CHECKING:
    from speech.models import ModelVersion


class Engine(Protocol):
    """A loaded model."""

    def transcribe(self, windows: Sequence[Window]) -> list[list[Word]]:
        """The words of each window, in order, with times from the window's own start.

        A window's words never depend on which windows stand beside it.
        """


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine lives, and the package whose version decides what it hears."""

    module: str
    package: str


ENGINES = {
    "pocketsphinx": EngineEntry(module="speech.engines.pocketsphinx", package="pocketsphinx"),
}


def load_engine(model: "ModelVersion") -> Engine:
    """Load the weights of a model version.

    Raises :class:`~speech.errors.ModelError` when its options or weights are wrong.
    """
    return cast(Engine, import_module(ENGINES[model.engine].module).load(model))
