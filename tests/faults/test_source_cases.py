"""What a source, its queue and the store may do to the platform, and what comes of it: the cases 20 to 33."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from dagster import (
    AssetsDefinition,
    DagsterInstance,
    ExecuteInProcessResult,
    SensorResult,
    build_sensor_context,
    materialize,
)

from asr_assets.extracted_audio import extracted_audio
from asr_assets.failing import list_failures
from asr_assets.raw_videos import raw_videos
from asr_assets.transcripts import transcripts_asset, transcripts_key
from asr_assets.word_timings import word_timings_asset
from resources import layout, snapshot
from resources.aws import S3
from resources.event_queue import EventQueue
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.published import ExtractedBatch, read_head
from resources.retries import TRIES, all_pending
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.batches import BATCHES, BatchLimits, Steps
from sensors.listing import look_on
from sensors.offering import offering_sensor
from sensors.patience import patiently
from sensors.reconciling import compare, reconcile
from sensors.retrying import due
from speech.errors import SourceUnavailable, StoreError
from tests.conftest import FAST_MODEL, SAMPLES, Platform
from tests.faults.proxy import Fault, Proxy, Trouble, proxy

# Dagster has deprecated what the assets call; the command line does not turn warnings into errors.
pytestmark = pytest.mark.filterwarnings(
    "ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning"
)

MODEL = "pocketsphinx_fast"
SPOKEN, SILENT = (SAMPLES / name for name in ("delayed_audio.mp4", "silent.mp4"))
OTHER = SAMPLES / "school.mp4"
AT_ONCE = BatchLimits().at_once
ALWAYS = range(10**9)


@dataclass
class Bench:
    """The platform's assets, in this process: the graph of a run, without a daemon."""

    source: Source
    store: Store
    models: SpeechModels
    instance: DagsterInstance

    @property
    def log(self) -> IngestLog:
        log = IngestLog(self.store)
        log.catch_up()
        return log

    def take_in(self) -> list[str]:
        reconcile(self.source, self.store, self.log, AT_ONCE)
        return self.log.batches

    def process(self, batch: str, *assets: AssetsDefinition) -> ExecuteInProcessResult:
        assert BATCHES.name
        self.instance.add_dynamic_partitions(BATCHES.name, [batch])
        return materialize(
            assets or [raw_videos, extracted_audio, self.transcripts],
            partition_key=batch,
            instance=self.instance,
            resources={"source": self.source, "store": self.store, "speech_models": self.models},
            raise_on_error=False,
        )

    @property
    def transcripts(self) -> AssetsDefinition:
        return transcripts_asset(self.models.get(MODEL))

    def ended(self, batch: str) -> dict[str, str]:
        """How each video of a batch ended, by its key."""
        extracted = ExtractedBatch.read(self.store, layout.extracted(batch))
        head = read_head(self.store, layout.transcripts(MODEL, batch))
        assert extracted
        assert head
        keys = {video.video.video_id: video.video.key for video in extracted.videos}
        return {keys[o.video_id]: str(o.reason or o.status) for o in head.outcomes}

    def published(self, batch: str = "00000001") -> bytes | None:
        return self.store.get(layout.transcripts(MODEL, batch))

    def load(self, folder: Path) -> None:
        model = self.models.get(MODEL)
        resources = {"store": self.store, "warehouse": Warehouse(path=str(folder / "warehouse.duckdb"))}
        materialize([word_timings_asset([MODEL], model)], instance=self.instance, resources=resources)


@pytest.fixture
def models(tmp_path: Path) -> SpeechModels:
    path = tmp_path / "models.toml"
    path.write_text(FAST_MODEL)
    return SpeechModels(path=str(path), workers=1)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patience, in shorter seconds."""
    monkeypatch.setattr("resources.aws.ANSWER_S", 1.0)
    monkeypatch.setattr("resources.store.ANSWER_S", 1.0)
    monkeypatch.setattr("resources.store.WAITS_S", (0.02, 0.1, 0.2))
    monkeypatch.setattr("asr_assets.raw_videos.FIRST_WAIT_S", 0.1)


class Bucket:
    """Somebody else's bucket."""

    def __init__(self, name: str) -> None:
        self.name, self.client = name, boto3.client("s3")

    def put(self, key: str, video: Path | bytes) -> None:
        data = video if isinstance(video, bytes) else video.read_bytes()
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def source(self, through: Proxy) -> Source:
        return Source(url=f"s3://{self.name}/in", s3=S3(endpoint_url=through.url))


