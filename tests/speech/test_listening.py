"""An engine at its limits, and workers that come to grief."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from speech import workers
from speech.engines import Asked, Hardware, Heard
from speech.errors import AsrError, EngineError, ModelError, WorkerBroken
from speech.listening import Listener, Usage
from speech.models import ModelVersion
from speech.types import SAMPLE_RATE, HeardWindow, Signals, Window, Word
from speech.workers import Answered, Apart, Crew, hire, places_of

MODEL = ModelVersion("m", "whisper", weights="./none")


def window(number: int, seconds: float = 1.0) -> Window:
    return Window(np.full(round(seconds * SAMPLE_RATE), number, np.int16), float(number))


def said(text: str, log_probability: float = -0.1) -> Heard:
    return Heard(tuple(Word(w, 0.0, 0.1, 0.9, "test") for w in text.split()), "en", log_probability)


class Scripted:
    """An engine that says what it is told, and runs out of memory as a device does."""

    def __init__(self, fits: int = 99, error: str = "CUDA out of memory") -> None:
        self.fits, self.error = fits, error
        self.asked: list[tuple[int, float]] = []
        self.says = {0.0: said("fine")}

    def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
        self.asked.append((len(windows), asked.temperature))
        if len(windows) > self.fits:
            raise RuntimeError(self.error)
        return [self.says.get(asked.temperature, said("fine")) for _ in windows]


def listener(engine: Scripted, batch_size: int = 8) -> Listener:
    return Listener(MODEL, Hardware(batch_size=batch_size), engine)


@pytest.mark.case(36)
@pytest.mark.parametrize(
    "error", ["CUDA out of memory. Tried to allocate", "CUDA failed with error out of memory"]
)
def test_out_of_memory_halves_the_batch_and_remembers(error: str) -> None:
    engine = Scripted(fits=3, error=error)
    ears = listener(engine)
    assert len(ears.hear([window(n) for n in range(8)], Asked())) == 8
    assert [count for count, _ in engine.asked] == [8, 4, 2, 2, 2, 2]
    engine.asked.clear()
    ears.hear([window(n) for n in range(4)], Asked())
    assert [count for count, _ in engine.asked] == [2, 2]


@pytest.mark.case(36)
def test_one_window_that_does_not_fit_fails_alone() -> None:
    with pytest.raises(EngineError, match=r"out of memory at 3.0 s, with one window alone"):
        listener(Scripted(fits=0)).hear([window(3)], Asked())


@pytest.mark.case(37)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("CUDA error: device-side assert triggered", WorkerBroken),
        ("cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED", WorkerBroken),
        ("shape mismatch", EngineError),
    ],
)
def test_other_errors_of_a_device_break_its_worker(error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=error.split(":", maxsplit=1)[0]):
        listener(Scripted(fits=0, error=error)).hear([window(0)], Asked())


@pytest.mark.case(37)
def test_what_is_no_number_breaks_the_worker() -> None:
    engine = Scripted()
    engine.says[0.0] = said("so", float("nan"))
    with pytest.raises(WorkerBroken, match="no numbers"):
        listener(engine).hear([window(0)], Asked())


LOOP = "thank you " * 20


@pytest.mark.parametrize(
    ("says", "heard", "temperature", "asked"),
    [
        ({0.0: said("all is well")}, "all is well", 0.0, [0.0]),
        ({0.0: said(LOOP), 0.2: said("thank you")}, "thank you", 0.2, [0.0, 0.2]),
        ({0.0: said("hm", -2), 0.2: said("him", -1.5), 0.4: said("ham", -0.5)}, "ham", 0.4, [0.0, 0.2, 0.4]),
        (
            {
                0.0: said(LOOP),
                0.2: said(LOOP),
                0.4: said("a", -3),
                0.6: said("b", -2),
                0.8: said("c", -4),
                1.0: said("d", -5),
            },
            "b",
            0.6,
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        ),
    ],
    ids=["nothing to doubt", "a loop", "unlikely", "the best of the bad"],
)
def test_what_cannot_be_right_is_heard_again(
    says: dict[float, Heard], heard: str, temperature: float, asked: list[float]
) -> None:
    engine = Scripted()
    engine.says = says
    (found,) = listener(engine).hear([window(0)], Asked())
    assert " ".join(word.text for word in found.words) == heard
    assert found.signals.temperature == temperature
    assert [t for _, t in engine.asked] == asked


def test_only_windows_with_a_sign_are_heard_again() -> None:
    class Picky(Scripted):
        def transcribe(self, windows: Sequence[Window], asked: Asked) -> list[Heard]:
            super().transcribe(windows, asked)
            bad = asked.temperature < 0.4
            return [said(LOOP if bad and w.start_s % 2 else "fine") for w in windows]

    engine = Picky()
    found = listener(engine).hear([window(n) for n in range(6)], Asked())
    assert engine.asked == [(6, 0.0), (3, 0.2), (3, 0.4)]
    assert [heard.signals.temperature for heard in found] == [0.0, 0.4] * 3
    assert [heard.signals.loop_words for heard in found] == [0] * 6


class StandIn:
    """A device of a given speed; windows of ``poison`` break it, ``broken`` is all that it ever says."""

    def __init__(
        self, device: str, seconds: float, poison: Sequence[int] = (), broken: AsrError | None = None
    ) -> None:
        self.device, self.seconds, self.poison, self.broken = device, seconds, set(poison), broken
        self.usage: Usage | None = None
        self.heard = 0
        self._busy = threading.Lock()

    def hear(self, windows: Sequence[Window], _: Asked) -> list[HeardWindow]:
        assert self._busy.acquire(blocking=False), "one batch at a time"
        try:
            time.sleep(self.seconds)
            if self.broken:
                raise self.broken
            if self.poison.intersection(int(w.samples[0]) for w in windows):
                raise WorkerBroken("its device failed")
            self.heard += len(windows)
            return [HeardWindow(w.start_s, w.duration_s, (), Signals("en")) for w in windows]
        finally:
            self._busy.release()

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.heard = -1


def all_of(crew: Crew, batches: Sequence[Sequence[Window]]) -> list[Answered]:
    futures = [crew.submit(batch, Asked()) for batch in batches]
    wait(futures, timeout=90)  # one that hangs is a failure, too
    return [future.result(timeout=0) for future in futures]


def test_six_workers_on_three_unlike_devices_balance_themselves() -> None:
    """Two workers a device; the devices differ tenfold in speed."""
    speeds = {"cuda:0": 0.01, "cuda:1": 0.02, "cpu": 0.1}
    team = [StandIn(device, seconds) for device, seconds in speeds.items() for _ in range(2)]
    crew = Crew(team)
    began = time.perf_counter()
    answered = all_of(crew, [[window(2 * n), window(2 * n + 1)] for n in range(120)])
    took = time.perf_counter() - began
    by_device = {device: sum(a.device == device for a in answered) for device in speeds}
    assert sum(by_device.values()) == 120
    assert by_device["cuda:0"] > by_device["cuda:1"] > by_device["cpu"] > 0
    # Dealt out evenly, the slowest would take 20 batches of 0.1 s each.
    assert took < 1.6
    starts = [answer.start_s for a in answered for answer in a.answers if isinstance(answer, HeardWindow)]
    assert sorted(starts) == [float(n) for n in range(240)]
    crew.close()
    assert {worker.heard for worker in team} == {-1}


def test_workers_are_dealt_to_devices_in_turn() -> None:
    crew = hire(MODEL, Hardware("cuda:0, cuda:1, cpu"), 6)
    assert [worker.device for worker in crew._workers] == ["cuda:0", "cuda:1", "cpu"] * 2
    assert hire(MODEL, Hardware("cuda:3,cpu"), 0).size == 2


@pytest.mark.parametrize(
    ("wanted", "visible", "places"),
    [
        ("auto", "0,3", [("cuda:0", "auto", "0"), ("cuda:1", "auto", "3")]),
        ("cuda", "GPU-5f, ", [("cuda:0", "cuda", "GPU-5f")]),
        ("auto", "", [("auto", "auto", None)]),
        ("auto", "-1", [("auto", "auto", None)]),
        ("cuda:1 ,cpu", "0,2", [("cuda:1", "cuda", "2"), ("cpu", "cpu", None)]),
        ("cuda:0,cuda:0", "0", [("cuda:0", "cuda", "0")] * 2),
        ("cuda:7", "0", [("cuda:7", "cuda:7", None)]),  # there is none: the engine says so
    ],
)
def test_each_worker_sees_its_own_gpu(
    wanted: str, visible: str, places: list[tuple[str, str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert places_of(wanted) == places
    crew = hire(SPHINX, Hardware(wanted), 0)
    assert [worker.device for worker in crew._workers] == [name for name, *_ in places]
    if "cpu" in wanted or wanted == "auto":
        all_of(crew, [[window(1)]] * 4)
        for worker, (*_, gpu) in zip(crew._workers, places, strict=True):
            if worker._child and gpu:  # type: ignore[attr-defined]
                environment = Path(f"/proc/{child_of(worker)}/environ").read_text()  # type: ignore[arg-type]
                assert f"CUDA_VISIBLE_DEVICES={gpu}\0" in environment
    crew.close()


def test_a_model_that_spreads_by_itself_sees_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    model = ModelVersion("wide", "faster_whisper", weights="./none", runtime={"device_index": [0, 1]})
    (worker,) = hire(model, Hardware("cuda"), 0)._workers
    assert worker.device == "cuda"


def test_a_window_that_breaks_its_worker_fails_alone() -> None:
    crew = Crew([StandIn("cpu", 0.0, poison=[2])])
    (answered,) = all_of(crew, [[window(n) for n in (1, 2, 3)]])
    assert [type(answer) for answer in answered.answers] == [HeardWindow, EngineError, HeardWindow]
    assert "at 2.0 s: its device failed" in str(answered.answers[1])


@pytest.mark.parametrize("count", [1, 2])
def test_a_recording_that_breaks_every_worker_does_not_end_the_run(count: int) -> None:
    bad = range(1, 17)
    crew = Crew([StandIn("cpu", 0.0, poison=bad) for _ in range(count)])
    first, second = all_of(crew, [[window(n) for n in bad], [window(n) for n in range(20, 30)]])
    assert all(isinstance(answer, EngineError) for answer in first.answers)
    assert all(isinstance(answer, HeardWindow) for answer in second.answers)


@pytest.mark.parametrize("says", [WorkerBroken("its device failed"), ModelError("there is no device cuda:1")])
def test_a_worker_that_hears_nothing_is_retired_and_the_others_go_on(says: AsrError) -> None:
    crew = Crew([StandIn("cuda:1", 0.0, broken=says), StandIn("cuda:0", 0.01)])
    answered = all_of(crew, [[window(n)] for n in range(1, 40)])
    assert all(isinstance(answer, HeardWindow) for a in answered for answer in a.answers)
    assert {a.device for a in answered} == {"cuda:0"}


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (WorkerBroken("its device failed"), "^no worker is left: its device failed"),
        (ModelError("m is not there"), "^m is not"),
    ],
)
def test_when_no_worker_is_left_everything_that_waits_is_told(says: AsrError, sentence: str) -> None:
    crew = Crew([StandIn("cpu", 0.01, broken=says) for _ in range(3)])
    futures = [crew.submit([window(n)], Asked()) for n in range(1, 20)]
    for future in futures:
        with pytest.raises(ModelError, match=sentence):
            future.result(timeout=10)


SPHINX = ModelVersion("sphinx", "pocketsphinx", options={"fwdflat": False, "maxhmmpf": 1000})


@pytest.fixture
def apart() -> Iterator[Apart]:
    worker = Apart(SPHINX, Hardware())
    yield worker
    worker.stop()


def child_of(worker: Apart) -> int:
    assert worker._child is not None
    return worker._child.pid


@pytest.mark.case(37)
def test_a_worker_that_is_killed_is_replaced(apart: Apart) -> None:
    crew = Crew([apart])
    noise = Window(np.random.default_rng(0).normal(0, 3000, SAMPLE_RATE).astype(np.int16), 0.0)
    (first,) = all_of(crew, [[noise]])
    killed = child_of(apart)
    os.kill(killed, signal.SIGKILL)
    (second,) = all_of(crew, [[noise]])
    assert first.answers == second.answers
    assert child_of(apart) != killed
    crew.close()


@pytest.mark.case(38)
@pytest.mark.parametrize(
    ("count", "seconds", "patience_s"), [(1, 1.0, 1.5), (4, 30.0, 6.0)], ids=["at work", "in being told"]
)
def test_a_worker_that_stalls_is_ended(
    count: int, seconds: float, patience_s: float, apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Crew([apart])
    all_of(crew, [[window(0)]])
    stopped = child_of(apart)
    monkeypatch.setattr(workers, "STALL_BASE_S", patience_s)
    monkeypatch.setattr(workers, "STALL_TIMES", 0.0)
    os.kill(stopped, signal.SIGSTOP)
    (answered,) = all_of(crew, [[window(0, seconds)] * count])
    assert all(isinstance(answer, HeardWindow) for answer in answered.answers)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
    crew.close()


def test_closing_ends_what_is_under_way(apart: Apart) -> None:
    crew = Crew([apart])
    noise = Window(np.random.default_rng(0).normal(0, 3000, 30 * SAMPLE_RATE).astype(np.int16), 0.0)
    all_of(crew, [[window(0)]])
    child = child_of(apart)
    futures = [crew.submit([noise] * 8, Asked()) for _ in range(4)]
    time.sleep(0.5)
    began = time.perf_counter()
    crew.close()
    assert time.perf_counter() - began < 5
    assert all(future.done() for future in futures)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_worker_that_cannot_load_says_why() -> None:
    crew = hire(ModelVersion("broken", "whisper", weights="/no/such/folder"), Hardware(), 1)
    with pytest.raises(ModelError, match="which is not there"):
        crew.submit([window(0)], Asked()).result()
    crew.close()
