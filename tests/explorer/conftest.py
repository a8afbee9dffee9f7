"""The explorer over a few words: real videos in a folder, two model versions, names made to do harm."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from resources import layout
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.published import ExtractedBatch, ExtractedVideo, Status
from resources.source_local import LocalFolder
from resources.store import Store
from resources.warehouse import Warehouse
from speech.media import AudioInfo, LocalFile, MediaDecoder, MediaInfo
from tests.conftest import SAMPLES, Platform
from tests.resources.published import load, publish, spoken

HOSTILE = "<img src=x onerror=document.title='harm'>\"';--.mp4"
HARM = "<script>document.title='harm'</script>"
HEARD: dict[str, tuple[str | None, str | None]] = {
    "talk.mp4": (
        "the library is open every day | from nine in the morning",
        "the library was open every day | from nine in morning light",
    ),
    HOSTILE: (f"{HARM} is not a word", "is not a word"),
    "broken.mp4": (None, None),
    "long.mp4": ("ho " * 1000, "ho " * 1000),
}


@dataclass(frozen=True)
class Explored:
    """What is shown, by which address, and whose videos these are by key."""

    platform: Platform
    store: Store
    videos: dict[str, Video]
    batch: str
    url: str = ""

    def id(self, key: str) -> str:
        return self.videos[key].video_id


@pytest.fixture
def published(tmp_path: Path) -> Explored:
    """Videos taken in, heard by m (champion) and n, and loaded."""
    return published_in(tmp_path)


def published_in(tmp_path: Path) -> Explored:
    platform = Platform(tmp_path)
    for key in HEARD:
        shutil.copy2(SAMPLES / "library.mp4", platform.videos / key)
    store = Store(url=f"file://{tmp_path / 'data'}")
    videos = {video.key: video for video in LocalFolder(platform.videos).list()}
    entry = IngestLog(store).append(list(videos.values()))
    assert entry
    assert entry.batch
    sound = MediaInfo("mp4", 14.8, "h264", "aac", 1, 0, 0.0, 16_000, 1)
    extracted = tuple(
        ExtractedVideo(video=video, status=Status.OK, media=sound, audio=AudioInfo(14.8, 0, 0))
        for video in videos.values()
    )
    done = ExtractedBatch(batch=entry.batch, videos=extracted)
    store.put(layout.extracted(entry.batch), done.model_dump_json().encode())
    for n, model in enumerate("mn"):
        heard = {
            videos[key].video_id: spoken(said, 14.8) if (said := both[n]) else None
            for key, both in HEARD.items()
        }
        publish(store, entry.batch, heard, model)
    with MediaDecoder() as decoder, LocalFile(SAMPLES / "library.mp4") as source:
        decoder.extract(source, "library.mp4", tmp_path / "audio.flac")
    store.put(layout.audio(videos["talk.mp4"].video_id), tmp_path / "audio.flac")
    load(Warehouse(path=str(tmp_path / "data" / "warehouse.duckdb")), store)
    return Explored(platform, store, videos, entry.batch)


@contextmanager
def exploring(platform: Platform, *options: str) -> Iterator[str]:
    """A real server; the address that it prints."""
    command = [*platform.command("explore", "--port", "0"), *options]
    with subprocess.Popen(
        command, env=platform.environment, cwd=platform.root, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr
        try:
            said = server.stderr.readline()
            assert "http://" in said, said + server.stderr.read()
            yield said.split()[-1].rstrip("/")
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture
def explored(published: Explored) -> Iterator[Explored]:
    """The same, served."""
    with exploring(published.platform) as url:
        yield replace(published, url=url)


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """The same, once for all who only read."""
    published = published_in(tmp_path_factory.mktemp("explored"))
    with exploring(published.platform) as url:
        yield replace(published, url=url)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium, installed where it is not there."""
    if not shutil.which("chromium"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, check=True, timeout=600, stdout=sys.stderr)
    found = shutil.which("chromium")
    assert found
    return found
