"""A batch, a load and two losses on Kubernetes: all is real but the pods, which are processes here."""

import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest

from resources.store import Store
from tests.asr_assets import chart
from tests.asr_assets.cluster import Cluster, cluster
from tests.asr_assets.daemon import Dev, spoken, wait_for
from tests.asr_assets.test_dev import ends_of
from tests.conftest import ROOT, SAMPLES, Platform

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("dev")]

VIDEOS = ("school.mp4", "street.mkv")
SETTINGS = chart.PLATFORM["ConfigMap", "asr-settings"]["data"]


@pytest.fixture
def platform(platform: Platform, s3_env: dict[str, str]) -> Platform:
    """The settings of a deployment; its buckets."""
    client = boto3.client("s3")
    for bucket in ("videos-bucket", "words-bucket"):
        client.create_bucket(Bucket=bucket)
    platform.env |= (
        SETTINGS
        | s3_env
        | {
            "ASR_WAREHOUSE": str(platform.root / "warehouse" / "warehouse.duckdb"),
            "ASR_BATCH_WAIT_S": "0",
            "ASR_PUBLISH_EVERY_S": "0",
            "DAGSTER_HOME": str(platform.root / "home"),
            "DAGSTER_CURRENT_IMAGE": "registry.example.com/asr-platform:0.1.0",
        }
    )
    return platform


@pytest.fixture
def pods(platform: Platform, s3_env: dict[str, str]) -> Iterator[Cluster]:
    own = {name: platform.env[name] for name in platform.env if name.startswith("ASR_")}
    config = {"asr-settings": own, "asr-secrets": s3_env}
    with cluster(platform.root / "cluster", config, running=True) as ours:
        yield ours


@pytest.fixture
def dev(platform: Platform, pods: Cluster) -> Iterator[Dev]:
    """Daemon, code server and UI, as the chart configures them; impatient."""
    pytest.importorskip("pgserver")
    from benchmarks.postgres import server

    dagster = str(Path(sys.executable).with_name("dagster"))
    monitoring = {"enabled": True, "max_resume_run_attempts": 3, "poll_interval_seconds": 5}
    with server() as url:
        storage = {"postgres": {"postgres_url": url.replace("postgresql:", "postgresql+psycopg2:")}}
        home = platform.root / "home"
        chart.instance(home, pods.kubeconfig, run_monitoring=monitoring, storage=storage).dispose()
        dev = Dev(platform, [dagster, "dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1"])
        try:
            wait_for(dev.up, 90)
            yield dev
        finally:
            dev.end(signal.SIGTERM)


def test_a_batch_ends_in_words_though_the_nodes_of_its_run_and_of_its_step_go_away(
    platform: Platform, pods: Cluster, dev: Dev
) -> None:
    for name in VIDEOS:
        boto3.client("s3").upload_file(str(SAMPLES / name), "videos-bucket", name)
    store = Store(url="s3://words-bucket/platform")
    steps = partial(pods.of, "step_worker", "transcripts__pocketsphinx_fast")
    runs = partial(pods.of, "run_worker", job="process_batch")
    wait_for(lambda: steps() and any(True for _ in store.list("unfinished")), 180)

    pods.stop(steps()[0])  # or it is done before anything can happen to it
    pods.lose(runs()[0])
    wait_for(lambda: len(runs()) == 2 and "Checking on status of in-progress" in pods.said(runs()[1]), 60)
    assert len(steps()) == 1
    pods.lose(steps()[0])
    for name in VIDEOS:
        wait_for(partial(spoken, platform, name, "pocketsphinx_fast"), 240)
    assert len(steps()) == 2
    assert ends_of(dev) == {"SUCCESS"}
    assert platform.sql("SELECT count(*) FROM attempts JOIN videos USING (video_id)") == ["2"]
    # No process here is of asr dev's: nobody holds its lock, or makes one.
    assert not list(Path(platform.env["DAGSTER_HOME"]).glob("*.lock"))
