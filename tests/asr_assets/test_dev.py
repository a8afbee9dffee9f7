"""make dev: from a video in a folder, from the UI, and after a kill, everything ends in words."""

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.store import Store
from tests.asr_assets.daemon import LOCATION, Dev, spoken, wait_for
from tests.conftest import Platform

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("dev")]


@pytest.fixture(params=["sqlite", "postgres"])
def platform(tmp_path: Path, request: pytest.FixtureRequest) -> Platform:
    """Both model versions of a clone."""
    platform = Platform(tmp_path)
    if request.param == "postgres":
        platform.keep_dagster_in(request.getfixturevalue("dagster_postgres"))
    return platform


@pytest.fixture
def dev(platform: Platform) -> Iterator[Dev]:
    dev = Dev(platform)
    try:
        wait_for(dev.up, 90)
        yield dev
    finally:
        dev.end(signal.SIGTERM)


LAUNCH = """
mutation (
  $job: String!, $assets: [AssetKeyInput!]!, $batch: String!, $location: String!, $repository: String!
) {
  launchRun(executionParams: {
    selector: {
      jobName: $job, assetSelection: $assets,
      repositoryLocationName: $location, repositoryName: $repository
    },
    executionMetadata: {tags: [{key: "dagster/partition", value: $batch}]}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
BACKFILL = """
mutation ($assets: [AssetKeyInput!]!, $batch: String!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: [$batch]}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
ADD_PARTITION = """
mutation ($selector: RepositorySelector!, $batch: String!) {
  addDynamicPartition(repositorySelector: $selector, partitionsDefName: "batch", partitionKey: $batch) {
    __typename
  }
}
"""


def test_a_video_put_in_the_folder_a_run_from_the_ui_and_a_backfill_all_end_in_words(
    platform: Platform, dev: Dev
) -> None:
    # A video copied into the watched folder: no further action.
    platform.add("weather.mp4")
    wait_for(lambda: spoken(platform, "weather.mp4", "pocketsphinx"), 120)

    # A batch that no sensor runs: only the champion's words, by a click on process_batch.
    dev.stop("new_videos", "new_batches")
    platform.add("school.mp4")
    batch = ingest(platform, "school.mp4")
    dev.ask(ADD_PARTITION, selector=LOCATION, batch=batch)
    assets = [["raw_videos"], ["extracted_audio"], ["transcripts", "pocketsphinx"]]
    launched = dev.ask(
        LAUNCH,
        job="process_batch",
        assets=[{"path": path} for path in assets],
        batch=batch,
        location=LOCATION["repositoryLocationName"],
        repository=LOCATION["repositoryName"],
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    wait_for(lambda: spoken(platform, "school.mp4", "pocketsphinx"), 180)
    assert spoken(platform, "school.mp4", "micro_whisper") == 0

    # The second model is filled by a backfill of its asset.
    micro = [{"path": ["transcripts", "micro_whisper"]}]
    backfill = dev.ask(BACKFILL, assets=micro, batch=batch)["launchPartitionBackfill"]
    assert backfill["__typename"] == "LaunchBackfillSuccess", backfill
    wait_for(lambda: spoken(platform, "school.mp4", "micro_whisper"), 240)


@pytest.mark.parametrize("killed", ["asr dev", "asr run"])
def test_killed_in_the_middle_the_daemon_goes_on_by_itself(platform: Platform, killed: str) -> None:
    platform.add("weather.mp4", "library.mp4", "street.mkv")
    unfinished = platform.root / "data" / "unfinished"
    if killed == "asr dev":
        dev = Dev(platform)
        try:
            wait_for(lambda: any(unfinished.rglob("*.json")), 120)
        finally:
            dev.end(signal.SIGKILL)
    else:
        running = subprocess.Popen(
            platform.command("run"), env=platform.environment, cwd=platform.root, start_new_session=True
        )
        try:
            wait_for(lambda: any(unfinished.rglob("*.json")), 120)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(60)
    again = Dev(platform)
    try:
        wait_for(again.up, 90)
        for video in ("weather.mp4", "library.mp4", "street.mkv"):
            wait_for(partial(spoken, platform, video, "micro_whisper"), 240)
        # Its words are there before the run is: the other model's may still be to come.
        wait_for(lambda: ends_of(again) == {"FAILURE", "SUCCESS"}, 120)
    finally:
        again.end(signal.SIGTERM)
    assert platform.sql("SELECT count(*) FROM videos") == ["3"]


def ends_of(dev: Dev) -> set[str]:
    runs = dev.ask("{ runsOrError { ... on Runs { results { jobName status } } } }")["runsOrError"]["results"]
    return {run["status"] for run in runs if run["jobName"] == "process_batch"}


def ingest(platform: Platform, name: str) -> str:
    """What the sensor would record."""
    stat = (platform.videos / name).stat()
    video = Video(
        source=f"file://{platform.videos}",
        key=name,
        version=f"{stat.st_size}-{stat.st_mtime_ns}",
        size_bytes=stat.st_size,
        modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
    )
    entry = IngestLog(Store(url=f"file://{platform.root / 'data'}")).append([video])
    assert entry is not None
    assert entry.batch is not None
    return entry.batch
