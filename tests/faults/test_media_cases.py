"""Hostile and broken media: each costs itself alone, ends as it is written here, and reaches nothing."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from speech import media
from speech.errors import MediaError, Reason
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.types import SAMPLE_RATE
from tests.conftest import FAST_MODEL, Platform
from tests.faults import clips
from tests.faults.clips import WHOLE, clip, cut, damaged, wav

UNREADABLE, UNDECODABLE = Reason.UNREADABLE_MEDIA, Reason.UNDECODABLE_AUDIO
SILENT = Reason.NO_SPEECH


class Ends(NamedTuple):
    """How a video ends: its reason, whether its end was missed, and in which bounds its lost share lies."""

    reason: Reason | None
    cut_short: bool | None = None
    lost: tuple[float, float] | None = None


REFUSED = Ends(UNREADABLE)
GUESS = Ends(UNDECODABLE)
WHOLE_AND_SILENT = Ends(SILENT, cut_short=False, lost=(0.0, 0.01))

TABLE: dict[str, tuple[int, Callable[[], bytes], Ends]] = {
    "empty.mp4": (1, lambda: b"", REFUSED),
    "garbage.mp4": (1, lambda: clips.noise(100_000), REFUSED),
    "no_moov.mp4": (1, lambda: cut(clip("mp4", "aac"), 0.8), REFUSED),
    **{
        f"cut_at_{share:.0%}.{suffix}": (2, lambda make=make, share=share: cut(make(), share), ends)  # type: ignore[misc]
        for suffix, make in WHOLE.items()
        for share, ends in (
            (0.8, Ends(SILENT, cut_short=True)),
            # Where a header says what is missing, the rest is a guess; else it is flagged.
            (0.4, Ends(SILENT, cut_short=True) if suffix in {"ts", "wav", "avi", "mp3", "ogg"} else GUESS),
        )
        if (suffix, share) not in {("flv", 0.8), ("flac", 0.8)}  # less than a second is missing there
    },
    **{f"whole.{suffix}": (2, make, WHOLE_AND_SILENT) for suffix, make in WHOLE.items()},
    "remote.mp4": (3, lambda: clips.playlist("http://169.254.169.254/latest/meta-data/"), REFUSED),
    "sibling.mp4": (4, lambda: clips.playlist("whole.ts"), REFUSED),
    "absolute.mp4": (4, lambda: clips.playlist("/etc/passwd"), REFUSED),
    "script.mp4": (4, lambda: clips.concat("whole.ts"), REFUSED),
    "session.mp4": (5, clips.session, REFUSED),
    "1_hz.wav": (6, lambda: wav(rate=1, sound=bytes(2000)), WHOLE_AND_SILENT),
    "channels_0.wav": (7, lambda: wav(channels=0), GUESS),
    "channels_500.wav": (7, lambda: wav(channels=500), GUESS),
    "channels_65535.wav": (7, lambda: wav(channels=65_535), GUESS),
    "another_rate.ts": (
        8,
        lambda: clip("mpegts", "mp2", rate=44_100) + clip("mpegts", "mp2", starts_s=4.03),
        WHOLE_AND_SILENT,
    ),
    "another_layout.ts": (
        8,
        lambda: clip("mpegts", "mp2") + clip("mpegts", "mp2", channels=2, starts_s=4.03),
        WHOLE_AND_SILENT,
    ),
    "tracks.mkv": (10, lambda: clip("matroska", "aac", tracks=(False, True, False)), WHOLE_AND_SILENT),
    "some_lost.mp4": (15, lambda: damaged(WHOLE["mp4"](), 0.5, 0.6), Ends(SILENT, False, (0.05, 0.2))),
    "some_lost.ts": (15, lambda: damaged(WHOLE["ts"](), 0.5, 0.6), Ends(SILENT, False, (0.05, 0.2))),
    "some_lost.ogg": (15, lambda: damaged(WHOLE["ogg"](), 0.5, 0.6), Ends(SILENT, False, (0.05, 0.3))),
    **{
        f"most_lost.{suffix}": (15, lambda make=make: damaged(make(), 0.2, 0.9), GUESS)  # type: ignore[misc]
        for suffix, make in WHOLE.items()
        if suffix not in {"wav", "aiff", "mp3"}  # any bytes are samples; an MP3 has no place to miss them at
    },
    "encrypted.mp4": (16, clips.encrypted, GUESS),
    "title.mkv": (17, clips.latin1, WHOLE_AND_SILENT),
}


class Finished(NamedTuple):
    """A platform that is done with all of the table, what it wrote, and how long that took."""

    platform: Platform
    names: list[str]
    said: str
    seconds: float
    connections: int


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Finished:
    """All of the table in one batch, with a video that speaks and one that has no sound."""
    only = request.config.getoption("--cases")
    names = [name for name, (number, _, _) in TABLE.items() if only in (None, number)]
    platform = Platform(tmp_path_factory.mktemp("hostile"))
    (platform.root / "models.toml").write_text(FAST_MODEL)
    platform.env["ASR_MODELS"] = str(platform.root / "models.toml")
    platform.add("delayed_audio.mp4", "soundless.mp4")
    with listening() as (port, connections):
        for name in names:
            _, make, _ = TABLE[name]
            (platform.videos / name).write_bytes(make())
        (platform.videos / "local.mp4").write_bytes(clips.playlist(f"http://127.0.0.1:{port}/x.ts"))
        began = time.monotonic()
        done = platform.asr("run", "--workers", "1")
        assert done.returncode == 0, done.stderr
        return Finished(platform, names, done.stderr, time.monotonic() - began, len(connections))


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A server on a port of its own, and who came."""
    came: list[object] = []

    def accept() -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, who = server.accept()
                came.append(who)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], came


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        pytest.param(name, ends, id=name, marks=pytest.mark.case(number))
        for name, (number, _, ends) in TABLE.items()
    ],
)
def test_each_ends_as_it_should(finished: Finished, name: str, ends: Ends) -> None:
    (row,) = finished.platform.sql(
        "SELECT t.reason, cut_short, lost_share, t.words, message IS NOT NULL FROM videos_current AS v "
        f"JOIN transcripts AS t USING (video_id) WHERE video_key = '{name}'"
    )
    reason, cut_short, lost_share, words, explained = row.split(",")
    failed = ends.reason in {UNREADABLE, UNDECODABLE}
    assert (reason, words, explained) == (ends.reason or "", "0", str(failed))
    assert cut_short == ("" if ends.cut_short is None else str(ends.cut_short))
    if ends.lost:
        assert ends.lost[0] <= float(lost_share) <= ends.lost[1]