@pytest.fixture
def videos(bucket: str) -> Bucket:
    return Bucket(bucket)


def decoders() -> Iterator[int]:
    """The processes in which this one has media decoded."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"-m\0speech." in (process / "cmdline").read_bytes():
                yield int(process.name)


@pytest.mark.case(20)
@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "reason"), [(signal.SIGKILL, "decoder_died"), (signal.SIGSTOP, "decoder_stalled")]
)
def test_a_file_that_its_decoder_never_survives_is_given_up_and_the_rest_is_published(
    how: signal.Signals,
    reason: str,
    videos: Bucket,
    store: Store,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resources.source_s3._READ_AHEAD", 1 << 10)
    monkeypatch.setattr("speech.media.STALL_S", 4.0)
    videos.put("in/good.mp4", SPOKEN)
    videos.put("in/poison.mp4", SPOKEN)
    videos.put("in/quiet.mp4", SILENT)

    def strike() -> None:
        for pid in decoders():
            os.kill(pid, how)

    with proxy(s3_server, Trouble(strike, "GET", "poison", ALWAYS)) as through:
        bench = Bench(videos.source(through), store, models, instance)
        (batch,) = bench.take_in()
        for tries in range(1, TRIES + 2):
            assert bench.process(batch).success
            assert bench.ended(batch) == {
                "in/good.mp4": "ok",
                "in/poison.mp4": reason,
                "in/quiet.mp4": "no_speech",
            }
            (pending,) = all_pending(store)
            assert (pending.tries, pending.due_at is None) == (tries, tries > TRIES)
    years_later = datetime.now(UTC) + timedelta(days=999)
    assert list(due(all_pending(store), instance, years_later)) == []
    bench.load(tmp_path)
    with snapshot.read(store, tmp_path / "cache") as connection:
        (failure,) = list_failures(connection, store)
    assert (failure.video_key, failure.reason, failure.again) == ("in/poison.mp4", reason, "given up")


HOSTILE = [
    f"in/{name}.mp4"
    for name in (
        'it\'s "quoted"',
        "new\nline\r",
        "../../up",
        "pipe|comma,semi;colon",
        "🎬 Ünïcödé",
        "\u202eright-to-left",
        "/leading",
        "a//b",
        "%2e%2e+ &?#",
        "'); DROP TABLE words;--",
        "<script>alert(1)</script>",
        "é" * ((1024 - len("in/.mp4")) // 2) + "x",
    )
]


@pytest.fixture
def any_key(s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Another door to the same buckets, for keys that moto's own takes for no path: those with a newline."""
    from moto.moto_server import werkzeug_app
    from moto.moto_server.utilities import RegexConverter
    from moto.server import ThreadedMotoServer

    class AnyPath(RegexConverter):  # type: ignore[misc]
        def __init__(self, url_map: Any, *items: Any) -> None:
            super().__init__(url_map, *(item.replace(".+", r"[\s\S]+") for item in items))

    monkeypatch.setattr(werkzeug_app, "RegexConverter", AnyPath)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.case(21)
@pytest.mark.long
def test_any_key_comes_through_unchanged_and_can_be_erased(
    bucket: str, any_key: str, platform: Platform, s3_env: dict[str, str]
) -> None:
    assert max(len(key.encode()) for key in HOSTILE) == 1024
    videos = Bucket(bucket)
    for key in HOSTILE:
        videos.put(key, SPOKEN if "quoted" in key else SILENT)
    platform.env |= s3_env | {
        "AWS_ENDPOINT_URL": any_key,
        "ASR_SOURCE_URL": f"s3://{bucket}/in",
        "XDG_CACHE_HOME": str(platform.root / "cache"),
    }
    platform.must("run", "--workers", "1")
    store = Store(url=f"file://{platform.root / 'data'}")
    log = IngestLog(store)
    assert sorted(video.key for video in log.batch("00000001").videos) == sorted(HOSTILE)
    with snapshot.read(store, platform.root / "cache") as connection:
        words = connection.execute("SELECT DISTINCT video_key FROM words_current").fetchall()
        known = connection.execute("SELECT video_key FROM transcripts_current")
        assert sorted(key for (key,) in known.fetchall()) == sorted(HOSTILE)
    assert {key for (key,) in words} == {key for key in HOSTILE if "quoted" in key}
    platform.must("dump", "--out", "dump")
    dumped = pq.read_table(platform.root / "dump" / "videos" / "part-0.parquet")
    assert sorted(dumped["video_key"].to_pylist()) == sorted(HOSTILE)
    platform.must("erase", "--yes", *HOSTILE[:-1])
    assert platform.sql("SELECT count(*) FROM videos") == ["1"]
    platform.must("erase", "--yes", HOSTILE[-1])
    assert platform.sql("SELECT count(*) FROM videos") == ["0"]
    assert list(store.list("audio")) == []


