"""A device that is out of memory, breaks, or gives numbers that are none."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_assets.transcription import _outcome
from resources.published import Status
from speech.engines import Asked, Hardware
from speech.errors import EngineError, ModelError, Reason, WorkerBroken
from speech.models import ModelVersion
from speech.pipeline import Heard, Transcriber
from speech.reading import Recording
from speech.types import HeardWindow, Transcript, Window
from speech.voice import windows as cut
from speech.workers import Apart, Crew, Here
from tests.conftest import KNOWN, ROOT, SAMPLES
from tests.speech.test_pipeline import mono_of

pytestmark = pytest.mark.xdist_group("machine")

ONE = Hardware(device="cpu", threads=1, batch_size=8)

CHECKPOINT = ROOT / "micro_whisper" / "checkpoint"

MICRO = ModelVersion("micro", "whisper", weights=str(CHECKPOINT), max_window_s=5.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("recordings")
    return [Recording(name, mono_of(SAMPLES / name, folder)) for name in KNOWN[:4]]


def said(heard: Heard) -> list[tuple[str, float, float]]:
    """Words and times; in a batch of another size probabilities are others in their last digits."""
    assert isinstance(heard.outcome, Transcript), heard.outcome
    return [(word.text, word.start_s, word.end_s) for word in heard.outcome.words]


def all_said(transcriber: Transcriber, recordings: list[Recording]) -> dict[str, Any]:
    return {heard.id: said(heard) for heard in transcriber.run(recordings)}


@pytest.fixture(scope="module")
def as_ever(recordings: list[Recording]) -> dict[str, Any]:
    with Transcriber(MICRO, ONE) as transcriber:
        words = all_said(transcriber, recordings)
    assert all(len(found) > 15 for found in words.values())
    return words


def loaded(transcriber: Transcriber) -> tuple[Here, Any]:
    """The worker in this process, and its network."""
    worker = transcriber._crew._workers[0]
    assert isinstance(worker, Here)
    engine: Any = worker.listener.engine
    return worker, engine._network


def at_call(module: Any, number: int, act: Callable[[Any, Any], Any]) -> None:
    """``act`` on what this part of a network gets and gives, from its call of this number on."""
    calls = 0

    def hook(_: Any, given: Any, out: Any) -> Any:
        nonlocal calls
        calls += 1
        return act(given, out) if calls >= number else None

    module.register_forward_hook(hook)


@pytest.mark.case(36)
@pytest.mark.parametrize(
    ("part", "number"), [("encoder", 1), ("encoder", 2), ("encoder", 3), ("decoder", 1), ("decoder", 30)]
)
def test_out_of_memory_halves_the_batch_and_the_text_is_the_same(
    part: str, number: int, recordings: list[Recording], as_ever: dict[str, Any]
) -> None:
    """Before a batch, or in the midst of its text: each token is a call of the decoder's last layer."""
    import torch

    batches: list[int] = []

    def runs_out(given: Any, out: Any) -> None:
        batches.append(len(out[0]) if part == "encoder" else len(out))
        if batches[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with Transcriber(MICRO, replace(ONE, batch_size=4)) as transcriber:
        worker, network = loaded(transcriber)
        at_call(network.get_encoder() if part == "encoder" else network.proj_out, number, runs_out)
        assert all_said(transcriber, recordings) == as_ever
    assert max(batches) > 1, "it never ran out"
    assert worker.listener.fits == 1


def not_a_number(given: Any, out: Any) -> Any:
    return out * float("nan")


def device_error(given: Any, out: Any) -> Any:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.case(37)
@pytest.mark.parametrize("number", [1, 30])
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_a_device_that_breaks_is_done_without(
    act: Callable[[Any, Any], Any], number: int, recordings: list[Recording], as_ever: dict[str, Any]
) -> None:
    """Two workers on real networks, one of which breaks for good."""
    with Transcriber(MICRO, ONE) as transcriber:
        well, broken = Here(MICRO, ONE), transcriber._crew._workers[0]
        _, network = loaded(transcriber)
        at_call(network.proj_out, number, act)
        transcriber._crew = Crew([broken, well])
        assert all_said(transcriber, recordings) == as_ever


@pytest.mark.case(37)
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_when_every_device_is_broken_the_run_fails(
    act: Callable[[Any, Any], Any], recordings: list[Recording]
) -> None:
    with Transcriber(MICRO, ONE) as transcriber:
        _, network = loaded(transcriber)
        at_call(network.proj_out, 1, act)
        with pytest.raises(ModelError, match=r"^no worker is left: .*(no numbers|device failed)"):
            list(transcriber.run(recordings))


@pytest.mark.case(37)
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_a_recording_that_breaks_the_device_fails_alone(
    act: Callable[[Any, Any], Any], recordings: list[Recording], as_ever: dict[str, Any], tmp_path: Path
) -> None:
    """As a float16 that overflows for one sound, and is well again for the next."""
    bad, *good = recordings
    bad_sound = mono_of(SAMPLES / bad.id, tmp_path)
    with Transcriber(MICRO, ONE) as transcriber:
        worker, _ = loaded(transcriber)
        engine: Any = worker.listener.engine
        features, marked = engine._features, {w.samples.tobytes() for w in cut(bad_sound, MICRO.max_window_s)}

        def overflows(windows: Sequence[Window]) -> Any:
            spectra = features(windows)
            is_bad = any(window.samples.tobytes() in marked for window in windows)
            return act(None, spectra) if is_bad else spectra

        engine._features = overflows
        heard = {one.id: one for one in transcriber.run(recordings)}
    assert {recording.id: said(heard[recording.id]) for recording in good} == {
        recording.id: as_ever[recording.id] for recording in good
    }
    assert isinstance(heard[bad.id].outcome, EngineError)
    outcome, words, message = _outcome(heard[bad.id], "")
    assert (outcome.status, outcome.reason, words) == (Status.FAILED, Reason.ENGINE_FAILED, ())
    assert message


def with_a_nan(folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.layers.2.fc2.weight"].reshape(-1)[7] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Repaired(Apart):
    """A process whose weights are in order again when it is started anew."""

    def close(self) -> None:
        super().close()
        shutil.copy(CHECKPOINT / "model.safetensors", str(self._model.weights))


@pytest.mark.case(37)
def test_a_process_that_says_no_numbers_is_replaced(tmp_path: Path) -> None:
    model = replace(MICRO, weights=str(with_a_nan(shutil.copytree(CHECKPOINT, tmp_path / "copy"))))
    crew, window = Crew([Repaired(model, ONE)]), Window(mono_of(SAMPLES / KNOWN[0], tmp_path), 0.0)
    try:
        (answer,) = crew.submit([window], Asked()).result(120).answers
        assert isinstance(answer, HeardWindow)
        assert len(answer.words) > 15
    finally:
        crew.close()


@pytest.mark.case(37)
def test_no_numbers_of_a_whisper_of_ctranslate2_are_no_silence(tmp_path: Path) -> None:
    from benchmarks.corpus import converted

    folder = with_a_nan(shutil.copytree(CHECKPOINT, tmp_path / "copy"))
    model = ModelVersion("ct2", "faster_whisper", weights=str(converted(folder, tmp_path / "ct2")))
    worker = Here(model, ONE)
    with pytest.raises(WorkerBroken, match="no numbers"):
        worker.hear([Window(mono_of(SAMPLES / KNOWN[0], tmp_path), 0.0)], Asked())
