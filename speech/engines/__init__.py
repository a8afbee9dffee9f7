"""Engines: one small protocol, one file for each.

An engine is added by its file and its row in :data:`ENGINES`. Its heavy packages are imported in
that file only, when a model of it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from speech.types import Window, Word


class Engine(Protocol):
    """A loaded model."""

    def transcribe(self, windows: Sequence[Window]) -> list[list[Word]]:
        """The words of each window, in order, with times from the window's own start.

        A window's words never depend on which windows stand beside it.
        """


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where ``load(model)`` gives an :class:`Engine`, and the package that decides what it hears."""

    module: str
    package: str


ENGINES = {
    "pocketsphinx": EngineEntry(module="speech.engines.pocketsphinx", package="pocketsphinx"),
}
