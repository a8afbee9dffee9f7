"""Media of unknown origin: what is decoded, what is refused, and what a bad file may not do."""

import os
import signal
import socket
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from speech import media
from speech.errors import AsrError, MediaError, Reason
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.types import SAMPLE_RATE, Samples
from tests.conftest import SAMPLES
from tests.faults import clips


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as decoder:
        yield decoder


def decode(decoder: MediaDecoder, path: Path, scratch: Path) -> tuple[media.AudioInfo, Samples]:
    flac = scratch / "audio.flac"
    with LocalFile(path) as source:
        info = decoder.extract(source, path.name, flac)
    return info, read_flac(flac)


def first_sound_s(samples: Samples) -> float:
    return int(np.argmax(np.abs(samples.astype(int)) > 200)) / SAMPLE_RATE


@pytest.mark.case(11)
def test_audio_that_starts_late_stands_where_it_is_heard(decoder: MediaDecoder, tmp_path: Path) -> None:
    with LocalFile(SAMPLES / "delayed_audio.mp4") as source:
        probed = decoder.probe(source, "delayed_audio.mp4")
    info, samples = decode(decoder, SAMPLES / "delayed_audio.mp4", tmp_path)
    assert probed.audio_start_s == pytest.approx(1.5, abs=0.001)
    assert info.duration_s == pytest.approx(samples.shape[-1] / SAMPLE_RATE, abs=0.001)
    assert 1.5 < first_sound_s(samples) < 1.8
    assert not samples[: int(1.49 * SAMPLE_RATE)].any()


def write_wav(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> None:
    tone = (8000 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone, channels).tobytes())


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 6), (96_000, 2)]
)
def test_length_survives_any_rate_and_layout(
    decoder: MediaDecoder, tmp_path: Path, rate: int, channels: int
) -> None:
    write_wav(tmp_path / "tone.wav", 3.0, rate, channels)
    info, samples = decode(decoder, tmp_path / "tone.wav", tmp_path)
    assert info.duration_s == pytest.approx(3.0, abs=0.002)
    assert np.abs(samples).max() > 1000


def write_clip(path: Path, container: str, codec: str, starts_s: list[float]) -> None:
    """Tones of 1.08 s, each beginning at its time on the container's clock."""
    tone = (8000 * np.sin(np.arange(1152) * 0.2)).astype(np.int16).reshape(1, -1)
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=16_000, layout="mono")
        for start_s in starts_s:
            for n in range(15):
                frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16_000, round(start_s * 16_000) + n * 1152
                output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def test_a_gap_in_the_timestamps_becomes_silence_of_that_length(
    decoder: MediaDecoder, tmp_path: Path
) -> None:
    write_clip(tmp_path / "gap", "matroska", "pcm_s16le", [0.0, 3.0])
    info, samples = decode(decoder, tmp_path / "gap", tmp_path)
    assert info.duration_s == pytest.approx(4.08, abs=0.01)
    assert not samples[int(1.2 * SAMPLE_RATE) : int(2.9 * SAMPLE_RATE)].any()
    assert np.abs(samples[int(3.1 * SAMPLE_RATE) :]).max() > 1000


def test_a_long_pause_that_fits_the_container_is_a_pause(decoder: MediaDecoder, tmp_path: Path) -> None:
    write_clip(tmp_path / "long", "matroska", "pcm_s16le", [0.0, 700.0])
    info, _ = decode(decoder, tmp_path / "long", tmp_path)
    assert info.clock_jumps == 0
    assert info.duration_s == pytest.approx(701.08, abs=0.05)


