"""What a decoder may take of memory and time, and what ends with it."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speech import confined, media
from speech.errors import AsrError, MediaError, Reason
from speech.media import LocalFile, MediaDecoder, flac_pieces
from speech.types import SAMPLE_RATE
from tests.faults import clips
from tests.faults.clips import WHOLE, clip, wav

PEAK_MB = 400
"""What a decoder may take of memory, however much sound comes out of what it is given."""
INDEX_MB = 1280
"""And whatever an index claims."""
UNREADABLE, UNDECODABLE = Reason.UNREADABLE_MEDIA, Reason.UNDECODABLE_AUDIO


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as decoder:
        yield decoder


def peak_mb(decoder: MediaDecoder) -> float:
    assert decoder._child
    status = Path(f"/proc/{decoder._child.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.case(6, 7)
@pytest.mark.parametrize("name", ["1_hz", "flac_bomb", "channels_500", "channels_65535"])
def test_memory_is_bounded(
    decoder: MediaDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(media, "MAX_AUDIO_S", 1800.0)
    path = tmp_path / "x.wav"
    if name == "flac_bomb":
        path = clips.silence_bomb(tmp_path, hours=1.0)
        assert path.stat().st_size < 2_000_000
    elif name == "1_hz":
        path.write_bytes(wav(rate=1, sound=bytes(4096)))
    else:
        path.write_bytes(wav(channels=int(name.rpartition("_")[2]), sound=bytes(4_000_000)))
    with LocalFile(path) as source, pytest.raises(MediaError) as raised:
        decoder.extract(source, path.name, tmp_path / "audio.flac")
    assert raised.value.reason is (Reason.TOO_LONG if "channels" not in name else UNDECODABLE)
    assert peak_mb(decoder) < PEAK_MB


@pytest.mark.case(6)
@pytest.mark.parametrize(
    ("sound", "picture", "reason"),
    [(80_000_000, 0, UNDECODABLE), (187, 80_000_000, None)],
)
def test_an_index_of_more_than_there_is_takes_no_more_than_a_decoder_may(
    decoder: MediaDecoder, tmp_path: Path, sound: int, picture: int, reason: Reason | None
) -> None:
    (tmp_path / "x.mp4").write_bytes(clips.indexed(sound, picture, there=187))
    ended = None
    with LocalFile(tmp_path / "x.mp4") as source:
        try:
            decoder.extract(source, "x.mp4", tmp_path / "audio.flac")
        except MediaError as error:
            ended = error.reason
        decoder.probe(source, "x.mp4")
    assert ended is reason
    assert peak_mb(decoder) < INDEX_MB


@pytest.mark.case(14)
def test_the_index_of_a_day_fits(
    decoder: MediaDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound at 48 kHz and a picture at 60 Hz; that it goes on for hours is seen by its first minutes."""
    sound, picture = 24 * 3600 * 48_000 // 1024, 24 * 3600 * 60
    (tmp_path / "day.mp4").write_bytes(clips.indexed(sound, picture, there=sound))
    monkeypatch.setattr(media, "MAX_AUDIO_S", 600.0)
    with LocalFile(tmp_path / "day.mp4") as source:
        assert decoder.probe(source, "day.mp4").video_codec == "mpeg4"
        with pytest.raises(MediaError) as raised:
            decoder.extract(source, "day.mp4", tmp_path / "audio.flac")
    assert raised.value.reason is Reason.TOO_LONG
    assert peak_mb(decoder) < INDEX_MB / 2  # its address space has to fit, too


class ADay:
    """A WAV of 24 hours that nobody stores: silence, and a tone in its last minute."""

    HOURS, RATE = 24, 8000

    def __init__(self) -> None:
        self._length = self.HOURS * 3600 * self.RATE
        self._head = wav(bits=8, rate=self.RATE, sound=b"")[:-4] + self._length.to_bytes(4, "little")
        self.size = len(self._head) + self._length
        minute = np.sin(np.arange(60 * self.RATE) * 2 * np.pi * 440 / self.RATE)
        self._tone = (128 + 60 * minute).astype(np.uint8).tobytes()

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        data = bytearray(b"\x80" * length)
        for begin, part in ((0, self._head), (self.size - len(self._tone), self._tone)):
            first, last = max(begin, offset), min(begin + len(part), offset + length)
            if first < last:
                data[first - offset : last - offset] = part[first - begin : last - begin]
        return bytes(data)


@pytest.mark.case(14)
@pytest.mark.long
def test_a_day_of_sound_takes_no_more_memory(decoder: MediaDecoder, tmp_path: Path) -> None:
    """That words of a long recording are resumed where a killed run was is shown in test_recovery."""
    info = decoder.extract(ADay(), "day.wav", tmp_path / "audio.flac")
    assert info.duration_s == pytest.approx(24 * 3600, abs=0.01)
    assert not info.cut_short
    assert peak_mb(decoder) < PEAK_MB
    before_mb, read, heard = peak_mb_here(), 0, 0
    for piece in flac_pieces(tmp_path / "audio.flac"):
        if not heard and np.abs(piece).max() > 1000:
            heard = read
        read += len(piece)
    assert heard / SAMPLE_RATE == pytest.approx(24 * 3600 - 60, abs=1)
    assert peak_mb_here() - before_mb < 500  # all of it at once is 2.6 GB


