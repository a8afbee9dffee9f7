"""Backends: other places that work is done at than this machine. One small protocol, one file for each.

A backend of transcription is added by its file, with ``load(job)`` and ``describe(job)``, and its row in
:data:`BACKENDS`. What it needs is imported when it is chosen.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from speech.engines import Hardware
from speech.errors import ModelError
from speech.models import ModelVersion
from speech.pipeline import Heard
from speech.reading import Memory, Recording

if TYPE_CHECKING:
    from resources.store import Store

HERE = "here"
"""No backend: this machine."""

BACKENDS = {"ray": "resources.backends.ray", "sagemaker": "resources.backends.sagemaker"}


@dataclass(frozen=True, slots=True)
class Job:
    """One model version's work on a batch: what with, where its videos' audio is, how many work on it.

    ``at`` says where the backend is: a cluster's address, what the names of its endpoints begin with.
    """

    model: ModelVersion
    store: "Store"
    batch: str
    hardware: Hardware
    workers: int
    at: str


class Transcribing(Protocol):
    """What :class:`speech.pipeline.Transcriber` is, wherever the work is done."""

    def run(self, recordings: Iterable[Recording], memory: Memory | None = None) -> Iterator[Heard]:
        """Transcribe recordings, each as it is done; one that fails does not end the rest.

        Raises :class:`~speech.errors.ModelError` for all of them.
        """


def load(backend: str, job: Job) -> AbstractContextManager[Transcribing]:
    """Get a backend ready. Raises ModelError with what is wrong, and what to do; on entering, too."""
    ready: AbstractContextManager[Transcribing] = _module(backend).load(job)
    return ready


def describe(backend: str, job: Job) -> str:
    """What a backend is like, in a line. Raises ModelError for one that cannot be reached."""
    found: str = _module(backend).describe(job)
    return found


def _module(backend: str) -> ModuleType:
    if backend not in BACKENDS:
        raise ModelError(f"unknown backend {backend!r}; there are: {HERE}, {', '.join(BACKENDS)}")
    return import_module(BACKENDS[backend])
