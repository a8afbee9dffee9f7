"""From samples to a transcript: voice activity, windows, engine, the video's timeline, segments."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from speech.engines import Engine, Hardware, load
from speech.errors import EngineError, MediaError, ModelError, Reason
from speech.media import LocalFile, MediaDecoder, duration_of, mixed, read_flac
from speech.models import ModelVersion
from speech.types import Samples, Seconds, Segment, Transcript, Word, ends_sentence
from speech.voice import windows

SEGMENT_PAUSE_S: Seconds = 0.45
SEGMENT_MAX_S: Seconds = 15.0
SAME_SOUND = 0.01  # of their power, that sides of one sound may differ in when they are coded with loss


@dataclass(frozen=True, slots=True)
class Recording:
    """The audio of one video: samples ``(n,)``, or ``(2, n)`` of stereo."""

    id: str
    samples: Samples


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of one recording: a transcript, or the error that only this recording met.

    ``seconds`` is the wall time it took.
    """

    id: str
    outcome: Transcript | EngineError
    seconds: Seconds


class Transcriber:
    """A model version, loaded once (in each worker), for any number of recordings.

    Use as a context manager. Raises :class:`~speech.errors.ModelError` when it cannot be loaded: with
    one worker at once, with more of them, which load it where they run, at the first recording.
    """

    def __init__(self, model: ModelVersion, workers: int = 1, hardware: Hardware | None = None) -> None:
        self.model = model
        self._hardware = hardware or Hardware()
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        if workers == 1:
            _ = self.engine  # loaded now, so that what is wrong shows now

    @cached_property
    def engine(self) -> Engine:
        """The loaded model, in this process."""
        return load(self.model, self._hardware)

    def run(self, recordings: Iterable[Recording]) -> Iterator[Heard]:
        """Transcribe recordings, in their order; one that fails does not end the rest.

        Recordings are taken from the iterable only a few ahead of the words that come out.
        """
        if self._workers == 1:
            yield from map(self.hear, recordings)
            return
        if self._pool is None:
            # Together the workers take the cores once.
            threads = self._hardware.threads or max(1, (os.cpu_count() or 1) // self._workers)
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),  # a fork would copy held locks
                initializer=_start_worker,
                initargs=(self.model, replace(self._hardware, threads=threads)),
            )
        under_way: deque[Future[Heard]] = deque()
        try:
            for recording in recordings:
                under_way.append(self._pool.submit(_hear_in_worker, recording))
                if len(under_way) > self._workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise ModelError(
                f"model {self.model.name}: a worker process died, most likely out of memory; "
                "run it again with fewer workers"
            ) from error

    def hear(self, recording: Recording) -> Heard:
        """Transcribe one recording in this process."""
        began = time.perf_counter()
        outcome: Transcript | EngineError
        try:
            outcome = self._transcribe(recording.samples)
        except EngineError as error:
            outcome = error
        return Heard(recording.id, outcome, time.perf_counter() - began)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _transcribe(self, samples: Samples) -> Transcript:
        duration_s = duration_of(samples)
        if self.model.channels == "mixed" or not _differ(samples):
            segments = self._segments(mixed(samples), duration_s, None)
        else:
            sides = (self._segments(side, duration_s, n) for n, side in enumerate(samples))
            segments = sorted(chain.from_iterable(sides), key=lambda segment: segment.start_s)
        return Transcript(self.model.language, duration_s, tuple(segments))

    def _segments(self, samples: Samples, duration_s: Seconds, channel: int | None) -> list[Segment]:
        cut = list(windows(samples, self.model.max_window_s))
        segments: list[Segment] = []
        clock = 0.0
        for window, heard in zip(cut, self.engine.transcribe(cut), strict=True):
            on_timeline: list[Word] = []
            for word in heard:
                # Milliseconds, so that the same work gives the same bytes on every machine.
                start = min(max(round(window.start_s + word.start_s, 3), clock), duration_s)
                end = min(max(round(window.start_s + word.end_s, 3), start), duration_s)
                clock = start
                on_timeline.append(
                    Word(word.text, start, end, round(word.probability, 4), word.timing_source, channel)
                )
            segments.extend(into_segments(on_timeline))
        return segments


_of_worker: tuple[ModelVersion, Hardware]
_in_worker: Transcriber | None = None


def _start_worker(model: ModelVersion, hardware: Hardware) -> None:
    global _of_worker
    # Ctrl-C is the parent's to handle; and a parent that was killed leaves nobody to work for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _of_worker = model, hardware


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _hear_in_worker(recording: Recording) -> Heard:
    global _in_worker
    if _in_worker is None:  # here and not at the start, where an error would only break the pool
        model, hardware = _of_worker
        _in_worker = Transcriber(model, hardware=hardware)
    return _in_worker.hear(recording)


def _differ(samples: Samples) -> bool:
    """Whether these are two sides with something to say of their own, and not one sound twice.

    One sound that is louder on one side is one sound: the correlation tells. Upside down on one side it
    would cancel itself out when mixed, and so counts as two.
    """
    if samples.ndim == 1:
        return False
    cross = left_power = right_power = 0.0
    for first in range(0, samples.shape[1], 1 << 20):  # a long recording as floats is long twice
        left, right = samples[:, first : first + (1 << 20)].astype(np.float64)
        cross += np.vdot(left, right)
        left_power += np.vdot(left, left)
        right_power += np.vdot(right, right)
    both = left_power * right_power
    return bool(cross <= 0 or both - cross**2 > SAME_SOUND * both)


def into_segments(words: Iterable[Word]) -> Iterator[Segment]:
    """Group words into sentence-like stretches: up to a full stop, a pause, or 15 s."""
    current: list[Word] = []
    for word in words:
        if current and (
            ends_sentence(current[-1].text)
            or word.start_s - current[-1].end_s > SEGMENT_PAUSE_S
            or word.end_s - current[0].start_s > SEGMENT_MAX_S
        ):
            yield Segment(tuple(current))
            current = []
        current.append(word)
    if current:
        yield Segment(tuple(current))


def transcribe_file(transcriber: Transcriber, path: str | Path) -> Transcript:
    """Decode and transcribe one local file.

    Raises :class:`~speech.errors.MediaError` or :class:`~speech.errors.EngineError`; a file without
    audio is a MediaError with reason ``no_audio`` here, because somebody asked for its words.
    """
    try:
        source = LocalFile(path)
    except OSError as error:
        raise MediaError(Reason.MISSING, f"{path}: cannot be read: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as folder, MediaDecoder() as decoder, source:
        flac = Path(folder) / "audio.flac"
        decoder.extract(source, str(path), flac)
        samples = read_flac(flac)
    heard = transcriber.hear(Recording(str(path), samples))
    if isinstance(heard.outcome, EngineError):
        raise heard.outcome
    return heard.outcome
