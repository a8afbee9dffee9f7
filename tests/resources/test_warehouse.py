"""Loading and publishing: nothing is missed, nothing stays behind, nobody sees half of it."""

from pathlib import Path

import pyarrow as pa
import pytest

from resources import layout, snapshot
from resources.champions import champion_log, crown_first
from resources.loader import Loader
from resources.published import PublishedTranscripts
from resources.search import search
from resources.store import Store
from resources.warehouse import Warehouse
from tests.resources.published import add_batch as add_batch
from tests.resources.published import load as load
from tests.resources.published import publish_words as publish_words
from tests.resources.published import rows


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=1.0)


def test_what_is_published_while_a_load_begins_is_never_half_loaded(
    warehouse: Warehouse, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_batch(store, "a.mp4", "one two")
    log = Loader.load_ingest_log

    def another_comes_in_between(self: Loader) -> None:
        log(self)
        add_batch(store, "b.mp4", "three")
        monkeypatch.undo()

    monkeypatch.setattr(Loader, "load_ingest_log", another_comes_in_between)
    load(warehouse, store)
    load(warehouse, store)
    statuses = "SELECT video_key, status FROM videos_current ORDER BY ALL"
    assert rows(store, statuses) == [("a.mp4", "ok"), ("b.mp4", "ok")]


def test_a_rebuilt_warehouse_replaces_the_snapshot_whatever_its_load_number(
    warehouse: Warehouse, store: Store
) -> None:
    add_batch(store, "a.mp4", "one two")
    first = load(warehouse, store)
    Path(warehouse.path).unlink()
    add_batch(store, "b.mp4", "three")
    second = load(warehouse, store)
    assert first.load == second.load
    assert rows(store, "SELECT count(*) FROM words_current") == [(3,)]


def test_loading_again_replaces_and_does_not_add(warehouse: Warehouse, store: Store) -> None:
    video_id = add_batch(store, "a.mp4", "one two three")
    load(warehouse, store)
    publish_words(store, "00000001", video_id, "four")
    report = load(warehouse, store)
    assert (report.words, report.words_promised, report.objects) == (1, 1, 1)
    assert rows(store, "SELECT word FROM words_current") == [("four",)]
    assert rows(store, "SELECT text FROM segments") == [("four",)]
    assert load(warehouse, store).objects == 0


def test_a_load_sweeps_what_a_step_left_that_was_killed_while_tidying_up(
    warehouse: Warehouse, store: Store
) -> None:
    video_id = add_batch(store, "a.mp4", "one two")
    left = layout.unfinished_video("m", "00000001", "f", video_id)
    under_way = layout.unfinished_video("m", "00000001", "another definition", video_id)
    for key in (left, under_way):
        store.put(key, b"{}")
    load(warehouse, store)
    assert [store.get(key) for key in (left, under_way)] == [None, b"{}"]


def test_a_model_version_without_words_is_not_made_champion(store: Store) -> None:
    """Its weights may never come; whoever is named next must still have a chance."""
    crown_first(store, "out_of_reach", "f")
    add_batch(store, "a.mp4", "one two")
    crown_first(store, "out_of_reach", "f")
    crown_first(store, "m", "f")
    crown_first(store, "another", "f")
    assert [champion.model for champion in champion_log(store).read_on()] == ["m"]


def test_a_batch_without_a_single_word_loads(warehouse: Warehouse, store: Store) -> None:
    add_batch(store, "a.mp4", "")
    assert load(warehouse, store).words == 0
    assert rows(store, "SELECT words FROM transcripts") == [(0,)]


def test_old_snapshots_go_and_a_reader_keeps_what_it_has_open(warehouse: Warehouse, store: Store) -> None:
    add_batch(store, "0.mp4", "zero")
    load(warehouse, store)
    with snapshot.read(store, Path("/nonexistent")) as open_reader:
        for n in range(1, 6):
            add_batch(store, f"{n}.mp4", "more")
            if n == 5:
                store.put(layout.snapshot(1), b"left there by a kill")
            load(warehouse, store)
        assert open_reader.execute("SELECT count(*) FROM words").fetchall() == [(1,)]
    kept = [found.key for found in store.list("snapshots") if found.key.endswith(".duckdb")]
    assert len(kept) == snapshot.KEEP
    assert rows(store, "SELECT count(*) FROM words") == [(6,)]


def test_the_same_key_in_two_sources_is_two_hits(warehouse: Warehouse, store: Store) -> None:
    add_batch(store, "a.mp4", "say it now", source="s3://one")
    add_batch(store, "a.mp4", "say it then", source="s3://two")
    load(warehouse, store)
    with snapshot.read(store, Path("/nonexistent")) as connection:
        found = search(connection, "Say it!", 1)
        assert (found.count, [hit.context for hit in found.hits]) == (2, ["say it now"])
        found = search(connection, "say it", 10)
        assert [hit.context for hit in found.hits] == ["say it now", "say it then"]


def test_the_same_words_give_the_same_bytes(store: Store) -> None:
    video_id = add_batch(store, "a.mp4", "one two")
    key = layout.transcripts("m", "00000001")
    before = store.get(key)
    publish_words(store, "00000001", video_id, "one two")
    assert store.get(key) == before
    published = PublishedTranscripts.read(store, key)
    assert published is not None
    assert published.words.schema.types[5:8] == [pa.float64()] * 3
