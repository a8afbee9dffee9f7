"""The ingest log: what is known, what is current, and that nothing is taken twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from resources import layout
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.store import Store
from speech.errors import StoreError


def video(key: str, version: str = "1") -> Video:
    return Video(source="s3://b", key=key, version=version, size_bytes=1, modified_at=datetime.now(UTC))


def test_identity_is_source_key_and_version_and_nothing_else() -> None:
    same = video("a").model_copy(update={"size_bytes": 2, "modified_at": datetime(2020, 1, 1, tzinfo=UTC)})
    assert same.video_id == video("a").video_id
    others = {
        video("a", "2").video_id,
        video("a1", "").video_id,
        video("b").video_id,
        video('a","1').video_id,
    }
    assert len(others | {video("a").video_id}) == 5
    assert len(video("a").video_id) == 32


def test_known_videos_are_dropped_and_new_ones_make_a_batch(store: Store) -> None:
    log = IngestLog(store)
    first = log.append([video("a"), video("b")])
    assert first is not None
    assert first.batch == "00000001"
    assert log.append([video("b"), video("a")]) is None
    second = log.append([video("b"), video("c")])
    assert second is not None
    assert [v.key for v in second.videos] == ["c"]
    assert log.batches == ["00000001", "00000002"]
    assert log.batch("00000002") == second


def test_going_back_to_the_old_bytes_makes_the_old_video_current_again(store: Store) -> None:
    log = IngestLog(store)
    old, new = video("a", "old"), video("a", "new")
    log.append([old])
    log.append([new])
    assert not log.is_current(old)
    back = log.append([old])
    assert back is not None
    assert (back.videos, back.seen_again, back.batch) == ((), (old,), None)
    assert IngestLog(store).batches == []  # nothing read yet
    again = IngestLog(store)
    again.catch_up()
    assert again.is_current(old)
    assert again.batches == ["00000001", "00000002"]


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_writers_that_race_take_each_video_once(where: str, request: pytest.FixtureRequest) -> None:
    if where == "s3":
        url = f"s3://{request.getfixturevalue('bucket')}"
    else:
        url = f"file://{request.getfixturevalue('tmp_path')}/race"
    offers = [[video(f"{n}"), video(f"{n + 1}")] for n in range(8)]

    def write(offset: int) -> None:
        log = IngestLog(Store(url=url))
        for n in range(len(offers)):
            log.append(offers[(n + offset) % len(offers)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    rows = [row for table in IngestLog(Store(url=url)).tables(after=0) for row in table.to_pylist()]
    assert {row["number"] for row in rows} == set(range(1, rows[-1]["number"] + 1))
    taken = [row["key"] for row in rows if row["kind"] == "new"]
    assert sorted(taken) == sorted(f"{n}" for n in range(9))


def test_a_damaged_or_missing_entry_is_named(store: Store) -> None:
    log = IngestLog(store)
    log.append([video("a")])
    log.append([video("b")])
    store.put(layout.numbered(layout.INGEST, 2), b"{")
    with pytest.raises(StoreError, match=r"ingest/00000002\.json is damaged"):
        IngestLog(store).catch_up()
    store.delete(layout.numbered(layout.INGEST, 1))
    with pytest.raises(StoreError, match=r"00000002\.json where ingest/00000001\.json should be"):
        IngestLog(store).catch_up()


@pytest.mark.parametrize("batch", ["00000009", "../x", ""])
def test_a_batch_that_is_not_in_the_log_is_named(store: Store, batch: str) -> None:
    with pytest.raises(StoreError, match="not in the ingest log"):
        IngestLog(store).batch(batch)