@pytest.mark.case(1, 9)
def test_the_rest_of_the_batch_goes_on(finished: Finished) -> None:
    count = "SELECT count(*) FROM transcripts"
    assert finished.platform.sql(count) == [str(len(finished.names) + 3)]
    assert finished.platform.sql("SELECT DISTINCT video_key FROM words_current") == ["delayed_audio.mp4"]
    outcome = "SELECT t.status, t.reason FROM transcripts t JOIN videos USING (video_id) WHERE video_key = "
    assert finished.platform.sql(f"{outcome} 'soundless.mp4'") == ["empty,no_audio"]
    assert not list(finished.platform.root.glob("data/retries/**/*.json")), "none of them is tried again"


@pytest.mark.case(2, 15)
def test_who_runs_it_is_told_how_many_end_early(finished: Finished) -> None:
    (count,) = finished.platform.sql(
        "SELECT count(*) FROM videos_current WHERE cut_short OR decode_errors > 0 OR lost_share > 0.01"
    )
    assert f"{count} videos end early or have lost sound" in finished.said


@pytest.mark.case(3)
def test_nobody_was_called(finished: Finished) -> None:
    assert finished.connections == 0
    reason = "SELECT reason FROM videos_current WHERE video_key = 'local.mp4'"
    assert finished.platform.sql(reason) == [UNREADABLE]


@pytest.mark.case(10)
def test_the_default_track_is_taken_and_recorded(finished: Finished) -> None:
    (row,) = finished.platform.sql(
        "SELECT audio_streams, audio_stream, speech_db > -20 FROM videos WHERE video_key = 'tracks.mkv'"
    )
    assert row == "3,1,True"


@pytest.mark.case(16)
def test_what_is_encrypted_is_called_so(finished: Finished) -> None:
    (message,) = finished.platform.sql("SELECT message FROM videos WHERE video_key = 'encrypted.mp4'")
    assert "is encrypted" in message


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as decoder:
        yield decoder