@pytest.fixture
def two_videos(
    videos: Bucket,
    store: Store,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Bench, Proxy, str]]:
    """A quiet and a spoken video that were taken in, through a proxy, in a batch; they are read in pieces."""
    monkeypatch.setattr("resources.source_s3._READ_AHEAD", 1 << 12)
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), store, models, instance)
        (batch,) = bench.take_in()
        yield bench, through, batch


@pytest.mark.case(22)
@pytest.mark.parametrize("asset", ["raw_videos", "extracted_audio"])
def test_an_object_that_is_overwritten_between_two_reads_is_never_a_mix(
    asset: str, store: Store, videos: Bucket, two_videos: tuple[Bench, Proxy, str]
) -> None:
    bench, through, batch = two_videos
    former = bench.log.current(bench.source.name, "in/talk.mp4")
    assert former
    rest = [extracted_audio, bench.transcripts]
    if asset == "extracted_audio":
        assert bench.process(batch, raw_videos).success
    overwrite = Trouble(lambda: videos.put("in/talk.mp4", OTHER), "GET", "talk.mp4", {1})
    through.troubles.append(overwrite)
    assert bench.process(batch, *(rest if asset == "extracted_audio" else [])).success
    assert overwrite.struck == 1
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "superseded"}
    assert store.head(layout.audio(former.video_id)) is None
    assert bench.take_in() == [batch, "00000002"]
    assert bench.process("00000002").success
    assert bench.ended("00000002") == {"in/talk.mp4": "ok"}
    assert compare(bench.source, bench.log) == {"at_the_source": 2, "missing": 0, "gone": 0, "doubled": 0}


@pytest.mark.case(23)
@pytest.mark.parametrize("when", ["before it is probed", "before it is extracted", "while it is extracted"])
def test_a_video_that_is_deleted_before_it_is_read_is_missing_and_the_rest_goes_on(
    when: str, store: Store, videos: Bucket, two_videos: tuple[Bench, Proxy, str]
) -> None:
    bench, through, batch = two_videos
    if when == "before it is probed":
        videos.delete("in/talk.mp4")
    else:
        assert bench.process(batch, raw_videos).success
    if when == "before it is extracted":
        videos.delete("in/talk.mp4")
    if when == "while it is extracted":
        through.troubles.append(Trouble(lambda: videos.delete("in/talk.mp4"), "GET", "talk.mp4", {1}))
    rest = [extracted_audio, bench.transcripts]
    assert bench.process(batch, *([] if when == "before it is probed" else rest)).success
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "missing"}
    assert [pending.tries for pending in all_pending(store)] == [1]
    assert reconcile(bench.source, store, bench.log, AT_ONCE).deleted == 1


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

target = PythonFileTarget(sys.argv[1], attribute=None, working_directory=None, location_name="here")
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
def test_a_daemon_killed_before_its_cursor_is_saved_starts_no_run_twice(
    moment: str, platform: Platform
) -> None:
    platform.add("silent.mp4")
    store = Store(url=f"file://{platform.root / 'data'}")
    reconcile(Source(url=f"file://{platform.videos}", s3=S3()), store, IngestLog(store), AT_ONCE)
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

    assert tick(moment) == -signal.SIGKILL
    time.sleep(1.1)  # the sensor's interval
    assert tick() == 0
    time.sleep(1.1)
    assert tick() == 0
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        assert run.tags["dagster/partition"] == "00000001"


FAULTS = [fault for fault in Fault if fault is not Fault.CONFLICT]

