"""What an object does to its batch: one that kills its decoder, hostile names, overwritten, deleted."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dagster import (
    DagsterInstance,
)

from asr_assets.extracted_audio import extracted_audio
from asr_assets.failing import list_failures
from asr_assets.raw_videos import raw_videos
from resources import layout, snapshot
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.retries import TRIES, all_pending
from resources.store import Store
from sensors.reconciling import compare, reconcile
from sensors.retrying import due
from speech.errors import SourceUnavailable
from tests.conftest import Platform
from tests.faults.bench import ALWAYS, AT_ONCE, OTHER, SILENT, SPOKEN, Bench, Bucket
from tests.faults.proxy import Fault, Proxy, Trouble, proxy


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


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", [Fault.NO_KEY, Fault.KEY_OFF, Fault.BROKEN])
def test_an_object_that_its_bucket_cannot_read_fails_alone_and_is_tried_again(
    fault: Fault, store: Store, hurried: None, two_videos: tuple[Bench, Proxy, str]
) -> None:
    bench, through, batch = two_videos
    through.troubles.append(Trouble(fault, path="/in/talk.mp4", which=ALWAYS))
    assert bench.process(batch).success
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "unreadable_object"}
    assert [pending.tries for pending in all_pending(store)] == [1]
    assert bench.source.find("in/talk.mp4") == bench.log.current(bench.source.name, "in/talk.mp4")
    through.troubles.clear()
    assert bench.process(batch).success
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "ok"}


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.KEY_BUSY, Fault.EXPIRED, Fault.RESET, Fault.SHORT])
def test_what_a_bucket_says_of_itself_is_no_objects_fault(
    fault: Fault, hurried: None, two_videos: tuple[Bench, Proxy, str]
) -> None:
    """Though it answers a listing at the same time."""
    bench, through, _ = two_videos
    video = bench.log.current(bench.source.name, "in/talk.mp4")
    assert video
    through.troubles.append(Trouble(fault, path="/in/talk.mp4", which=ALWAYS))
    with pytest.raises(SourceUnavailable), bench.source.open(video):
        pass


@pytest.mark.case(31)
def test_a_bucket_that_answers_nothing_is_no_objects_fault(
    hurried: None, two_videos: tuple[Bench, Proxy, str]
) -> None:
    bench, through, _ = two_videos
    video = bench.log.current(bench.source.name, "in/talk.mp4")
    assert video
    through.troubles.append(Trouble(Fault.BROKEN, which=ALWAYS))
    with pytest.raises(SourceUnavailable, match="InternalError"), bench.source.open(video):
        pass


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
    assert reconcile(bench.source, bench.log, AT_ONCE).deleted == 1
