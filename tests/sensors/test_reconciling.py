"""A look through the source against the ingest log: what nobody has noticed, and what is gone."""

import os
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from asr_assets.erasing import begin
from resources import layout, observations
from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.published import Outcome, Status, TranscriptsHead
from resources.retries import FIRST_WAIT, TRIES, remember, revived
from resources.source import Source
from resources.store import Store
from sensors.batches import BatchLimits
from sensors.reconciling import Reconciled, compare, reconcile
from speech.errors import Reason, SourceUnavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A source that somebody works on, and its log."""

    def __init__(self, url: str, store: Store) -> None:
        self.source, self.store, self.log = Source(url=url, s3=S3()), store, IngestLog(store)
        self._folder = Path(url.removeprefix("file://")) if url.startswith("file://") else None
        self._bucket = url.removeprefix("s3://")
        self._clock = 1_000_000

    def put(self, key: str, data: bytes = b"x", same_time: bool = False) -> None:
        if self._folder:
            self._clock += not same_time
            (self._folder / key).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / key).write_bytes(data)
            os.utime(self._folder / key, (self._clock, self._clock))
        else:
            boto3.client("s3").put_object(Bucket=self._bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        if self._folder:
            (self._folder / key).unlink()
        else:
            boto3.client("s3").delete_object(Bucket=self._bucket, Key=key)

    def reconcile(self) -> Reconciled:
        return reconcile(self.source, self.log, BatchLimits().at_once)

    def current(self) -> set[str]:
        keys = {row["key"] for table in self.log.tables(0) for row in table.to_pylist() if row["key"]}
        return {key for key in keys if self.log.current(self.source.name, key)}


@pytest.fixture(params=["folder", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> Desk:
    if request.param == "folder":
        (tmp_path / "in").mkdir()
        return Desk(f"file://{tmp_path / 'in'}", store)
    return Desk(f"s3://{request.getfixturevalue('bucket')}", store)


def test_the_life_of_a_video(desk: Desk) -> None:
    """New, overwritten, deleted, uploaded again: each look finds what has happened since the last one."""
    desk.put("a.mp4", b"first", same_time=True)
    desk.put("b.mp4")
    desk.put("deep/down/c.mp4")
    desk.put("notes.md")
    found = desk.reconcile()
    assert (found.listed, found.lost, found.batches) == (3, 3, ["00000001"])
    desk.put("a.mp4", b"second")
    desk.delete("b.mp4")
    found = desk.reconcile()
    assert (found.superseded, found.deleted, found.lost) == (1, 1, 0)
    assert desk.current() == {"a.mp4", "deep/down/c.mp4"}
    desk.delete("deep/down/c.mp4")
    desk.put("b.mp4")
    desk.reconcile()
    assert desk.current() == {"a.mp4", "b.mp4"}
    found = desk.reconcile()
    assert (found.listed, found.lost, found.superseded, found.deleted, found.doubled) == (2, 0, 0, 0, 0)


def test_bytes_that_come_back_are_the_video_they_were(desk: Desk) -> None:
    desk.put("notes.txt")
    desk.put("a.mp4", b"first", same_time=True)
    desk.reconcile()
    first = desk.log.current(desk.source.name, "a.mp4")
    assert first
    desk.delete("a.mp4")
    desk.reconcile()
    assert desk.current() == set()
    desk.put("a.mp4", b"first", same_time=True)
    desk.reconcile()
    again = desk.log.current(desk.source.name, "a.mp4")
    assert again
    assert again.video_id == first.video_id
    assert desk.log.batches == ["00000001"]


def test_comparing_records_nothing(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("b.mp4")
    desk.reconcile()
    desk.delete("a.mp4")
    desk.put("b.mp4", b"other")
    desk.put("c.mp4")
    tail = desk.log.tail
    assert compare(desk.source, desk.log) == {"at_the_source": 2, "missing": 2, "gone": 1, "doubled": 0}
    assert desk.log.tail == tail


def test_a_source_that_is_gone_deletes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.put("a.mp4")
    desk.reconcile()
    gone = Desk("s3://no-such-bucket" if desk.source.url.startswith("s3") else "file:///nowhere", desk.store)
    with pytest.raises(SourceUnavailable):
        gone.reconcile()
    assert desk.current() == {"a.mp4"}


def test_another_source_deletes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.put("a.mp4")
    desk.reconcile()
    (tmp_path / "other").mkdir()
    assert Desk(f"file://{tmp_path / 'other'}", desk.store).reconcile().deleted == 0
    assert desk.current() == {"a.mp4"}


def test_a_restarted_process_reads_checkpoints_and_what_came_after(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.ingest_log.CHECKPOINT_ENTRIES", 3)
    for n in range(8):
        desk.put(f"{n}.mp4")
        desk.reconcile()
    desk.delete("2.mp4")
    desk.reconcile()
    assert desk.log.write_checkpoints() == 3
    assert desk.log.write_checkpoints() == 0
    for number in range(1, 10):
        desk.store.delete(f"ingest/{number:08d}.json")  # whoever reads them now has not read the checkpoints
    again = Desk(desk.source.url, desk.store)
    again.log.catch_up()
    assert again.log.tail == 9
    assert again.log.batches == desk.log.batches
    assert compare(again.source, again.log) == {"at_the_source": 7, "missing": 0, "gone": 0, "doubled": 0}


def test_a_folder_that_is_suddenly_empty_is_not_believed(tmp_path: Path, store: Store) -> None:
    """Most often something is not mounted."""
    (tmp_path / "in").mkdir()
    desk = Desk(f"file://{tmp_path / 'in'}", store)
    desk.put("a.mp4")
    desk.reconcile()
    desk.delete("a.mp4")
    with pytest.raises(SourceUnavailable, match="mount what belongs there"):
        desk.reconcile()
    assert desk.current() == {"a.mp4"}
    desk.put("really")
    desk.reconcile()
    assert desk.current() == set()


def test_what_failed_is_tried_again_when_its_bytes_come_back(desk: Desk) -> None:
    """Overwritten before it was read, given up, and then the old bytes again."""
    desk.put("other.mp4")
    desk.put("a.mp4", b"first", same_time=True)
    desk.reconcile()
    first = desk.log.current(desk.source.name, "a.mp4")
    assert first
    desk.put("a.mp4", b"second")
    desk.reconcile()
    lost = Outcome(video_id=first.video_id, status=Status.FAILED, reason=Reason.SUPERSEDED)
    head = TranscriptsHead(model="m", fingerprint="f", batch="00000001", outcomes=(lost,))
    for _ in range(TRIES + 1):
        remember(desk.store, head, NOW)
    assert plans(desk, NOW) == [None]
    desk.put("other.mp4", b"second")
    desk.reconcile()
    desk.put("other.mp4", b"x")
    desk.reconcile()
    assert plans(desk, NOW) == [None]  # of another video of its batch the old bytes are there again
    desk.delete("a.mp4")
    desk.put("a.mp4", b"first", same_time=True)
    if desk.source.url.startswith("file"):
        os.utime(Path(desk.source.url.removeprefix("file://")) / "a.mp4", (1_000_001, 1_000_001))
    desk.reconcile()
    again = desk.log.current(desk.source.name, "a.mp4")
    assert again
    assert again.video_id == first.video_id
    # Whoever recorded that may have been killed thereafter: nothing but the entry says it.
    assert plans(desk, NOW) == plans(desk, NOW + FIRST_WAIT) == [NOW + FIRST_WAIT]
    for _ in range(TRIES):
        remember(desk.store, head, NOW)
    assert plans(desk, NOW) == [None]


def plans(desk: Desk, now: datetime) -> list[datetime | None]:
    """When the sensor videos_to_retry has something tried again, if another process looks at the log."""
    log = IngestLog(desk.store)
    log.catch_up()
    return [pending.due_at for pending in revived(desk.store, log, now)]


def test_where_an_erased_version_stands_nothing_does(desk: Desk) -> None:
    desk.put("secret.mp4", b"secret", same_time=True)
    desk.reconcile()
    begin(desk.store, desk.log, desk.source.name, ["secret.mp4"])
    desk.put("secret.mp4", b"harmless")
    assert desk.reconcile().superseded == 1
    assert desk.current() == {"secret.mp4"}
    desk._clock -= 1
    desk.put("secret.mp4", b"secret", same_time=True)
    assert compare(desk.source, desk.log) == {"at_the_source": 0, "missing": 0, "gone": 1, "doubled": 0}
    assert desk.reconcile().deleted == 1
    assert desk.current() == set()
    assert compare(desk.source, desk.log)["gone"] == 0


def test_a_checkpoint_does_not_bring_back_what_is_being_erased(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.ingest_log.CHECKPOINT_ENTRIES", 1)
    desk.put("secret.mp4")
    desk.reconcile()
    encoded = "resources.ingest_log.encode"
    original = observations.encode

    def erased_meanwhile(table: pa.Table) -> bytes:
        monkeypatch.setattr(encoded, original)
        assert begin(desk.store, IngestLog(desk.store), desk.source.name, ["secret.mp4"]).entries == {1}
        return original(table)

    monkeypatch.setattr(encoded, erased_meanwhile)
    desk.log.write_checkpoints()
    assert list(desk.store.list(layout.CHECKPOINTS)) == []
    assert all(b"secret" not in (desk.store.get(found.key) or b"") for found in desk.store.list("ingest"))
    # Nor does a sensor that still has it in mind.
    assert desk.reconcile().deleted == 0
    assert desk.log.being_erased()
