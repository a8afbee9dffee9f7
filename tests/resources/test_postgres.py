"""The mirror in PostgreSQL: equal to the published copy, whatever happens to it or to a sync."""

import random
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asr_assets import erasing
from benchmarks.postgres import differences, differences_after
from resources import champions, layout, snapshot
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.postgres import TABLES, PostgresMirror, SyncReport
from resources.published import (
    ExtractedBatch,
    ExtractedVideo,
    FinishedVideo,
    Outcome,
    PublishedTranscripts,
    Status,
    TranscriptsHead,
    word_rows,
)
from resources.sidecars import Sidecar
from resources.store import Store
from resources.warehouse import Warehouse
from speech.errors import WarehouseError
from speech.types import Segment, Transcript, Word
from tests.resources.test_warehouse import add_batch, load, publish_words

pytestmark = pytest.mark.xdist_group("postgres")

SOURCE = "s3://b"
HOSTILE = (
    "a\tb",
    "a\nb",
    "a\r\nb",
    "\\.",
    "\\",
    "\\N",
    "",
    '"',
    "'; DROP TABLE words; --",
    "{a,NULL}",
    "%s",
    "🎬 é",
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=1.0)


def sync(url: str, store: Store, wait_s: float = 60.0) -> SyncReport:
    return PostgresMirror(url=url, wait_s=wait_s).sync(store, Path("/nonexistent"), lambda done, total: None)


def load_and_sync(warehouse: Warehouse, store: Store, url: str) -> SyncReport:
    load(warehouse, store)
    return sync(url, store)