def peak_mb_here() -> float:
    """The most that this process has taken, whatever it was for."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.case(18)
def test_a_decoder_out_of_memory_costs_one_video(tmp_path: Path) -> None:
    """With next to none left it dies, with some more it says so; it is replaced either way."""
    (tmp_path / "good.wav").write_bytes(WHOLE["wav"]())
    (tmp_path / "bad.mkv").write_bytes(clip("matroska", "aac", rate=96_000, tracks=(True,) * 60))
    ends = set()
    for spare_mb in range(0, 64, 4):
        with (
            MediaDecoder() as decoder,
            LocalFile(tmp_path / "good.wav") as good,
            LocalFile(tmp_path / "bad.mkv") as bad,
        ):
            decoder.extract(good, "good.wav", tmp_path / "audio.flac")
            assert decoder._child
            first = decoder._child.pid
            pages = int(Path(f"/proc/{first}/statm").read_text().split()[0])
            little = pages * os.sysconf("SC_PAGE_SIZE") + (spare_mb << 20)
            resource.prlimit(first, resource.RLIMIT_AS, (little, little))
            try:
                decoder.extract(bad, "bad.mkv", tmp_path / "audio.flac")
            except MediaError as error:
                ends.add(error.reason)
            else:
                break  # that was enough for it
            assert decoder.extract(good, "good.wav", tmp_path / "audio.flac").duration_s == 4.0
            assert resource.prlimit(decoder._child.pid, resource.RLIMIT_AS)[0] == confined.MEMORY_BYTES
            assert resource.prlimit(decoder._child.pid, resource.RLIMIT_NOFILE)[0] == confined.OPEN_FILES
    assert {Reason.DECODER_DIED} < ends <= {Reason.DECODER_DIED, UNREADABLE, UNDECODABLE}


@pytest.mark.case(18)
def test_a_decoder_is_what_ends_first_where_memory_runs_out(decoder: MediaDecoder, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav())
    with LocalFile(tmp_path / "x.wav") as source:
        decoder.probe(source, "x.wav")
    assert decoder._child
    assert Path(f"/proc/{decoder._child.pid}/oom_score_adj").read_text() == "1000\n"
    assert resource.prlimit(decoder._child.pid, resource.RLIMIT_NPROC) == (0, 0)  # root may fork nevertheless


TALKS = "import os, subprocess, sys, time; from multiprocessing.connection import Connection\n"
TALKS += "fd = int(sys.argv[1]); c = Connection(fd)\n"


def ends(pid: int, within_s: float = 30.0) -> bool:
    """Whether a process is dead by then, buried or not."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.case(18)
def test_what_a_decoder_has_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = "c.send_bytes(b'W%d' % subprocess.Popen(['sleep', '60']).pid); c.recv_bytes(); c.recv_bytes()"
    monkeypatch.setattr(media, "CHILD", ("-c", TALKS + starts))
    (tmp_path / "x.wav").write_bytes(wav())
    with (
        MediaDecoder() as decoder,
        LocalFile(tmp_path / "x.wav") as source,
        pytest.raises(AsrError) as raised,
    ):
        decoder.probe(source, "x.wav")
    assert ends(int(str(raised.value).removeprefix("x.wav: ")))


@pytest.mark.case(19)
@pytest.mark.parametrize(
    "spins",
    [
        "while True: c.send_bytes(b'P'); c.poll(0.01)",
        "while True: c.send_bytes(b'R' + bytes(12)); c.recv_bytes()",
        # A long message, a byte at a time.
        "os.write(fd, (500_000).to_bytes(4))\nwhile True: os.write(fd, b'P'); time.sleep(0.1)",
    ],
    ids=["says that it lives", "reads the same", "dribbles"],
)
def test_a_decoder_that_spins_is_ended_however_busy_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spins: str
) -> None:
    monkeypatch.setattr(media, "CHILD", ("-c", f"{TALKS}c.recv_bytes()\n{spins}"))
    monkeypatch.setattr(media, "JOB_BASE_S", 1.0)
    (tmp_path / "x.wav").write_bytes(wav())
    with MediaDecoder() as decoder, LocalFile(tmp_path / "x.wav") as source:
        began = time.monotonic()
        with pytest.raises(MediaError) as raised:
            decoder.extract(source, "x.wav", tmp_path / "audio.flac")
    assert raised.value.reason is Reason.DECODER_STALLED
    assert time.monotonic() - began < 20


@pytest.mark.case(19)
def test_a_decoder_that_spins_while_a_source_is_slow_is_ended(
    decoder: MediaDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spins = "c.send_bytes(b'R' + bytes(12))\nwhile True: pass"
    monkeypatch.setattr(media, "CHILD", ("-c", TALKS + spins))
    monkeypatch.setattr(media, "JOB_BASE_S", 1.0)
    (tmp_path / "x.wav").write_bytes(wav())
    with LocalFile(tmp_path / "x.wav") as source:
        monkeypatch.setattr(
            source, "read_at", lambda *_: decoder._child and ends(decoder._child.pid) and b"late"
        )
        with pytest.raises(MediaError, match=f"exit status -{signal.SIGXCPU:d}") as raised:
            decoder.probe(source, "x.wav")
    assert raised.value.reason is Reason.DECODER_DIED