SOURCE_WORK: dict[str, Callable[[Source], object]] = {
    "list": lambda source: [video.key for video in source.look()],
    "find": lambda source: source.find("in/a.mp4"),
    "read": lambda source: _read_through(source),
}
TOLD = {Fault.EXPIRED}
"""What boto does not ask again for: it is said, and whoever waits asks later."""


def _read_through(source: Source) -> bytes:
    video = next(iter(source.look()))
    with source.open(video) as data:
        return data.read_at(0, data.size)


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", SOURCE_WORK)
def test_a_source_that_fails_once_answers_in_the_end(
    work: str, fault: Fault, videos: Bucket, s3_server: str, hurried: None
) -> None:
    videos.put("in/a.mp4", bytes(range(256)) * 100)
    method = {"list": "GET", "find": "HEAD", "read": "GET"}[work]
    trouble = Trouble(fault, method, "prefix" if work == "list" else "a.mp4")
    answers: list[object] = []

    def ask() -> str:
        answers.append(SOURCE_WORK[work](source))
        return "answered"

    with proxy(s3_server) as undisturbed:
        expected = SOURCE_WORK[work](videos.source(undisturbed))
    with proxy(s3_server, trouble) as through:
        source = videos.source(through)
        context = build_sensor_context()
        first = patiently(context, ask)
        if fault in TOLD and not answers:
            assert "ExpiredToken" in str(first.skip_message)
            assert "no answer 1 times" in str(patiently(context, ask).skip_message)
            patiently(context, ask, datetime.now(UTC) + timedelta(seconds=16))
    assert (answers, trouble.struck) == ([expected], 1)


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_queue_that_fails_once_loses_no_message(
    fault: Fault, bucket: str, s3_server: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.event_queue.HIDDEN_S", 1)
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    with proxy(s3_server, Trouble(fault, "POST")) as through:
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        queue = EventQueue(url=url)
        received: list[str] = []

        def take() -> str:
            messages = queue.receive()
            queue.delete(messages)
            received.extend(message.body for message in messages)
            return "taken"

        context = build_sensor_context()
        for tick in range(10):
            patiently(context, take, datetime.now(UTC) + timedelta(minutes=tick))
            if received:
                break
            time.sleep(0.3)
        assert received == ["hello"]
        through.troubles.append(Trouble(fault, "POST"))
        patiently(context, take)
        time.sleep(1.1)
        assert queue.receive() == []


def _deleted(store: Store) -> bytes | None:
    store.delete("there")
    return store.get("there")


def _fetched(store: Store, folder: Path) -> bytes:
    return store.fetch("there", folder / "copy").read_bytes()


STORE_WORK: dict[str, Callable[[Store, Path], object]] = {
    "put": lambda store, _: bool(store.put("new", b"x")) and store.get("new"),
    "create": lambda store, _: (store.create("new", b"x"), store.get("new")),
    "get": lambda store, _: store.get("there"),
    "head": lambda store, _: store.head("there"),
    "list": lambda store, _: list(store.list("folder")),
    "delete": lambda store, _: _deleted(store),
    "fetch": _fetched,
    "open": lambda store, _: (file := store.open("there")) and file.read(),
}


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", STORE_WORK)
def test_a_store_that_fails_once_does_it_in_the_end(
    work: str,
    fault: Fault,
    bucket: str,
    s3_server: str,
    hurried: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = []
    for number, troubles in enumerate(([], [Trouble(fault), Trouble(fault, "GET", "there", {1})])):
        with proxy(s3_server) as through:
            monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
            store = Store(url=f"s3://{bucket}/{number}")
            store.put("there", bytes(range(256)) * 100)
            store.put("folder/a", b"a")
            store.put("folder/b", b"b")
            through.troubles += troubles
            expected.append(STORE_WORK[work](store, tmp_path))
    assert expected[0] == expected[1]
    assert troubles[0].struck == 1


@pytest.mark.case(31)
def test_a_store_that_never_answers_is_told_in_a_sentence(
    bucket: str, s3_server: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(s3_server, Trouble(Fault.EXPIRED, which=ALWAYS)) as through:
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        with pytest.raises(StoreError, match=r"ExpiredToken.*; check ASR_STORE_URL"):
            Store(url=f"s3://{bucket}").put("a", b"x")
        assert len(through.asked) == 4


@pytest.mark.case(27, 31)
@pytest.mark.long
@pytest.mark.parametrize("every", [3, 7])
def test_a_run_of_which_every_so_manieth_request_fails_publishes_the_same(
    every: int,
    videos: Bucket,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    hurried: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    videos.put("in/talk.txt", b"The picture starts first")
    cycle = every * len(FAULTS)
    troubles = [
        Trouble(fault, which=range(every * turn - 1, 10**9, cycle)) for turn, fault in enumerate(FAULTS, 1)
    ]
    published = []
    for name, disturbed in (("undisturbed", []), ("disturbed", troubles)):
        with proxy(s3_server) as through:
            monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
            store = Store(url=f"s3://{videos.name}/{name}")
            bench = Bench(videos.source(through), store, models, instance)
            (batch,) = bench.take_in()
            through.troubles += disturbed
            done = bench.process(batch)
            for _ in range(TRIES - 1 if disturbed else 0):  # as the sensor new_batches asks for
                done = done if done.success else bench.process(batch)
            assert done.success
            through.troubles.clear()
            assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "ok"}
            assert list(store.list(layout.UNFINISHED)) == []
            published.append(bench.published())
    assert published[0] == published[1]
    assert all(trouble.struck for trouble in troubles[: 2 if every == 7 else None])


@pytest.mark.case(33)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "probed/"),
        ("PUT", "audio/"),
        ("PUT", "extracted/"),
        ("GET", "/unfinished/"),
        ("PUT", "unfinished/"),
        ("PUT", "attempts/"),
        ("PUT", "transcripts/"),
        ("POST", "delete"),
    ],
)
def test_a_worker_that_is_overtaken_on_its_batch_ends_the_same(
    method: str,
    path: str,
    videos: Bucket,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    ends: list[bytes | None] = []
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), Store(url=f"s3://{videos.name}/store"), models, instance)
        (batch,) = bench.take_in()
        if path == "/unfinished/":
            # What a worker that was killed has left: found, and gone before it is read.
            with proxy(s3_server, Trouble(Fault.EXPIRED, "PUT", "attempts/", ALWAYS)) as breaking:
                monkeypatch.setenv("AWS_ENDPOINT_URL", breaking.url)
                assert not bench.process(batch).success

        def overtake() -> None:
            with monkeypatch.context() as fast:  # a store's client is made when a run begins
                fast.setenv("AWS_ENDPOINT_URL", s3_server)
                assert bench.process(batch).success
                ends.append(bench.published())

        overtaken = Trouble(overtake, method, path)
        through.troubles.append(overtaken)
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        assert bench.process(batch).success
    assert overtaken.struck == 1
    assert ends == [bench.published()]
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "ok"}
    assert list(bench.store.list(layout.UNFINISHED)) == []
    assert list(all_pending(bench.store)) == []


