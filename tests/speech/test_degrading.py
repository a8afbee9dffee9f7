"""Conditions on purpose: what is made worse, and what must not change."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from speech.degrading import CONDITIONS, degrade
from speech.errors import AsrError
from speech.media import LocalFile, MediaDecoder, mixed, read_flac
from speech.types import SAMPLE_RATE, Samples, Seconds
from speech.voice import FRAME, Voice
from tests.conftest import SAMPLES

NOISES = [name for name, condition in CONDITIONS.items() if condition.kind == "noise"]
RATES = [name for name, condition in CONDITIONS.items() if condition.unit == "kbit/s"]


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as decoder:
        yield decoder


def decoded(decoder: MediaDecoder, path: Path, scratch: Path) -> Samples:
    with LocalFile(path) as source:
        info = decoder.extract(source, path.name, scratch / "audio.flac")
    assert (info.decode_errors, info.clock_jumps) == (0, 0)
    return read_flac(scratch / "audio.flac")


@pytest.fixture(scope="module")
def stereo(decoder: MediaDecoder, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """A recording of 13 s in which somebody speaks."""
    samples = decoded(decoder, SAMPLES / "weather.mp4", tmp_path_factory.mktemp("weather"))
    assert samples.shape[0] == 2
    return samples


@pytest.fixture(scope="module")
def recording(stereo: Samples) -> Samples:
    return mixed(stereo)


def twin_of(samples: Samples, condition: str, decoder: MediaDecoder, scratch: Path) -> Samples:
    path = scratch / f"twin{CONDITIONS[condition].suffix}"
    path.write_bytes(degrade(samples, condition, seed=1))
    return decoded(decoder, path, scratch)


def later_s(one: Samples, other: Samples) -> Seconds:
    """By how much the same sound comes later in the other, to an eighth of a sample."""
    size = 1 << (one.shape[-1] + other.shape[-1]).bit_length()
    alike = np.fft.irfft(np.fft.rfft(one, size).conj() * np.fft.rfft(other, size), 8 * size)
    lag = int(np.argmax(np.abs(alike)))
    return (lag if lag < 4 * size else lag - 8 * size) / 8 / SAMPLE_RATE


@pytest.mark.parametrize("condition", CONDITIONS)
def test_sound_lies_where_it_was(
    decoder: MediaDecoder, recording: Samples, tmp_path: Path, condition: str
) -> None:
    twin = twin_of(recording, condition, decoder, tmp_path)
    # An encoder's last frame may be filled up with silence.
    assert recording.shape[-1] <= twin.shape[-1] <= recording.shape[-1] + 1024
    # In its first and its last part: a clock that runs otherwise would show only later.
    half = recording.shape[-1] // 2
    assert abs(later_s(recording[:half], twin[:half])) < 0.0005
    assert abs(later_s(recording[half:], twin[half:])) < 0.0005


@pytest.mark.long
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_sides_of_stereo_stay_apart(
    decoder: MediaDecoder, stereo: Samples, tmp_path: Path, condition: str
) -> None:
    call = stereo.copy()
    half = call.shape[1] // 2
    call[1, :half], call[0, half:] = 0, 0  # one speaks, then the other
    twin = twin_of(call, condition, decoder, tmp_path)
    assert twin.shape[0] == 2
    loudness = [np.square(part.astype(float)).mean() for part in (twin[0, :half], twin[1, half : 2 * half])]
    assert min(loudness) > 1e4
    if CONDITIONS[condition].level != 6:  # so little is enough for one side only
        for side in (0, 1):
            assert abs(later_s(call[side], twin[side])) < 0.0005


@pytest.mark.long
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_same_seed_gives_the_same_bytes(recording: Samples, condition: str) -> None:
    short = recording[: 3 * SAMPLE_RATE]
    once = degrade(short, condition, seed=1)
    assert degrade(short, condition, seed=1) == once
    assert (degrade(short, condition, seed=2) != once) == (condition in NOISES)


@pytest.mark.long
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("samples", [1, 1000, SAMPLE_RATE])
def test_silence_and_clicks_are_recordings_too(condition: str, samples: int) -> None:
    assert degrade(np.zeros(samples, np.int16), condition, seed=1)
    assert degrade(np.full((2, samples), -32768, np.int16), condition, seed=1)


def powers(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each frame of voice activity."""
    whole = len(samples) // FRAME * FRAME
    return np.asarray(np.square(samples[:whole]).reshape(-1, FRAME).mean(axis=1))


