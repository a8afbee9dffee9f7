"""The listing sensor, evaluated against a real instance."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, SensorResult, SkipReason, build_sensor_context, job
from dagster_aws.s3 import S3Resource

from resources.ingest_log import IngestLog
from resources.source import Source
from resources.store import Store
from sensors.batches import BATCHES, PROCESS_BATCH, BatchLimits
from sensors.listing import OFFERED_PER_TICK, listing_sensor, to_offer


class Watch:
    """A sensor, its cursor, its folder and its instance."""

    def __init__(self, root: Path, instance: DagsterInstance) -> None:
        self.folder = root / "in"
        self.folder.mkdir()
        self.instance = instance
        self.store = Store(url=f"file://{root / 'store'}")
        self.source = Source(url=f"file://{self.folder}", s3=S3Resource())
        self.sensor = listing_sensor(BatchLimits(videos=2, wait_s=0, min_age_s=0))
        self.cursor: str | None = None

    def put(self, name: str, data: bytes = b"x") -> None:
        (self.folder / name).write_bytes(data)
        os.utime(self.folder / name, (1_000_000, 1_000_000))

    def evaluate(self) -> object:
        resources = {"source": self.source, "store": self.store}
        with build_sensor_context(self.instance, self.cursor, resources=resources) as context:
            return self.sensor(context)

    def tick(self, save_cursor: bool = True) -> list[str]:
        result = self.evaluate()
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


def test_a_tick_repeated_because_its_cursor_was_lost_offers_the_same_batch(watch: Watch) -> None:
    watch.put("a.mp4")
    assert watch.tick(save_cursor=False) == watch.tick() == ["00000001"]
    log = IngestLog(watch.store)
    log.catch_up()
    assert log.batches == ["00000001"]


def test_a_changed_video_is_offered_again_and_an_unchanged_one_is_not(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.put("b.mp4")
    assert watch.tick() == ["00000001"]
    watch.put("a.mp4", b"other")
    assert watch.tick() == ["00000002"]
    assert [v.key for v in IngestLog(watch.store).batch("00000002").videos] == ["a.mp4"]


def test_a_batch_that_has_a_run_is_not_offered_by_a_renamed_sensor(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick()
    watch.instance.create_run_for_job(process_batch, tags={"dagster/partition": "00000001"})
    watch.cursor = None
    assert watch.tick() == []


def test_a_batch_whose_run_failed_is_tried_again_a_few_times(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick()
    tags = {"dagster/partition": "00000001"}
    for offered in (["00000001"], ["00000001"], [], []):
        run = watch.instance.create_run_for_job(process_batch, tags=tags)
        assert watch.tick() == []  # not while it runs
        watch.instance.report_run_failed(run)
        assert watch.tick() == offered


def test_a_source_that_cannot_be_read_skips_with_a_reason_and_forgets_nothing(watch: Watch) -> None:
    watch.put("a.mp4")
    watch.tick(save_cursor=False)
    (watch.folder / "a.mp4").unlink()
    watch.folder.rmdir()
    assert watch.tick() == ["00000001"]
    skipped = watch.evaluate()
    assert isinstance(skipped, SkipReason)
    assert "cannot be read" in str(skipped.skip_message)


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
