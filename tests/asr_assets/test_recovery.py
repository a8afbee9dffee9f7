"""Killed at any moment, started again: the same tables, nothing lost, nothing twice."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FAST_MODEL, Platform

VIDEOS = ("delayed_audio.mp4", "station.webm", "silent.mp4", "corrupt.mp4")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One source for all: a video's id is part of the tables, and the source is part of its id."""
    origin = Platform(tmp_path_factory.mktemp("source"))
    origin.add(*VIDEOS)
    (origin.root / "models.toml").write_text(FAST_MODEL)
    return origin.root


def platform_on(source: Path, root: Path) -> Platform:
    return Platform(
        root, {"ASR_SOURCE_URL": str(source / "videos"), "ASR_MODELS": str(source / "models.toml")}
    )


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    platform = platform_on(source, tmp_path_factory.mktemp("undisturbed"))
    platform.must("run", "--workers", "1")
    return platform


def kill_when(platform: Platform, pattern: str) -> bool:
    """Start asr run and SIGKILL it and its children when a file appears; False when it was too quick."""
    running = subprocess.Popen(
        platform.command("run", "--workers", "1"),
        env=platform.environment,
        cwd=platform.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        if any((platform.root / "data").glob(pattern)):
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            return True
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL) if running.poll() is None else None
    return False


@pytest.mark.case(29)
@pytest.mark.long
@pytest.mark.parametrize(
    "moment",
    [
        "ingest/*.json",
        "probed/*.json",
        "audio/*.flac",
        "extracted/*.json",
        "unfinished/*/*/*/videos/*.json",
        "attempts/*/*/*.json",
        # The object is there, and Dagster has not been told of it.
        pytest.param("transcripts/*/*.parquet", marks=pytest.mark.case(30)),
        "warehouse.duckdb",
        "snapshots/*.duckdb",
    ],
)
def test_killed_and_started_again_gives_the_same_tables(
    source: Path, undisturbed: Platform, tmp_path: Path, moment: str
) -> None:
    platform = platform_on(source, tmp_path)
    assert kill_when(platform, moment)
    platform.must("run", "--workers", "1")
    assert platform.tables() == undisturbed.tables()
    assert published(platform) == published(undisturbed)
    assert not list((platform.root / "data" / "unfinished").rglob("*.json"))
    assert platform.sql("SELECT count(*) FROM observations") == [str(len(VIDEOS))]


def published(platform: Platform) -> dict[str, bytes]:
    folder = platform.root / "data" / "transcripts"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_a_lost_warehouse_is_built_again_from_the_store(undisturbed: Platform) -> None:
    before = undisturbed.tables()
    data = undisturbed.root / "data"
    (data / "warehouse.duckdb").unlink()
    undisturbed.must("run")
    assert undisturbed.tables() == before


def change_beam(text: str) -> str:
    return text.replace("maxhmmpf = 3000", "maxhmmpf = 1000")


def add_model(text: str) -> str:
    return text + '\n[second]\nengine = "pocketsphinx"\noptions = { fwdflat = false, ds = 3 }\n'


@pytest.mark.parametrize(
    ("change", "models"), [(change_beam, ["pocketsphinx_fast"]), (add_model, ["pocketsphinx_fast", "second"])]
)
def test_a_changed_or_added_model_fills_itself(
    platform: Platform, change: Callable[[str], str], models: list[str]
) -> None:
    platform.add("delayed_audio.mp4")
    platform.must("run")
    before = platform.sql("SELECT DISTINCT model_fingerprint FROM transcripts")
    toml = Path(platform.env["ASR_MODELS"])
    toml.write_text(change(toml.read_text()))
    platform.must("run")
    assert platform.sql("SELECT DISTINCT model_version FROM words ORDER BY ALL") == models
    assert platform.sql("SELECT DISTINCT model_fingerprint FROM transcripts") != before
    assert platform.sql("SELECT count(*) FROM transcripts") == [str(len(models))]


def test_a_changed_video_supersedes_and_going_back_restores(platform: Platform) -> None:
    spoken = "SELECT DISTINCT video_id FROM words_current"
    video = platform.videos / "talk.mp4"
    platform.add("delayed_audio.mp4", "weather.mp4")
    old, new = (platform.videos / name for name in ("delayed_audio.mp4", "weather.mp4"))
    old.rename(video)
    kept = platform.root / "kept.mp4"
    new.rename(kept)

    platform.must("run")
    first = platform.sql(spoken)
    video.rename(platform.root / "old.mp4")
    kept.rename(video)
    platform.must("run")
    second = platform.sql(spoken)
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    assert platform.sql("SELECT count(*) FROM videos") == ["2"]

    (platform.root / "old.mp4").rename(video)
    platform.must("run")
    assert platform.sql(spoken) == first
    assert platform.sql("SELECT count(*) FROM videos") == ["2"]


def test_one_model_that_fails_does_not_hold_up_another(platform: Platform) -> None:
    platform.add("delayed_audio.mp4")
    toml = Path(platform.env["ASR_MODELS"])
    good = toml.read_text()
    toml.write_text(good + '\n[broken]\nengine = "pocketsphinx"\noptions = { no_such_option = 1 }\n')
    done = platform.asr("run")
    assert done.returncode == 1
    assert "model broken: pocketsphinx refuses its options" in done.stderr
    assert "Traceback" not in done.stderr
    assert platform.sql("SELECT model_version, status FROM transcripts") == ["pocketsphinx_fast,ok"]
    assert int(platform.sql("SELECT count(*) FROM words_current")[0]) > 15


def test_two_at_once_on_a_new_store_do_the_work_once(platform: Platform) -> None:
    platform.add("delayed_audio.mp4")
    both = [
        subprocess.Popen(
            platform.command("run"),
            env=platform.environment,
            cwd=platform.root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=120)[1] for run in both]
    assert sorted(run.returncode for run in both) == [0, 1]
    assert any("another asr run is at work" in words for words in said)
    assert not any("Traceback" in words for words in said)
    assert platform.sql("SELECT count(*) FROM transcripts") == ["1"]


def test_interrupted_it_says_so_and_goes_on_the_next_time(platform: Platform) -> None:
    platform.add("station.webm", "library.mp4", "street.mkv")
    running = subprocess.Popen(
        platform.command("run", "--workers", "1"),
        env=platform.environment,
        cwd=platform.root,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any((platform.root / "data" / "audio").glob("*.flac")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    platform.must("run")
    assert platform.sql("SELECT status, count(*) FROM transcripts GROUP BY ALL") == ["ok,3"]


def test_a_video_that_is_gone_keeps_its_outcome_when_a_model_is_added(platform: Platform) -> None:
    platform.add("soundless.mp4", "delayed_audio.mp4")
    platform.must("run")
    outcome = "SELECT video_key, v.status, v.reason, container FROM videos v ORDER BY ALL"
    before = platform.sql(outcome)
    for video in platform.videos.iterdir():
        video.unlink()
    (platform.videos / "gone.txt").write_text(
        "A folder without anything in it is taken for one that is not mounted."
    )
    toml = Path(platform.env["ASR_MODELS"])
    toml.write_text(add_model(toml.read_text()))
    platform.must("run")
    assert platform.sql(outcome) == before
    assert platform.sql("SELECT status, count(*) FROM transcripts GROUP BY ALL ORDER BY ALL") == [
        "empty,2",
        "ok,2",
    ]