def rows(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """What the last statement gives."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        *_, answer = (connection.execute(sql) for sql in statements)
        return answer.fetchall() if answer.description else []


def is_equal(url: str, store: Store) -> bool:
    return differences(url, store, Path("/nonexistent")) == 0


def publish_by(store: Store, model: str, batch: str, video_id: str, *words: str) -> None:
    """As test_warehouse.publish_words, by any model version, of any words."""
    spoken = tuple(Word(text, n, n + 0.5, 0.9, "test") for n, text in enumerate(words))
    outcome = Outcome(video_id=video_id, status=Status.OK, words=len(words))
    finished = FinishedVideo(
        outcome=outcome, rows=word_rows(video_id, Transcript("en", 60.0, (Segment(spoken),)))
    )
    head = TranscriptsHead(model=model, fingerprint="f", batch=batch, outcomes=(outcome,))
    store.put(layout.transcripts(model, batch), PublishedTranscripts.build(head, [finished]).encode())


def promote(store: Store, model: str) -> None:
    champion = champions.reigning(store)
    assert champion
    champions.promote(store, model, champion, "somebody", "f", {})


def test_its_tables_are_those_of_the_published_copy_row_for_row(
    warehouse: Warehouse, store: Store, postgres: str
) -> None:
    for n in range(12):  # more than one transaction takes
        video_id = add_batch(store, f"{n}.mp4", "one two three" if n else "")
        publish_by(store, "n", f"{n + 1:08d}", video_id, "one", "too")
    IngestLog(store).append([video("waits.mp4")])
    assert load_and_sync(warehouse, store, postgres) == SyncReport(
        37, {"videos": 13, "transcripts": 24, "words": 57, "segments": 23}
    )
    assert is_equal(postgres, store)
    assert rows(postgres, "SELECT count(*) FROM asr.words_current") == [(33,)]
    with snapshot.read(store, Path("/nonexistent")) as there:
        for table in TABLES:
            here = rows(
                postgres,
                "SELECT column_name::text FROM information_schema.columns "
                f"WHERE table_schema = 'asr' AND table_name = '{table}'",
            )
            columns = [column[0] for column in there.execute(f"FROM {table} LIMIT 0").description or ()]
            ours = {"is_current"} if table in ("videos", "transcripts") else set()
            assert {name for (name,) in here} - ours == set(columns) - {"transcript_id"}


def test_a_sync_without_news_writes_nothing(warehouse: Warehouse, store: Store, postgres: str) -> None:
    add_batch(store, "a.mp4", "one two")
    load_and_sync(warehouse, store, postgres)
    written = " UNION ALL ".join(
        f"SELECT xmin::text FROM asr.{table}" for table in (*TABLES, "ledger", "copied")
    )
    before = rows(postgres, written)
    assert sync(postgres, store).objects == 0
    assert rows(postgres, written) == before


def test_only_a_replaced_batch_is_copied_again(warehouse: Warehouse, store: Store, postgres: str) -> None:
    video_id = add_batch(store, "a.mp4", "one two three")
    add_batch(store, "b.mp4", "four")
    load_and_sync(warehouse, store, postgres)
    other = "SELECT xmin::text FROM asr.words WHERE word = 'four'"
    before = rows(postgres, other)
    publish_words(store, "00000001", video_id, "five")
    assert load_and_sync(warehouse, store, postgres).objects == 1
    assert is_equal(postgres, store)
    assert rows(postgres, "SELECT word FROM asr.words_current ORDER BY 1") == [("five",), ("four",)]
    assert rows(postgres, other) == before


def test_a_promotion_a_new_version_and_a_deletion_change_what_is_current(
    warehouse: Warehouse, store: Store, postgres: str
) -> None:
    video_id = add_batch(store, "a.mp4", "one")
    publish_by(store, "n", "00000001", video_id, "won")
    current = "SELECT video_key, model_version, word FROM asr.words_current"

    def after_a_sync() -> list[tuple[Any, ...]]:
        load_and_sync(warehouse, store, postgres)
        assert is_equal(postgres, store)
        return rows(postgres, current)

    assert after_a_sync() == [("a.mp4", "m", "one")]
    promote(store, "n")
    assert after_a_sync() == [("a.mp4", "n", "won")]
    log = IngestLog(store)
    log.append([video("a.mp4", version="2")])
    assert after_a_sync() == []
    assert rows(postgres, "SELECT content_version FROM asr.videos WHERE is_current") == [("2",)]
    log.append([], gone=[video("a.mp4", version="2")])
    assert after_a_sync() == []
    assert rows(postgres, "SELECT count(*) FROM asr.videos WHERE is_current") == [(0,)]
    log.append([video("a.mp4")])
    assert after_a_sync() == [("a.mp4", "n", "won")]


def video(key: str, version: str = "1") -> Video:
    return Video(source=SOURCE, key=key, version=version, size_bytes=1, modified_at=datetime.now(UTC))


def test_nothing_is_left_of_an_erased_video(warehouse: Warehouse, store: Store, postgres: str) -> None:
    add_batch(store, "canary_key.mp4", "canary_word and more")
    add_batch(store, "b.mp4", "two")
    IngestLog(store).append([video("canary_waits.mp4")])
    load_and_sync(warehouse, store, postgres)
    rows(postgres, "ANALYZE", "CHECKPOINT")
    ((folder, database),) = rows(
        postgres,
        "SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = current_database()",
    )
    files = Path(folder) / "base" / str(database)
    assert all(canary in everything_in(files) for canary in (b"canary_key", b"canary_word"))

    log = IngestLog(store)
    traces = erasing.begin(store, log, SOURCE, ["canary_key.mp4", "canary_waits.mp4"])
    erasing.remove(store, traces)
    assert load_and_sync(warehouse, store, postgres).rows["videos"] == 1
    assert is_equal(postgres, store)
    assert len(rows(postgres, "SELECT video_id FROM asr.erased")) == 2
    rows(postgres, "CHECKPOINT")
    assert b"canary" not in everything_in(files)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_what_is_being_erased_is_gone_before_the_store_is_rid_of_it(
    warehouse: Warehouse, store: Store, postgres: str
) -> None:
    video_id = add_batch(store, "a.mp4", "one")
    add_batch(store, "b.mp4", "two")
    load_and_sync(warehouse, store, postgres)
    IngestLog(store).erase([video_id], [1], done=False)
    load_and_sync(warehouse, store, postgres)  # killed here, an erasure leaves its entry and its objects
    assert rows(postgres, "SELECT video_key FROM asr.videos") == [("b.mp4",)]
    assert rows(postgres, "SELECT word FROM asr.words") == [("two",)]


def test_killed_at_any_moment_the_next_sync_gives_the_same_tables(tmp_path: Path, postgres: str) -> None:
    assert differences_after(tmp_path, postgres, seed=1, times=6) == 0


def test_two_syncs_at_once_copy_everything_once(warehouse: Warehouse, store: Store, postgres: str) -> None:
    for n in range(10):
        add_batch(store, f"{n}.mp4", "one two three")
    load(warehouse, store)
    with ThreadPoolExecutor(2) as both:
        reports = list(both.map(lambda _: sync(postgres, store), range(2)))
    assert sorted(report.objects for report in reports) == [0, 20]
    assert is_equal(postgres, store)


def test_who_waits_too_long_for_a_sync_is_told(warehouse: Warehouse, store: Store, postgres: str) -> None:
    import psycopg

    add_batch(store, "a.mp4", "one")
    load(warehouse, store)
    with psycopg.connect(postgres) as other:
        other.execute("SELECT pg_advisory_lock(hashtext('asr'))")
        with pytest.raises(WarehouseError, match=r"another sync, or a reader, is in the way for over 0\.1 s"):
            sync(postgres, store, wait_s=0.1)


def test_hostile_text_is_the_same_behind_it(warehouse: Warehouse, store: Store, postgres: str) -> None:
    keys = [f"{text}.mp4" for text in (*HOSTILE, "x" * 4000, "nul \0 nul")]
    entry = IngestLog(store).append([video(key) for key in keys])
    assert entry
    assert entry.batch
    sidecar = Sidecar(hints=("a,b", "{}", "NULL", "nul \0", *HOSTILE), reference="\n".join(HOSTILE))
    videos = tuple(ExtractedVideo(video=one, status=Status.OK, sidecar=sidecar) for one in entry.videos)
    done = ExtractedBatch(batch=entry.batch, videos=videos)
    store.put(layout.extracted(entry.batch), done.model_dump_json().encode())
    rng = random.Random(1)
    long = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(2000))  # no index takes it
    publish_by(store, "m", entry.batch, entry.videos[0].video_id, *HOSTILE, "nul \0", long)
    load_and_sync(warehouse, store, postgres)
    assert {key for (key,) in rows(postgres, "SELECT video_key FROM asr.videos")} == {
        key.replace("\0", "␀") for key in keys
    }
    ((hints, reference),) = rows(postgres, "SELECT DISTINCT hints, reference FROM asr.videos")
    assert (hints, reference) == (["a,b", "{}", "NULL", "nul ␀", *HOSTILE], "\n".join(HOSTILE))
    spoken = rows(postgres, "SELECT word, word_normalized FROM asr.words ORDER BY word_index")
    assert [word for word, _ in spoken] == [*HOSTILE, "nul ␀", long]
    assert spoken[-1][1] == long[:600]


def test_another_version_of_it_begins_anew(warehouse: Warehouse, store: Store, postgres: str) -> None:
    add_batch(store, "a.mp4", "one")
    load_and_sync(warehouse, store, postgres)
    rows(
        postgres,
        "CREATE ROLE analyst",
        "GRANT USAGE ON SCHEMA asr TO analyst",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA asr GRANT SELECT ON TABLES TO analyst",
        "UPDATE asr.copied SET made_by = 'another'",
        "ALTER TABLE asr.words DROP word CASCADE",
        "CREATE TABLE asr.my_own (n integer)",
    )
    assert sync(postgres, store).objects == 2
    assert is_equal(postgres, store)
    assert rows(postgres, "SELECT count(*) FROM asr.my_own") == [(0,)]
    assert rows(postgres, "SET ROLE analyst", "SELECT word FROM asr.words_current") == [("one",)]


def test_a_store_that_was_begun_anew_replaces_what_another_has_left(
    warehouse: Warehouse, store: Store, postgres: str, tmp_path: Path
) -> None:
    """The same videos have the same ids, in other batches."""
    for key in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        add_batch(store, key, f"first {key}")
    load_and_sync(warehouse, store, postgres)
    anew = Store(url=f"file://{tmp_path / 'anew'}")
    for key in ("e.mp4", "c.mp4", "a.mp4"):
        add_batch(anew, key, f"second {key}")
    load(Warehouse(path=str(tmp_path / "anew.duckdb")), anew)
    sync(postgres, anew)
    assert is_equal(postgres, anew)


def test_somebody_elses_schema_is_left_alone(warehouse: Warehouse, store: Store, postgres: str) -> None:
    add_batch(store, "a.mp4", "one")
    load(warehouse, store)
    rows(postgres, "CREATE SCHEMA asr; CREATE TABLE asr.words (mine text)")
    with pytest.raises(WarehouseError, match="schema asr of that database is somebody else's"):
        sync(postgres, store)
    assert rows(postgres, "SELECT mine FROM asr.words") == []


def test_a_wrong_password_an_absent_server_and_a_url_that_is_none_are_one_sentence(
    warehouse: Warehouse, store: Store, postgres: str
) -> None:
    add_batch(store, "a.mp4", "one")
    load(warehouse, store)
    ((hba,),) = rows(postgres, "SHOW hba_file")
    Path(hba).write_text(f"local all somebody scram-sha-256\n{Path(hba).read_text()}")
    before = rows(postgres, "SELECT pg_conf_load_time()")
    rows(postgres, "CREATE ROLE somebody LOGIN PASSWORD 'right'", "SELECT pg_reload_conf()")
    while rows(postgres, "SELECT pg_conf_load_time()") == before:
        time.sleep(0.05)
    wrong = postgres.replace("postgres:@", "somebody:canary@")
    for url, said in {
        wrong: "password authentication failed",
        "postgresql://somebody:canary@127.0.0.1:1/words": "127.0.0.1.*refused",
        "postgresql://somebody:canary/canary@127.0.0.1/words": "is not of the form",
        "postgresql://somebody:canary@canary@127.0.0.1/words": "is not of the form",
        "postgresql://somebody:%canary@127.0.0.1/words": "is not of the form",
        "postgresql+psycopg2://somebody:canary@127.0.0.1/words": "is not of the form",
    }.items():
        with pytest.raises(WarehouseError, match=said) as told:
            sync(url, store)
        assert "ASR_POSTGRES_URL" in str(told.value)
        assert "\n" not in str(told.value)
        assert "canary" not in "".join(traceback.format_exception(told.value))
    assert "canary" not in repr(PostgresMirror(url=wrong))


def test_a_refused_row_is_quoted_nowhere(warehouse: Warehouse, store: Store, postgres: str) -> None:
    add_batch(store, "a.mp4", "parrot")
    load_and_sync(warehouse, store, postgres)
    rows(postgres, "ALTER TABLE asr.words ADD CHECK (word = '') NOT VALID")
    publish_words(store, "00000001", video("a.mp4").video_id, "parrot parrot")
    load(warehouse, store)
    with pytest.raises(WarehouseError, match="violates check constraint") as told:
        sync(postgres, store)
    assert "parrot" not in "".join(traceback.format_exception(told.value))
    assert rows(postgres, "SELECT word FROM asr.words") == [("parrot",)]


def test_without_psycopg_it_says_how_to_get_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WarehouseError, match=r"pip install 'asr-platform\[postgres\]'"):
        sync("postgresql://127.0.0.1/words", store)
