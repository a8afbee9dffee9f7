"""Who transcribes: this process, or processes of their own, one a device or several.

All of them take from one queue, so that unlike devices balance themselves. A worker that dies, stalls or
breaks its device is replaced, and its windows are heard again one by one: what fails twice is to blame,
unless the worker cannot even hear silence any more. Then it is, and the others go on without it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from socket import socketpair
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from speech.engines import Asked, Hardware
from speech.environment import environment_of
from speech.errors import AsrError, EngineError, ModelError, WorkerBroken
from speech.listening import Listener, Usage
from speech.models import ModelVersion
from speech.types import SAMPLE_RATE, HeardWindow, Seconds, Window
from speech.watchdog import watchdog

LOADING_S: Seconds = 3600.0
"""A worker that has not loaded its model by then is given up; weights may come from the hub."""
STALL_BASE_S: Seconds = 120.0
STALL_TIMES = 10.0
"""A worker has stalled when it takes longer than ``STALL_BASE_S`` and ``STALL_TIMES`` what it took at its
slowest for as much sound."""
FIRST_PACE = 2.0
"""Its slowest until it has heard something: seconds of work for a second of sound."""
ENDING_S: Seconds = 10.0

Answer: TypeAlias = HeardWindow | EngineError


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each window of a batch, and how long it took on ``device``."""

    answers: list[Answer]
    seconds: Seconds
    device: str
    usage: Usage | None = None


class Worker(Protocol):
    """One that hears batches, one after the other."""

    device: str
    usage: Usage | None
    """As of what it heard last."""

    def hear(self, windows: Sequence[Window], asked: Asked) -> list[HeardWindow]:
        """Raises EngineError for these windows, ModelError for all of them, WorkerBroken for itself."""

    def stop(self) -> None:
        """Ends what it is doing, for good."""

    def close(self) -> None:
        """Gives back what it holds; nobody waits for it any more."""


