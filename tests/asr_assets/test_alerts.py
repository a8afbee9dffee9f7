"""Under a real daemon: a batch that fails for good, and words that are late, are told to a hook."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetMaterialization, DagsterInstance

from tests.asr_assets.daemon import Dev, wait_for
from tests.asr_assets.test_metrics import received
from tests.conftest import FAST_MODEL, Platform
from tests.listener import Listener, listening

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("dev")]

CHECKS = """
{ assetNodes(assetKeys: [{path: ["word_timings"]}]) {
    assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
      evaluation { success severity description } } } } } } }
"""
FRESHNESS = "{ assetNodes { assetKey { path } freshnessStatusInfo { freshnessStatus } } }"


FRESHNESS = """
{ assetNodes(assetKeys: [{path: ["reconciliation"]}]) { freshnessStatusInfo { freshnessStatus } } }
"""


@pytest.fixture
def hook() -> Iterator[Listener]:
    with listening(*[503] * 3) as hook:  # the first tick that has something to tell is refused
        yield hook


@pytest.fixture
def collector() -> Iterator[Listener]:
    with listening() as collector:
        yield collector


@pytest.fixture
def platform(tmp_path: Path, hook: Listener, collector: Listener) -> Platform:
    models = tmp_path / "models.toml"
    models.write_text(FAST_MODEL)
    return Platform(
        tmp_path,
        {
            "ASR_MODELS": str(models),
            "ASR_ALERT_URL": f"{hook.url}/T0/very-secret",
            "ASR_WORDS_WITHIN_S": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        },
    )


def told(hook: Listener) -> dict[tuple[str, str], Any]:
    """The messages, by what they are about: each comes once."""
    messages = [json.loads(body) for _, body in list(hook.taken)]
    about = {(m["state"], m["job"] or m["check"]): m for m in messages}
    assert len(about) == len(messages), messages
    return about


def test_a_batch_that_fails_for_good_is_told_once_and_that_it_is_over(
    platform: Platform, hook: Listener, collector: Listener
) -> None:
    platform.add("weather.mp4")
    audio = platform.root / "data" / "audio"
    audio.parent.mkdir()
    audio.write_text("a file where the store wants a folder")
    for _ in range(3):
        assert platform.asr("run").returncode == 1
    with DagsterInstance.from_config(str(platform.root / "data" / "dagster")) as instance:
        instance.report_runless_asset_event(AssetMaterialization("reconciliation"))
    late = "words_on_time of word_timings"
    dev = Dev(platform)
    try:
        wait_for(dev.up, 90)
        wait_for(lambda: {("failed", "process_batch"), ("failed", late)} <= set(told(hook)), 120)
        failed = told(hook)["failed", "process_batch"]
        assert failed["batches"] == ["00000001"]
        assert "audio/" in failed["sentence"]
        (node,) = dev.ask(CHECKS)["assetNodes"]
        (check,) = [c for c in node["assetChecksOrError"]["checks"] if c["name"] == "words_on_time"]
        assert check["executionForLatestMaterialization"]["evaluation"]["success"] is False

        audio.unlink()
        platform.must("run")
        wait_for(lambda: {("over", "process_batch"), ("over", late)} <= set(told(hook)), 120)
        assert len(told(hook)) == 4

        (node,) = dev.ask(FRESHNESS)["assetNodes"]
        assert node["freshnessStatusInfo"]["freshnessStatus"] == "HEALTHY"
        # Not mounted, say: nobody answers, and that is a figure, too.
        wait_for(lambda: received(collector).get("asr.source.refusals") == {("new_videos",): 0}, 90)
        platform.videos.rename(platform.root / "elsewhere")
        wait_for(lambda: received(collector)["asr.source.refusals"]["new_videos",] >= 1, 120)
    finally:
        dev.end(signal.SIGTERM)
    assert hook.asked == 3 + 4
    assert "weather" not in str(hook.taken)
    home = platform.root / "data" / "dagster"
    kept = [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert not any(b"very-secret" in data for data in [*kept, dev.said().encode()])