def folder_bench(root: Path, store: str, instance: DagsterInstance) -> Bench:
    return Bench(
        Source(url=f"file://{root / 'in'}", s3=S3()),
        Store(url=f"file://{root / store}"),
        SpeechModels(path=str(root / "models.toml"), workers=1),
        instance,
    )


def work_at_once(root: Path, together: Any) -> None:
    """What one of two processes does."""
    with DagsterInstance.ephemeral() as instance:
        bench = folder_bench(root, "both", instance)
        together.wait(60)
        assert bench.process("00000001").success


@pytest.mark.case(33)
@pytest.mark.long
def test_two_processes_on_one_batch_at_once_publish_it_once(
    models: SpeechModels, instance: DagsterInstance, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name, sample in (("quiet", SILENT), ("talk", SPOKEN), ("other", OTHER)):
        shutil.copy2(sample, tmp_path / "in" / f"{name}.mp4")
    alone, both = (folder_bench(tmp_path, store, instance) for store in ("alone", "both"))
    for bench in (alone, both):
        assert bench.take_in() == ["00000001"]
    assert alone.process("00000001").success
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [context.Process(target=work_at_once, args=(tmp_path, together)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert both.published() == alone.published()
    assert both.ended("00000001") == {"other.mp4": "ok", "quiet.mp4": "no_speech", "talk.mp4": "ok"}
    assert list(both.store.list(layout.UNFINISHED)) == []