class Here:
    """This process."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        self.device = hardware.device
        self.listener = Listener(model, hardware)
        self.usage: Usage | None = None

    def hear(self, windows: Sequence[Window], asked: Asked) -> list[HeardWindow]:
        """See :class:`Worker`."""
        heard = self.listener.hear(windows, asked)
        self.usage = self.listener.usage
        return heard

    def stop(self) -> None:
        """See :class:`Worker`: what this process does goes on to its end."""

    def close(self) -> None:
        """See :class:`Worker`."""


class Place(NamedTuple):
    """Where a worker runs: what its engine is told, and, if it is to see one GPU alone, which."""

    name: str
    device: str
    gpu: str | None = None


class Pace:
    """How long a worker may take over its windows, by what it took at its slowest until now."""

    def __init__(self) -> None:
        self._slowest: float | None = None

    @contextmanager
    def over(self, windows: Sequence[Window]) -> Iterator[Seconds]:
        """Measures what happens meanwhile; the patience to have with it."""
        audio_s, began = sum(window.duration_s for window in windows), time.monotonic()
        pace = FIRST_PACE if self._slowest is None else self._slowest
        yield STALL_BASE_S + STALL_TIMES * pace * audio_s
        self._slowest = max(self._slowest or 0.0, (time.monotonic() - began) / audio_s)


class Apart:
    """A process of its own (:mod:`speech.worker`), watched; it loads its model when first asked."""

    def __init__(self, model: ModelVersion, hardware: Hardware, place: Place | None = None) -> None:
        self._place = place or Place(hardware.device, hardware.device)
        self.device = self._place.name
        self._model, self._hardware = model, replace(hardware, device=self._place.device)
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._pace = Pace()
        self._closed, self._lock = False, Lock()
        self.usage: Usage | None = None

    def hear(self, windows: Sequence[Window], asked: Asked) -> list[HeardWindow]:
        """See :class:`Worker`."""
        if not self._child:
            self._start()
        with self._pace.over(windows) as patience_s:
            heard, self.usage = self._ask((list(windows), asked), patience_s)
        return list(heard)

    def _ask(self, what: Any, patience_s: Seconds) -> Any:
        """Say something and get the answer, or raise it. Whoever stalls is killed, wherever it stalls."""
        child, pipe = self._child, self._pipe
        assert child
        assert pipe
        began = time.monotonic()
        try:
            with watchdog(patience_s, child.kill):
                pipe.send(what)  # waits, too, for a child that does not read
                answer = pipe.recv()
        except (EOFError, OSError) as error:
            stalled, code = time.monotonic() - began >= patience_s, self._end()
            raise WorkerBroken(
                f"a worker on {self.device} "
                + (
                    f"gave no sign of life for {patience_s:.0f} s"
                    if stalled
                    else "was killed, most likely because memory ran out: use fewer workers"
                    if code == -signal.SIGKILL
                    else f"ended with status {code}: what it wrote last says why"
                )
            ) from error
        if isinstance(answer, (ModelError, WorkerBroken)):
            self.close()
        if isinstance(answer, AsrError):
            raise answer
        return answer

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise WorkerBroken("it was told to end")
            ours, theirs = socketpair()
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "speech.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=self._environment(),
                )
            self._pipe = Connection(ours.detach())
        self._ask((self._model, self._hardware), LOADING_S)

    def _environment(self) -> dict[str, str]:
        gpu = {"CUDA_VISIBLE_DEVICES": self._place.gpu} if self._place.gpu else {}
        return environment_of(self._model) | gpu

    def close(self) -> None:
        """See :class:`Worker`; another batch would get another process."""
        self._end()

    def _end(self) -> int | None:
        """The exit status, if it is known."""
        code = None
        if self._child:
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck in a driver: the system will end it
                code = self._child.wait(ENDING_S)
        if self._pipe:
            self._pipe.close()
        self._child = self._pipe = None
        return code

    def stop(self) -> None:
        """See :class:`Worker`; whoever waits for its answer is told that it was killed."""
        with self._lock:
            self._closed = True
            if self._child:
                self._child.kill()


class Crew:
    """Workers and the queue they take batches from."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.size = len(workers)
        self._workers = workers
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._left, self._lost = len(workers), ModelError("no worker is left")
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(len(workers))

    def submit(self, windows: Sequence[Window], asked: Asked) -> "Future[Answered]":
        """Whoever is idle first hears them. Raises ModelError when no worker is left that can."""
        return self._threads.submit(self._work, windows, asked)

    def _work(self, windows: Sequence[Window], asked: Asked) -> Answered:
        try:
            return self._ask(windows, asked)
        except (EngineError, WorkerBroken):
            # One by one, each by whoever is idle: what fails again is to blame.
            alone = [self._alone(window, asked) for window in windows]
            answers = [answer for one in alone for answer in one.answers]
            return Answered(answers, sum(one.seconds for one in alone), alone[-1].device, alone[-1].usage)

    def _alone(self, window: Window, asked: Asked) -> Answered:
        try:
            return self._ask([window], asked)
        except (EngineError, WorkerBroken) as error:
            return Answered([EngineError(f"at {window.start_s:.1f} s: {error}")], 0.0, "")

    def _ask(self, windows: Sequence[Window], asked: Asked) -> Answered:
        while worker := self._idle.get():
            began = time.perf_counter()
            try:
                heard = worker.hear(windows, asked)
            except ModelError as error:
                self._retire(worker, error)  # its windows are as good as before
                continue
            except WorkerBroken as error:
                if _is_well(worker, asked):
                    self._idle.put(worker)
                else:
                    self._retire(worker, error)
                raise
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            return Answered(list(heard), time.perf_counter() - began, worker.device, worker.usage)
        self._idle.put(None)  # for the next one who asks
        raise self._lost

    def _retire(self, worker: Worker, error: AsrError) -> None:
        worker.close()
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._lost = (
                    error if isinstance(error, ModelError) else ModelError(f"no worker is left: {error}")
                )
                self._idle.put(None)

    def close(self) -> None:
        """End all workers; what is under way is lost."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()


def _is_well(worker: Worker, asked: Asked) -> bool:
    """Whether a worker that broke, or the process that replaces it, can hear at least silence."""
    try:
        worker.hear([Window(np.zeros(SAMPLE_RATE, np.int16), 0.0)], asked)
    except AsrError:
        return False
    return True


def hire(model: ModelVersion, hardware: Hardware, count: int | None) -> Crew:
    """``count`` processes over the devices, 0 for one a device; None for this process alone.

    Raises :class:`~speech.errors.ModelError`: for this process at once, for others at their first batch.
    """
    if count is None:
        return Crew([Here(model, hardware)])
    several = "device_index" in model.runtime  # one process that uses several GPUs by itself
    places = [Place(hardware.device, hardware.device)] if several else places_of(hardware.device)
    each = [places[n % len(places)] for n in range(count or len(places))]
    # Together they take the cores once.
    threads = hardware.threads or max(1, cores() // len(each))
    return Crew([Apart(model, replace(hardware, threads=threads), place) for place in each])


def places_of(wanted: str) -> list[Place]:
    """Where a list of devices is; ``auto`` and ``cuda`` are all GPUs there are, if there are any.

    >>> [place.name for place in places_of("cpu, mps")]
    ['cpu', 'mps']
    """
    gpus = visible_gpus()
    if wanted in ("auto", "cuda"):
        # Told "auto", a process without a driver for its GPU, or with a torch that has none, takes the CPU.
        return [Place(f"cuda:{n}", wanted, gpu) for n, gpu in enumerate(gpus)] or [Place(wanted, wanted)]
    known = {f"cuda:{n}": Place(f"cuda:{n}", "cuda", gpu) for n, gpu in enumerate(gpus)}
    return [known.get(name, Place(name, name)) for name in map(str.strip, wanted.split(","))]


def visible_gpus() -> list[str]:
    """GPUs of NVIDIA as CUDA_VISIBLE_DEVICES calls them; nobody's library is loaded for that."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    # What stands behind one that there is not is hidden, too; source: CUDA's programming guide.
    return list(takewhile(lambda gpu: gpu not in ("", "-1"), map(str.strip, named.split(","))))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
