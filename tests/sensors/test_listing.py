"""The listing and the offering sensor, evaluated against a real instance."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    SensorResult,
    SkipReason,
    build_sensor_context,
    job,
)

from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.observations import Video
from resources.source import Source
from resources.source_local import LocalFolder
from resources.store import Store
from sensors.batches import BATCHES, PROCESS_BATCH, BatchLimits, Steps
from sensors.listing import listing_sensor
from sensors.offering import OFFERED_PER_TICK, RUNS_PER_TICK, WAITS, offering_sensor, to_offer, to_retry
from speech.errors import SourceUnavailable
from tests.conftest import ROOT


class Watch:
    """A sensor, its cursor, its folder and its instance."""

    def __init__(self, root: Path, instance: DagsterInstance) -> None:
        self.folder = root / "in"
        self.folder.mkdir()
        self.instance = instance
        self.store = Store(url=f"file://{root / 'store'}")
        self.source = Source(url=f"file://{self.folder}", s3=S3())
        self.listing = listing_sensor(BatchLimits(videos=2, wait_s=0, min_age_s=0), interval_s=15)
        self.offering = offering_sensor(Steps([], {}), interval_s=10)
        self.models = SpeechModels(path=str(ROOT / "models.toml"))
        self.cursor: str | None = None

    def put(self, name: str, data: bytes = b"x") -> None:
        (self.folder / name).write_bytes(data)
        os.utime(self.folder / name, (1_000_000, 1_000_000))

    def look(self) -> str:
        resources = {"source": self.source, "store": self.store}
        with build_sensor_context(self.instance, resources=resources) as context:
            result = self.listing(context)
        assert isinstance(result, SkipReason)
        return str(result.skip_message)

    def tick(self, save_cursor: bool = True) -> list[str]:
        self.look()
        resources = {"store": self.store, "speech_models": self.models}
        with build_sensor_context(self.instance, self.cursor, resources=resources) as context:
            result = self.offering(context)
        if isinstance(result, SkipReason):
            return []
        assert isinstance(result, SensorResult)
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(str(BATCHES.name), list(request.partition_keys))
        if save_cursor:
            self.cursor = result.cursor
        return [str(request.partition_key) for request in result.run_requests or ()]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    with DagsterInstance.ephemeral() as instance:
        yield Watch(tmp_path, instance)


def test_a_new_video_is_offered_once(watch: Watch) -> None:
    assert watch.tick() == []
    watch.put("a.mp4")
    assert watch.tick() == ["00000001"]
    assert watch.tick() == []


@pytest.mark.case(26)
def test_a_tick_repeated_because_its_cursor_was_lost_offers_the_same_batch(watch: Watch) -> None:
    watch.put("a.mp4")
    assert watch.tick(save_cursor=False) == watch.tick() == ["00000001"]
    log = IngestLog(watch.store)
    log.catch_up()
    assert log.batches == ["00000001"]


def test_a_tick_asks_for_a_few_runs_failed_ones_first_and_the_next_goes_on(watch: Watch) -> None:
    """The daemon makes runs one by one, and nothing else ticks meanwhile."""
    for n in range(2 * (RUNS_PER_TICK + 2)):
        watch.put(f"{n:02d}.mp4")
    first = watch.tick()
    assert first == [f"{n:08d}" for n in range(1, RUNS_PER_TICK + 1)]
    for batch in first[1:]:
        run = watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": batch})
        watch.instance.report_run_failed(run)
    new = [f"{RUNS_PER_TICK + n:08d}" for n in (1, 2)]
    assert watch.tick() == [*first[1:], new[0]]
    for batch in first[1:]:
        watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": batch})
    assert watch.tick() == [new[1]]


def test_a_changed_video_is_offered_again_and_an_unchanged_one_is_not(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.put("b.mp4")
    assert watch.tick() == ["00000001"]
    watch.put("a.mp4", b"other")
    assert watch.tick() == ["00000002"]
    assert [v.key for v in IngestLog(watch.store).batch("00000002").videos] == ["a.mp4"]


@pytest.mark.case(28)
def test_a_batch_that_has_a_run_is_not_offered_by_a_renamed_sensor(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick()
    watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": "00000001"})
    watch.cursor = None
    assert watch.tick() == []


@pytest.mark.case(27)
def test_a_batch_whose_run_failed_is_tried_again_at_once_then_later_and_later_then_never(
    watch: Watch,
) -> None:
    watch.put("a.mp4")
    watch.tick()
    keys = []
    for wait in WAITS:
        fail(watch.instance, "00000001")
        soon, later = (
            list(to_retry(watch.instance, datetime.now(UTC) + wait + timedelta(minutes=minutes)))
            for minutes in (-1, 1)
        )
        assert (len(soon), len(later)) == (0, 1)
        keys += [request.run_key for request in later]
    assert watch.tick() == []
    assert len(set(keys)) == len(keys)  # Dagster starts a run of the same key once for ever
    assert sum(WAITS, timedelta()) > timedelta(hours=10)  # an outage of an evening is over then
    fail(watch.instance, "00000001")
    assert not list(to_retry(watch.instance, datetime.now(UTC) + timedelta(days=6)))


@pytest.mark.case(27)
def test_a_batch_that_failed_is_asked_for_at_once_but_not_while_it_runs(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick()
    run = watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": "00000001"})
    assert watch.tick() == []
    watch.instance.report_run_failed(run)
    assert watch.tick() == ["00000001"]


@pytest.mark.case(27)
def test_every_batch_that_failed_is_asked_for_however_many_have_succeeded_since(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.offering.OFFERED_PER_TICK", 4)
    batches = [f"{n:08d}" for n in range(1, 11)]
    for batch in batches:
        fail(watch.instance, batch)
    asked: list[str] = []
    while some := watch.tick():
        assert len(some) <= 4
        for batch in some:
            run = watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": batch})
            done = DagsterEvent(DagsterEventType.PIPELINE_SUCCESS.value, PROCESS_BATCH)
            watch.instance.report_dagster_event(done, run.run_id)
        asked += some
    assert asked == batches


def fail(instance: DagsterInstance, batch: str) -> None:
    """A run of a batch, to its bitter end."""
    run = instance.create_run_for_job(process_batch, tags={"dagster/partition": batch})
    instance.report_run_failed(run)


def test_a_tick_goes_on_where_the_last_one_stopped(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the source stops answering in the middle."""
    for n in range(7):
        watch.put(f"{n}.mp4")
    (watch.folder / "3.mp4").rename(watch.folder / "3")
    (watch.folder / "3").unlink()
    (watch.folder / "3").mkdir()
    watch.put("3/deep.mp4")
    looked: list[str] = []
    list_all = LocalFolder.list

    def stopping(folder: LocalFolder, after: str | None = None) -> Iterator[Video]:
        for count, video in enumerate(list_all(folder, after)):
            if count == 2:
                raise SourceUnavailable("the folder stopped answering")
            looked.append(video.key)
            yield video

    monkeypatch.setattr(LocalFolder, "list", stopping)
    said = [watch.look() for _ in range(4)]
    assert looked == ["0.mp4", "1.mp4", "2.mp4", "3/deep.mp4", "4.mp4", "5.mp4", "6.mp4"]
    assert [text.split(";")[0] for text in said] == [
        *["the folder stopped answering"] * 3,
        f"recorded 1 entries in file://{watch.folder}",
    ]
    assert "3/deep.mp4" not in str(watch.cursor)
    log = IngestLog(watch.store)
    log.catch_up()
    assert sum(len(log.batch(batch).videos) for batch in log.batches) == 7


