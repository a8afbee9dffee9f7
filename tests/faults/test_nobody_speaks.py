"""Silence, noise and music."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from asr_assets.transcription import _outcome
from resources.published import Status
from speech.engines import Hardware
from speech.errors import Reason
from speech.models import ModelVersion, read_models
from speech.pipeline import Transcriber
from speech.reading import Recording
from speech.types import SAMPLE_RATE, Transcript
from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("machine")

ONE = Hardware(device="cpu", threads=1, batch_size=8)

COUNT = 10 * SAMPLE_RATE

TIME = np.arange(COUNT) / SAMPLE_RATE

Sound = npt.NDArray[np.float64]


def silence() -> Sound:
    return np.zeros(COUNT)


def white_noise() -> Sound:
    return np.random.default_rng(1).standard_normal(COUNT)


def pink_noise() -> Sound:
    spectrum = np.fft.rfft(white_noise())
    noise: Sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), COUNT)
    return noise


def hum() -> Sound:
    return sum((np.sin(2 * np.pi * 50 * k * TIME) / k for k in (1, 2, 3, 5)), start=silence())


def tune() -> Sound:
    """Four notes a second, each plucked, with overtones."""
    scale = np.array([0, 4, 7, 12, 7, 4, 0, 5, 9, 12, 9, 5, 7, 11, 14, 11])
    pitch = 220 * 2 ** (scale / 12)
    phase = 2 * np.pi * np.cumsum(pitch[(TIME * 4).astype(int) % len(scale)]) / SAMPLE_RATE
    plucked: Sound = np.exp(-3 * (TIME * 4 % 1)) * sum(np.sin(k * phase) / k for k in (1, 2, 3, 4))
    return plucked


FAST = ModelVersion("fast", "pocketsphinx", options={"fwdflat": False, "maxhmmpf": 3000, "topn": 2, "ds": 2})

ENGINES = {"pocketsphinx": FAST, "micro_whisper": read_models(ROOT / "models.toml")["micro_whisper"]}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Transcriber]:
    with Transcriber(ENGINES[request.param], ONE) as transcriber:
        yield transcriber


@pytest.mark.case(39)
@pytest.mark.parametrize("level_db", [-60, -40, -20, -3])
@pytest.mark.parametrize("sound", [silence, white_noise, pink_noise, hum, tune])
def test_where_nobody_speaks_there_are_no_words_or_flagged_ones(
    sound: Callable[[], Sound], level_db: int, engine: Transcriber
) -> None:
    samples = sound() / (np.abs(sound()).max() or 1) * 10 ** (level_db / 20)
    heard = engine.hear(Recording("a", (samples * 32767).astype(np.int16)))
    outcome, found, _ = _outcome(heard, "")
    assert isinstance(heard.outcome, Transcript)
    if sound is tune:  # which is like a voice in some ways, at some levels: to_review(), or the column voice
        assert all(
            w.probability < 0.5 or (w.voice is not None and w.voice < 0.5) for w in heard.outcome.words
        )
    else:
        assert (outcome.status, outcome.reason, found) == (Status.EMPTY, Reason.NO_SPEECH, ())
