"""The tables as folders of Parquet: row for row what the snapshot has, whoever reads them, or nothing."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pytest

from asr_assets import dumping
from asr_assets.dumping import Dumped, dump
from resources import layout, snapshot
from resources.ingest_log import IngestLog
from resources.observations import IngestEntry, Video
from resources.store import Store
from resources.warehouse import Warehouse
from speech.errors import AsrError
from tests.resources.published import NOWHERE, add_videos, load, publish, spoken

HOSTILE = ['it\'s "x".mp4', "../../up.mp4", "a\nb.mp4", "taken_in=2020-01-01/%41.mp4"]
DAYS = {"00000001": date(2026, 11, 25), "00000002": date(2026, 11, 26)}
KEYS = {
    "words": ["video_id", "model_version", "word_index"],
    "segments": ["video_id", "model_version", "segment_index"],
    "transcripts": ["video_id", "model_version"],
    "videos": ["video_id"],
}


def happened_on(store: Store, batch: str, day: date) -> None:
    """Put an entry of the ingest log back to the last second of that day, in UTC."""
    key = layout.numbered(layout.INGEST, int(batch))
    entry = IngestEntry.model_validate_json(store.get(key) or b"")
    then = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
    store.put(key, entry.model_copy(update={"observed_at": then}).model_dump_json().encode())


@pytest.fixture
def published(store: Store, tmp_path: Path) -> Store:
    """Two days, two model versions, a superseded video, a deleted one, one that failed, one without words."""
    first, ids = add_videos(store, *HOSTILE, "gone.mp4")
    publish(store, first, {video_id: spoken('it\'s "so", | ça\u2028va') for video_id in ids})
    publish(store, first, dict.fromkeys(ids, spoken("another | one")), model="Model_2")
    second, (newer, empty, failed) = add_videos(store, HOSTILE[0], "empty.mp4", "failed.mp4", version="2")
    publish(store, second, {newer: spoken("newer"), empty: spoken(""), failed: None})
    for batch, day in DAYS.items():
        happened_on(store, batch, day)
    gone = Video(source="s3://b", key="gone.mp4", version="1", size_bytes=1, modified_at=datetime.now(UTC))
    IngestLog(store).append([], gone=[gone])
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    return store


@pytest.fixture
def connection(published: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with snapshot.read(published, NOWHERE, files=True) as connection:
        yield connection


def test_what_is_dumped_is_what_the_snapshot_has(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    folder = tmp_path / "not there" / "it's dumped"
    assert dump(connection, folder) == [
        Dumped("words", 3, 31),
        Dumped("segments", 3, 21),
        Dumped("transcripts", 1, 13),
        Dumped("videos", 1, 8),
    ]
    partitions = [
        "model_version=Model_2/taken_in=2026-11-25",
        "model_version=m/taken_in=2026-11-25",
        "model_version=m/taken_in=2026-11-26",
    ]
    assert sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("*.parquet")) == [
        *(f"segments/{partition}" for partition in partitions),
        "transcripts",
        "videos",
        *(f"words/{partition}" for partition in partitions),
    ]


def test_each_row_says_whether_it_is_current_and_when_its_video_was_taken_in(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    dump(connection, tmp_path / "dump")
    for table, current, name in (
        ("words", "words_current", "video_id, word_index"),
        ("transcripts", "transcripts_current", "video_id, model_version"),
        ("videos", "videos_current", "video_id"),
    ):
        there = connection.read_parquet(f"{tmp_path}/dump/{table}/**/*.parquet", hive_partitioning=True)
        expected = connection.sql(f"SELECT {name} FROM {current} ORDER BY ALL").fetchall()
        assert there.filter("is_current").select(name).order(name).fetchall() == expected
        days = there.join(connection.table("videos").select("video_id, batch AS b"), "video_id")
        assert dict(days.select("b, taken_in").distinct().fetchall()) == DAYS


@pytest.mark.parametrize("table", KEYS)
def test_duckdb_and_arrow_find_each_row_of_the_snapshot_in_it(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, table: str
) -> None:
    dump(connection, tmp_path / "dump")
    names = [name for name in connection.table(table).columns if name != "transcript_id"]
    rows = connection.table(table).order(", ".join(KEYS[table])).select(", ".join(names)).fetchall()
    by_duckdb = connection.read_parquet(f"{tmp_path}/dump/{table}/**/*.parquet", hive_partitioning=True)
    assert by_duckdb.order(", ".join(KEYS[table])).select(", ".join(names)).fetchall() == rows
    by_arrow = (
        ds.dataset(tmp_path / "dump" / table, partitioning="hive")
        .to_table()
        .sort_by([(name, "ascending") for name in KEYS[table]])
    )
    assert [tuple(row.values()) for row in by_arrow.select(names).to_pylist()] == rows
    assert (
        {*by_duckdb.columns} - {*names} == {*by_arrow.schema.names} - {*names} == {"is_current", "taken_in"}
    )


def test_a_reader_of_one_partition_reads_one_file(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    dump(connection, tmp_path / "dump")
    there = ds.dataset(tmp_path / "dump" / "words", partitioning="hive")
    (part,) = there.get_fragments(ds.field("taken_in") == "2026-11-26")
    assert part.to_table(columns=["word"]).to_pydict() == {"word": ["newer"]}


def test_without_a_single_word_there_are_videos(store: Store, tmp_path: Path) -> None:
    batch, (video_id,) = add_videos(store, "silent.mp4")
    publish(store, batch, {video_id: spoken("")})
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    with snapshot.read(store, NOWHERE, files=True) as connection:
        dumped = dump(connection, tmp_path / "dump")
    assert [(table.files, table.rows) for table in dumped] == [(0, 0), (0, 0), (1, 1), (1, 1)]


def test_what_is_cut_off_leaves_nothing_that_looks_complete(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def killed(folder: Path) -> None:
        (unfinished,) = out.iterdir()
        assert unfinished.name.startswith("dump.unfinished-")
        raise KeyboardInterrupt

    monkeypatch.setattr(dumping, "_what_is_in", killed)
    with pytest.raises(KeyboardInterrupt):
        dump(connection, out / "dump")
    assert list(out.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "mine.txt").write_text("mine")
    with pytest.raises(AsrError, match="dump is not empty: give a folder that is empty, or not there yet"):
        dump(connection, tmp_path / "dump")
    assert [path.name for path in (tmp_path / "dump").iterdir()] == ["mine.txt"]
    with pytest.raises(AsrError, match=r"mine\.txt: cannot be written: Not a directory"):
        dump(connection, tmp_path / "dump" / "mine.txt")