@pytest.mark.parametrize("condition", NOISES)
def test_noise_is_as_loud_as_asked_for_where_somebody_speaks(
    decoder: MediaDecoder, recording: Samples, tmp_path: Path, condition: str
) -> None:
    # Half of it is silence: that must make no difference.
    samples = np.concatenate([recording // 2, np.zeros_like(recording)])
    speaks = Voice().hear(samples)[: len(samples) // FRAME] >= 0.5
    twin = twin_of(samples, condition, decoder, tmp_path)
    noise = twin.astype(float) - samples
    ratio_db = 10 * np.log10(powers(samples.astype(float))[speaks].mean() / powers(noise)[speaks].mean())
    assert ratio_db == pytest.approx(CONDITIONS[condition].level, abs=0.2)
    # It goes on where nobody speaks, and is no hiss: as in speech, most of it lies low.
    assert powers(noise)[~speaks].mean() == pytest.approx(powers(noise)[speaks].mean(), rel=0.2)
    spectrum = np.square(np.abs(np.fft.rfft(noise)))
    assert spectrum[: len(spectrum) // 8].sum() > 0.6 * spectrum.sum()


def test_loud_speech_is_made_quieter_before_it_clips(
    decoder: MediaDecoder, recording: Samples, tmp_path: Path
) -> None:
    loud = (recording / np.abs(recording.astype(float)).max() * 32767).astype(np.int16)
    twin = twin_of(loud, "noise_0db", decoder, tmp_path)
    assert np.count_nonzero(np.abs(twin.astype(int)) >= 32767) <= 1


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("condition", RATES)
def test_files_are_as_small_as_their_names_say(
    recording: Samples, stereo: Samples, condition: str, channels: int
) -> None:
    samples = recording if channels == 1 else stereo
    kbit_per_s = len(degrade(samples, condition, seed=1)) * 8 / 1000 / (samples.shape[-1] / SAMPLE_RATE)
    # FFmpeg's AAC gives a tenth more, and an Ogg has 0.7 kbit/s of its own.
    assert CONDITIONS[condition].level is not None
    assert kbit_per_s == pytest.approx(CONDITIONS[condition].level, rel=0.1, abs=0.75)


def test_a_telephone_has_its_band_and_no_more(decoder: MediaDecoder, tmp_path: Path) -> None:
    hiss = (np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE) * 3000).astype(np.int16)
    twin = twin_of(hiss, "telephone", decoder, tmp_path)
    with LocalFile(tmp_path / "twin.wav") as file:
        probed = decoder.probe(file, "twin.wav")
    assert (probed.audio_codec, probed.sample_rate) == ("pcm_mulaw", 8000)
    spectrum = np.square(np.abs(np.fft.rfft(twin))) / len(twin)
    hertz = np.fft.rfftfreq(len(twin), 1 / SAMPLE_RATE)

    def loudness_db(low: int, high: int) -> float:
        return float(10 * np.log10(spectrum[(hertz >= low) & (hertz < high)].mean()))

    passed = loudness_db(400, 3300)
    assert loudness_db(4100, 8000) < passed - 50
    assert loudness_db(0, 200) < passed - 30


def test_an_unknown_condition_names_the_known_ones() -> None:
    with pytest.raises(AsrError, match=r"fog: there is no such condition; .*noise_20db.*telephone"):
        degrade(np.zeros(SAMPLE_RATE, np.int16), "fog", seed=1)