@pytest.mark.case(12)
def test_a_clock_that_jumps_back_is_bridged_and_counted(decoder: MediaDecoder, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_clip(first, "mpegts", "mp2", [900.0])
    write_clip(second, "mpegts", "mp2", [10.0])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    info, _ = decode(decoder, joined, tmp_path)
    assert info.clock_jumps == 1
    assert info.duration_s == pytest.approx(2.16, abs=0.2)


@pytest.mark.case(11)
@pytest.mark.parametrize(
    ("container", "codec", "start_s", "shown_s"),
    [("mov", "pcm_s16le", 2.0, 2.0), ("matroska", "pcm_s16le", 5000.0, 0.0), ("mpegts", "mp2", 70.0, 0.0)],
)
def test_sound_stands_where_a_player_shows_it(
    decoder: MediaDecoder, tmp_path: Path, container: str, codec: str, start_s: float, shown_s: float
) -> None:
    write_clip(tmp_path / "clip", container, codec, [start_s])
    with LocalFile(tmp_path / "clip") as source:
        probed = decoder.probe(source, "clip")
    info, samples = decode(decoder, tmp_path / "clip", tmp_path)
    assert probed.duration_s == pytest.approx(info.duration_s, abs=0.1)
    assert first_sound_s(samples) == pytest.approx(shown_s, abs=0.05)
    assert info.duration_s == pytest.approx(shown_s + 1.08, abs=0.1)


def zero_bytes(folder: Path) -> Path:
    (folder / "empty.mp4").write_bytes(b"")
    return folder / "empty.mp4"


def garbage(folder: Path) -> Path:
    (folder / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(100_000))
    return folder / "noise.mp4"


def text(folder: Path) -> Path:
    (folder / "notes.mp4").write_text("these are notes, not a video\n" * 50)
    return folder / "notes.mp4"


def playlist(folder: Path) -> Path:
    (folder / "list.mp4").write_bytes(clips.playlist(str(SAMPLES / "weather.mp4")))
    return folder / "list.mp4"


def concat_script(folder: Path) -> Path:
    (folder / "concat.mp4").write_bytes(clips.concat(str(SAMPLES / "weather.mp4")))
    return folder / "concat.mp4"


def session_description(folder: Path) -> Path:
    (folder / "session.mp4").write_bytes(clips.session())
    return folder / "session.mp4"


def no_moov(folder: Path) -> Path:
    return SAMPLES / "corrupt.mp4"


@pytest.mark.parametrize(("channels", "bits"), [(0, 16), (1024, 16), (65535, 16), (2, 0), (500, 16)])
def test_sound_that_makes_no_sense_is_no_silent_video(
    decoder: MediaDecoder, tmp_path: Path, channels: int, bits: int
) -> None:
    (tmp_path / "odd.wav").write_bytes(clips.wav(channels, bits))
    with pytest.raises(MediaError) as raised:
        decode(decoder, tmp_path / "odd.wav", tmp_path)
    assert raised.value.reason is Reason.UNDECODABLE_AUDIO


def test_a_full_disk_is_not_the_videos_fault(decoder: MediaDecoder) -> None:
    with (
        LocalFile(SAMPLES / "weather.mp4") as source,
        pytest.raises(AsrError, match=r"cannot write /dev/full .*No space left") as raised,
    ):
        decoder.extract(source, "weather.mp4", Path("/dev/full"))
    assert not isinstance(raised.value, MediaError)


@pytest.mark.case(12)
def test_a_clock_that_wraps_loses_no_sound(decoder: MediaDecoder, tmp_path: Path) -> None:
    """The clock of MPEG-TS has 33 bits at 90 kHz: 26.5 hours, and begins anew."""
    write_wav(tmp_path / "tone.wav", 4.0)
    wraps_s = 2**33 / 90_000
    with (
        av.open(str(tmp_path / "tone.wav")) as sound,
        av.open(str(tmp_path / "wrap.ts"), "w", options={"output_ts_offset": str(wraps_s - 2)}) as out,
    ):
        stream = out.add_stream("aac", rate=16_000)
        for frame in sound.decode(audio=0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    info, samples = decode(decoder, tmp_path / "wrap.ts", tmp_path)
    assert info.duration_s == pytest.approx(4.0, abs=0.2)
    assert np.abs(samples[: SAMPLE_RATE // 2].astype(int)).max() > 2000


@pytest.mark.parametrize(
    "make", [zero_bytes, garbage, text, playlist, concat_script, session_description, no_moov]
)
def test_what_is_not_media_is_refused_with_a_reason(
    decoder: MediaDecoder, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    with pytest.raises(MediaError, match=path.name) as refused:
        decode(decoder, path, tmp_path)
    assert refused.value.reason is Reason.UNREADABLE_MEDIA


def test_a_playlist_reaches_no_address(decoder: MediaDecoder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1.0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path = tmp_path / "remote.mp4"
        path.write_bytes(clips.playlist(address))
        with pytest.raises(MediaError):
            decode(decoder, path, tmp_path)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_video_without_sound_says_so(decoder: MediaDecoder, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as refused:
        decode(decoder, SAMPLES / "soundless.mp4", tmp_path)
    assert refused.value.reason is Reason.NO_AUDIO


class KillsItsReader(LocalFile):
    """A file whose bytes are the end of whoever decodes them."""

    def __init__(self, path: Path, decoder: MediaDecoder, how: signal.Signals) -> None:
        super().__init__(path)
        self._decoder, self._how = decoder, how

    def read_at(self, offset: int, length: int) -> bytes:
        assert self._decoder._child is not None
        os.kill(self._decoder._child.pid, self._how)
        return super().read_at(offset, length)


@pytest.mark.case(18)
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (signal.SIGSEGV, Reason.DECODER_DIED),
        (signal.SIGKILL, Reason.DECODER_DIED),
        (signal.SIGSTOP, Reason.DECODER_STALLED),
    ],
)
def test_a_decoder_that_dies_or_hangs_costs_one_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, reason: Reason
) -> None:
    with MediaDecoder() as decoder:
        decode(decoder, SAMPLES / "silent.mp4", tmp_path)  # so that it has started
        monkeypatch.setattr(media, "STALL_S", 1.0)
        bad = KillsItsReader(SAMPLES / "weather.mp4", decoder, how)
        with bad, pytest.raises(MediaError, match=r"bad\.mp4") as failed:
            decoder.extract(bad, "bad.mp4", tmp_path / "bad.flac")
        assert failed.value.reason is reason
        _, samples = decode(decoder, SAMPLES / "weather.mp4", tmp_path)
    assert samples.shape[-1] > 13 * SAMPLE_RATE


@pytest.mark.case(18)
def test_a_decoder_that_dies_between_two_videos_is_neithers_fault(tmp_path: Path) -> None:
    with MediaDecoder() as decoder:
        before, _ = decode(decoder, SAMPLES / "silent.mp4", tmp_path)
        assert decoder._child
        decoder._child.kill()
        os.waitid(os.P_PID, decoder._child.pid, os.WEXITED | os.WNOWAIT)
        assert decode(decoder, SAMPLES / "silent.mp4", tmp_path)[0] == before


@pytest.mark.case(41)
def test_the_child_gets_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    with MediaDecoder() as decoder:
        decode(decoder, SAMPLES / "weather.mp4", tmp_path)
        assert decoder._child is not None
        environment = Path(f"/proc/{decoder._child.pid}/environ").read_bytes()
    assert b"canary" not in environment


def test_an_hour_of_silence_claimed_by_four_kilobytes_is_bounded(
    decoder: MediaDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_AUDIO_S", 600.0)
    with wave.open(str(tmp_path / "slow.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1)
        file.writeframes(b"\0\0" * 2000)
    with pytest.raises(MediaError) as refused:
        decode(decoder, tmp_path / "slow.wav", tmp_path)
    assert refused.value.reason in (Reason.TOO_LONG, Reason.UNDECODABLE_AUDIO)