def refused(decoder: MediaDecoder, path: Path) -> MediaError:
    with LocalFile(path) as source, pytest.raises(MediaError) as raised:
        decoder.probe(source, path.name)
    return raised.value


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(("list.m3u8", clips.playlist), id="playlist", marks=pytest.mark.case(3, 4)),
        pytest.param(("list.mp4", clips.playlist), id="playlist named mp4", marks=pytest.mark.case(3, 4)),
        pytest.param(("script.ffconcat", clips.concat), id="script", marks=pytest.mark.case(4)),
    ],
)
def test_nothing_beside_a_playlist_is_read(
    decoder: MediaDecoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: tuple[str, Callable[[str], bytes]],
) -> None:
    """Under the names that FFmpeg believes, in the folder that a relative name leads from, too."""
    monkeypatch.chdir(tmp_path)
    name, leads_to = what
    os.mkfifo(tmp_path / "pipe.ts")  # who opens it to read is let in by somebody who opens it to write
    came: list[int] = []
    with listening() as (port, connections):
        for target in ("pipe.ts", str(tmp_path / "pipe.ts"), f"http://127.0.0.1:{port}/x.ts"):
            (tmp_path / name).write_bytes(leads_to(target))
            assert refused(decoder, tmp_path / name).reason is UNREADABLE
            with suppress(OSError):  # ENXIO: nobody reads
                came.append(os.open(tmp_path / "pipe.ts", os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.1)
    assert (came, connections) == ([], [])


@pytest.mark.case(3)
def test_the_decoder_is_out_of_the_network(decoder: MediaDecoder, tmp_path: Path) -> None:
    """Whatever it is made to do. Where the system lets nobody leave it, the allow-lists are all there is."""
    (tmp_path / "any.mp4").write_bytes(b"")
    refused(decoder, tmp_path / "any.mp4")
    assert decoder._child
    theirs = Path(f"/proc/{decoder._child.pid}/ns/net").readlink()
    if not may_leave_the_network():
        pytest.skip("this system lets no process leave its network")
    assert theirs != Path("/proc/self/ns/net").readlink()


def may_leave_the_network() -> bool:
    return subprocess.run(["unshare", "-rn", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.case(5)
def test_a_session_description_ends_at_once(decoder: MediaDecoder, tmp_path: Path) -> None:
    for name in ("session.mp4", "session.sdp"):
        (tmp_path / name).write_bytes(clips.session())
        began = time.monotonic()
        assert refused(decoder, tmp_path / name).reason is UNREADABLE
        assert time.monotonic() - began < media.STALL_S / 2


@pytest.mark.case(11, 13)
@pytest.mark.parametrize(
    ("make", "begins_s", "lasts_s"),
    [
        pytest.param(lambda: clips.edited(1.0), 1.0, 3.0, id="an edit list drops a second"),
        pytest.param(lambda: clip("mp4", "aac", starts_s=1.5), 1.5, 5.5, id="delayed"),
        pytest.param(
            # A player shows nothing of what lies before its first moment.
            lambda: clip("mp4", "aac", starts_s=-0.5, silent_s=1.0, avoid_negative_ts="disabled"),
            0.5,
            3.5,
            id="begins before 0",
        ),
        pytest.param(
            lambda: clip("matroska", "pcm_s16le", starts_s=-0.5, silent_s=1.0, avoid_negative_ts="disabled"),
            0.5,
            3.5,
            id="Matroska begins before 0",
        ),
        pytest.param(
            lambda: clip("matroska", "aac", silent_s=1.0, picture_s=(0, 0.04, 0.5, 0.52, 2.0, 3.9)),
            1.0,
            4.0,
            id="a picture that changes when it likes",
        ),
    ],
)
def test_sound_stands_on_the_videos_timeline(
    decoder: MediaDecoder, tmp_path: Path, make: Callable[[], bytes], begins_s: float, lasts_s: float
) -> None:
    (tmp_path / "x").write_bytes(make())
    with LocalFile(tmp_path / "x") as source:
        info = decoder.extract(source, "x", tmp_path / "audio.flac")
    sound = np.abs(read_flac(tmp_path / "audio.flac").astype(int))
    assert np.argmax(sound > 2000) / SAMPLE_RATE == pytest.approx(begins_s, abs=0.03)
    assert info.duration_s == pytest.approx(lasts_s, abs=0.06)
    assert not info.cut_short
    assert info.lost_share == pytest.approx(0.0, abs=0.01)
