"""What sensors and runs meet: ticks that end early, daemons that die, cursors and runs that are gone."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    SensorResult,
    build_sensor_context,
)
from dagster._core.scheduler.instigation import TickStatus

from asr_assets.extracted_audio import extracted_audio
from asr_assets.raw_videos import raw_videos
from asr_assets.transcripts import transcripts_key
from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.retries import all_pending
from resources.source import Source
from resources.store import Store
from sensors.batches import Steps
from sensors.listing import look_on
from sensors.offering import offering_sensor
from sensors.reconciling import reconcile
from speech.errors import SourceUnavailable
from tests.conftest import SAMPLES, Platform
from tests.faults.bench import ALWAYS, AT_ONCE, MODEL, SILENT, SPOKEN, Bench, Bucket
from tests.faults.proxy import Fault, Trouble, proxy


@pytest.mark.case(25)
def test_of_many_objects_of_one_second_none_is_missed_however_ticks_fall(
    videos: Bucket, store: Store, s3_server: str, hurried: None
) -> None:
    from moto.s3.models import s3_backends

    (account,) = (name for name in s3_backends if videos.name in s3_backends[name]["aws"].buckets)
    backend: Any = s3_backends[account]["aws"]
    second = datetime(2026, 1, 1, tzinfo=UTC)

    def put(number: int) -> None:
        backend.put_object(videos.name, f"in/{number:05}.mp4", b"x").last_modified = second

    for number in range(100, 1300):
        put(number)
    breaks_off = Trouble(Fault.BUSY, "GET", "continuation-token", ALWAYS)
    with proxy(s3_server, breaks_off) as through:
        source, log = videos.source(through), IngestLog(store)
        with pytest.raises(SourceUnavailable):
            look_on(source, store, log, AT_ONCE)
        taken = sum(len(log.batch(batch).videos) for batch in log.batches)
        assert taken == 1000
        through.troubles.clear()
        put(50)  # where the look has been
        put(600)
        put(1300)
        for _ in range(2):  # to its end, and from its beginning
            look_on(source, store, log, AT_ONCE)
    keys = [video.key for batch in log.batches for video in log.batch(batch).videos]
    assert sorted(keys) == [f"in/{number:05}.mp4" for number in (50, *range(100, 1301))]
    assert log.doubled == []


@pytest.mark.case(27)
def test_a_batch_whose_run_failed_is_processed_by_the_next(
    videos: Bucket,
    store: Store,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    hurried: None,
) -> None:
    videos.put("in/talk.mp4", SPOKEN)
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), store, models, instance)
        (batch,) = bench.take_in()
        through.troubles.append(Trouble(Fault.EXPIRED, "GET", "talk.mp4", ALWAYS))
        assert not bench.process(batch).success
        assert bench.published() is None
        through.troubles.clear()
        assert bench.process(batch).success
    assert bench.ended(batch) == {"in/talk.mp4": "ok"}
    assert list(all_pending(store)) == []


@pytest.mark.case(28)
def test_without_cursors_and_runs_nothing_is_taken_in_twice_and_no_finished_batch_is_asked_for(
    videos: Bucket, store: Store, models: SpeechModels, instance: DagsterInstance, s3_server: str
) -> None:
    steps = Steps([raw_videos.key, extracted_audio.key], {MODEL: transcripts_key(MODEL)})
    videos.put("in/quiet.mp4", SILENT)
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), store, models, instance)
        (finished,) = bench.take_in()
        assert bench.process(finished).success
        videos.put("in/talk.mp4", SPOKEN)
        _, fresh = bench.take_in()
        with DagsterInstance.ephemeral() as purged:
            log = IngestLog(store)
            look_on(bench.source, store, log, AT_ONCE)
            resources = {"store": store, "speech_models": models}
            with build_sensor_context(purged, None, resources=resources) as context:
                asked = offering_sensor(steps, interval_s=10)(context)
    assert isinstance(asked, SensorResult)
    assert [request.partition_key for request in asked.run_requests or ()] == [fresh]
    assert asked.cursor == fresh
    assert (log.batches, log.doubled) == ([finished, fresh], [])


DAEMON = '''
"""One tick of Dagster's own sensor daemon, killed at a moment, if one is given."""

import logging
import os
import signal
import sys

from dagster import DagsterInstance
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

target = PythonFileTarget(sys.argv[1], attribute=None, working_directory=None, location_name="location.py")
flags = {"new_batches": {sys.argv[2]: signal.SIGKILL}} if len(sys.argv) > 2 else None
with DagsterInstance.get() as instance, create_test_daemon_workspace_context(target, instance) as workspace:
    list(execute_sensor_iteration(workspace, logging.getLogger(), None, None, debug_crash_flags=flags))
'''

LOCATION = """
import os

from dagster import Definitions, job, op

from resources.models import SpeechModels
from resources.store import Store
from sensors.batches import BATCHES, PROCESS_BATCH, Steps
from sensors.offering import offering_sensor


@op
def step():
    pass


@job(name=PROCESS_BATCH, partitions_def=BATCHES)
def process_batch():
    step()


defs = Definitions(
    jobs=[process_batch],
    sensors=[offering_sensor(Steps([], {}), interval_s=1)],
    resources={
        "store": Store(url=os.environ["ASR_STORE_URL"]),
        "speech_models": SpeechModels(path=os.environ["ASR_MODELS"]),
    },
)
"""


@pytest.mark.case(26)
@pytest.mark.long
@pytest.mark.parametrize("moment", ["RUN_CREATED", "RUN_LAUNCHED"])
def test_a_daemon_killed_before_its_cursor_is_saved_or_without_a_cursor_starts_no_run_twice(
    moment: str, platform: Platform
) -> None:
    platform.add("silent.mp4")
    store = Store(url=f"file://{platform.root / 'data'}")
    reconcile(Source(url=f"file://{platform.videos}", s3=S3()), IngestLog(store), AT_ONCE)
    home = platform.root / "home"
    home.mkdir()
    (platform.root / "location.py").write_text(LOCATION)
    (platform.root / "daemon.py").write_text(DAEMON)
    env = platform.environment | {
        "ASR_STORE_URL": store.url,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(SAMPLES.parents[1]),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }

    def tick(*at: str) -> int:
        command = [sys.executable, "daemon.py", "location.py", *at]
        return subprocess.run(command, env=env, cwd=platform.root, timeout=120, check=False).returncode

    def ended() -> list[tuple[float, TickStatus]]:
        with DagsterInstance.from_config(str(home)) as instance:
            (sensor,) = instance.all_instigator_state()
            ticks = instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id)
            return [(one.timestamp, one.status) for one in ticks if one.status is not TickStatus.STARTED]

    def tick_to_its_end() -> None:
        """A busy machine may not have the location ready for it, and then there is none."""
        before, deadline = ended(), time.monotonic() + 100
        while ended() == before:
            assert time.monotonic() < deadline
            time.sleep(1.1)  # the sensor's interval
            assert tick() == 0
        assert all(status in (TickStatus.SUCCESS, TickStatus.SKIPPED) for _, status in ended())

    assert tick(moment) == -signal.SIGKILL
    tick_to_its_end()
    dagster = [sys.executable, "-m", "dagster", "sensor", "cursor", "new_batches", "-f", "location.py"]
    subprocess.run([*dagster, "--delete"], env=env, cwd=platform.root, timeout=120, check=True)
    tick_to_its_end()
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        assert run.tags["dagster/partition"] == "00000001"
