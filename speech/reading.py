"""Recordings on their way in: threads read them, listen for voice, and cut them into windows."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np

from speech.errors import EngineError, MediaError
from speech.media import flac_pieces, mixed
from speech.models import ModelVersion
from speech.types import SAMPLE_RATE, HeardWindow, Samples, Seconds, Window
from speech.voice import windows
from speech.workers import cores

READERS = max(2, cores() // 2)
"""Each reads and cuts about 300 times as fast as is spoken: a fast GPU wants several."""
SAME_SOUND = 0.01  # of their power, that sides of one sound may differ in when they are coded with loss
IDLE_S: Seconds = 1.0

Audio: TypeAlias = Samples | Path | Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True, slots=True)
class Recording:
    """The audio of one video: samples ``(n,)``, ``(2, n)`` of stereo, a FLAC, or how to get at one.

    ``language`` and ``prompt`` are what is known beforehand of what is said.
    """

    id: str
    audio: Audio
    language: str = ""
    prompt: str = ""

    def pieces(self) -> Iterator[Samples]:
        """Its samples, piece by piece."""
        if isinstance(self.audio, np.ndarray):
            for first in range(0, self.audio.shape[-1], 1 << 20):
                yield self.audio[..., first : first + (1 << 20)]
            return
        with nullcontext(self.audio) if isinstance(self.audio, Path) else self.audio() as path:
            yield from flac_pieces(path)


class Memory(Protocol):
    """Where windows are kept that were heard, so that whoever is killed need not hear them again."""

    def recall(self, recording: Recording) -> Iterable[HeardWindow]:
        """All that were kept of a recording, heard with the same knowledge of it."""

    def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
        """Keep some more."""


class Forgetful:
    """No memory."""

    def recall(self, _: Recording) -> Iterable[HeardWindow]:
        """See :class:`Memory`."""
        return ()

    def keep(self, _: Recording, __: Sequence[HeardWindow]) -> None:
        """See :class:`Memory`."""


class Cut(NamedTuple):
    """A window on its way."""

    recording: Recording
    channel: int | None
    window: Window


class Read(NamedTuple):
    """All windows of a recording were cut, or as many as could be read before an ``error``."""

    recording: Recording
    windows: int
    duration_s: Seconds
    error: EngineError | None = None


class HeardAlready(NamedTuple):
    """A window that was heard in a former run."""

    recording: Recording
    heard: HeardWindow


Found: TypeAlias = Cut | HeardAlready | Read


class Reading:
    """Threads that read recordings and cut them, a few windows ahead; a context manager."""

    def __init__(
        self, recordings: Iterable[Recording], model: ModelVersion, memory: Memory, ahead: int
    ) -> None:
        self._recordings, self._model, self._memory = iter(recordings), model, memory
        self._found: Queue[Found | BaseException | None] = Queue(ahead)
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._read_all, daemon=True) for _ in range(READERS)]

    def rounds(self, least: int, most: int) -> Iterator[list[Found]]:
        """What was found, in pieces with at least so many windows to hear, and more if they are there."""
        readers, some = len(self._threads), list[Found]()
        to_hear = 0
        while readers:
            if to_hear >= most or (to_hear >= least and self._found.empty()):
                yield some
                some, to_hear = [], 0
            try:
                found = self._found.get(timeout=IDLE_S)
            except Empty:
                yield some  # so that what the workers answer meanwhile is taken in
                some, to_hear = [], 0
                continue
            if isinstance(found, BaseException):
                raise found
            if found is None:
                readers -= 1
            else:
                some.append(found)
                to_hear += isinstance(found, Cut)
        yield some

    def _read_all(self) -> None:
        try:
            while not self._stopped.is_set():
                with self._lock:
                    recording = next(self._recordings, None)
                if recording is None:
                    break
                for found in self._read(recording):
                    self._put(found)
                    if self._stopped.is_set():
                        return
            self._put(None)
        except BaseException as error:  # noqa: BLE001  # raised again by whoever takes it
            self._put(error)

    def _put(self, found: Found | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._found.put(found, timeout=0.5)
            except Full:
                continue
        return None

    def _read(self, recording: Recording) -> Iterator[Found]:
        known = {(h.channel, h.start_s, h.duration_s): h for h in self._memory.recall(recording)}
        count = length = 0
        try:
            apart = self._model.channels == "apart" and _differ(recording.pieces())
            for channel in (0, 1) if apart else (None,):
                length = 0

                def heard_side(channel: int | None = channel) -> Iterator[Samples]:
                    nonlocal length
                    for piece in recording.pieces():
                        length += piece.shape[-1]
                        yield mixed(piece) if channel is None else piece[channel]

                for window in windows(heard_side(), self._model.max_window_s):
                    heard = known.get((channel, window.start_s, window.duration_s))
                    yield HeardAlready(recording, heard) if heard else Cut(recording, channel, window)
                    count += 1
        except MediaError as error:
            yield Read(recording, count, length / SAMPLE_RATE, EngineError(str(error)))
        else:
            yield Read(recording, count, length / SAMPLE_RATE)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def _differ(pieces: Iterable[Samples]) -> bool:
    """Whether these are two sides with something to say of their own, and not one sound twice.

    One sound that is louder on one side is one sound: the correlation tells. Upside down on one side it
    would cancel itself out when mixed, and so counts as two.
    """
    cross = left_power = right_power = 0.0
    for piece in pieces:
        if piece.ndim == 1:
            return False
        left, right = piece.astype(np.float64)
        cross += np.vdot(left, right)
        left_power += np.vdot(left, left)
        right_power += np.vdot(right, right)
    both = left_power * right_power
    return bool(cross <= 0 or both - cross**2 > SAME_SOUND * both)