def test_time_that_is_over_ends_a_tick(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        watch.put(f"{n}.mp4")
    monkeypatch.setattr("sensors.listing.TICK_S", 0)
    said = [watch.look() for _ in range(4)]
    assert ["not yet" in text or "reading" in text for text in said] == [True, True, True, False]


def test_what_is_too_small_or_too_large_is_no_video(watch: Watch) -> None:
    for size in range(5):
        watch.put(f"{size}.mp4", b"x" * size)
    watch.source = Source(url=watch.source.url, min_bytes=1, max_bytes=3, s3=S3())
    assert [video.key for video in watch.source.look()] == ["1.mp4", "2.mp4", "3.mp4"]


def test_a_source_that_cannot_be_read_skips_with_a_reason_and_forgets_nothing(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick(save_cursor=False)
    (watch.folder / "a.mp4").unlink()
    watch.folder.rmdir()
    assert watch.tick() == ["00000001"]
    assert "cannot be read" in watch.look()


def test_a_long_log_is_offered_a_piece_at_a_time() -> None:
    batches = [f"{n:08d}" for n in range(1, 251)]
    cursor, offered = None, []
    while piece := to_offer(batches, cursor):
        assert len(piece) <= OFFERED_PER_TICK
        offered += piece
        cursor = piece[-1]
    assert offered == batches


@job(name=PROCESS_BATCH)
def process_batch() -> None:
    """Stands for the job by its name, which is all that a sensor knows of it."""
