"""Who hangs: a bucket, a run; a worker is in tests/speech/test_listening.py, a decoder in test_media.py."""

import logging
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRunStatus

from asr_assets.definitions import build
from asr_assets.running import INSTANCE_CONFIG
from resources.aws import S3
from resources.observations import Video
from resources.settings import Settings
from resources.source import Source
from sensors.batches import PARTITION_TAG, PROCESS_BATCH
from sensors.offering import to_retry
from speech.errors import SourceUnavailable

pytestmark = pytest.mark.xdist_group("machine")


@pytest.mark.case(38)
def test_a_bucket_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.aws.ANSWER_S", 0.3)
    now = datetime.now(UTC)
    video = Video(source="s3://b", key="a.mp4", version="1", size_bytes=9, modified_at=now)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        s3 = S3(
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            max_attempts=2,
        )
        source = Source(url="s3://b", s3=s3)
        for ask in (lambda: list(source.look()), lambda: source.open(video).__enter__()):
            began = time.monotonic()
            with pytest.raises(SourceUnavailable):
                ask()
            assert time.monotonic() - began < 15


@pytest.mark.case(38)
@pytest.mark.parametrize("tagged", [True, False], ids=["a job of ours", "one that the UI made up"])
def test_a_run_that_never_ends_is_ended_and_its_batch_tried_again(
    tagged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hung where nothing of ours watches: in a read of a mount that is dead."""
    from dagster._daemon.monitoring.run_monitoring import check_run_timeout

    monkeypatch.setenv("ASR_MAX_RUN_S", "1")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    config = INSTANCE_CONFIG.read_text()
    if not tagged:
        assert "max_runtime_seconds: 86400" in config
        config = config.replace("max_runtime_seconds: 86400", "max_runtime_seconds: 1")
    (tmp_path / "dagster.yaml").write_text(config)
    job = build(Settings.from_env()).resolve_job_def(PROCESS_BATCH)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        tags = {PARTITION_TAG: "00000001"} | (dict(job.run_tags) if tagged else {})
        run_id = instance.create_run_for_job(job, tags=tags).run_id
        started = DagsterEvent(DagsterEventType.PIPELINE_START.value, job.name)
        instance.report_dagster_event(started, run_id)
        assert run_of(instance, run_id).dagster_run.status is DagsterRunStatus.STARTED

        def look() -> None:
            default = float(instance.run_monitoring_max_runtime_seconds)
            check_run_timeout(instance, run_of(instance, run_id), logging.getLogger(), default)

        look()
        assert not list(to_retry(instance, datetime.now(UTC)))
        time.sleep(1.1)
        look()
        assert run_of(instance, run_id).dagster_run.status is DagsterRunStatus.FAILURE
        assert [asked.partition_key for asked in to_retry(instance, datetime.now(UTC))] == ["00000001"]


def run_of(instance: DagsterInstance, run_id: str) -> Any:
    return instance.get_run_record_by_id(run_id)
