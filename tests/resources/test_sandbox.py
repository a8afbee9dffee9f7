"""What an analyst's SQL may not do, tried: files, network, settings, writes, endless time and memory."""

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources import layout, snapshot
from resources.store import Store
from resources.warehouse import Warehouse
from speech.errors import QueryError
from tests.resources.published import NOWHERE, add_batch, load

stolen = pa.table({"secret": [1]})

ONLY_SELECT = "only SELECT is possible here, not "
CLOSED = "disabled by configuration"
NOT_ON_TOP = "must be at the top level"
COPIES = "WITH x AS (COPY (SELECT 1) TO 'FILE') FROM x"

# Each with a part of the sentence that refuses it. FILE, HOST and SNAPSHOT are filled in.
REFUSED = {
    "SELECT * FROM read_csv('FILE')": CLOSED,
    "SELECT * FROM read_text('FILE')": CLOSED,
    "SELECT * FROM read_text('file://FILE')": CLOSED,
    "SELECT * FROM read_text('SNAPSHOT/../../../secret.csv')": CLOSED,
    "SELECT * FROM read_blob('/etc/passwd')": CLOSED,
    "SELECT * FROM read_json('FILE')": CLOSED,
    "SELECT * FROM read_parquet('secret.parquet')": CLOSED,
    "SELECT * FROM read_duckdb('other.duckdb')": CLOSED,
    "SELECT * FROM parquet_metadata('secret.parquet')": CLOSED,
    "SELECT * FROM sniff_csv('FILE')": "",
    "SELECT * FROM glob('/*')": CLOSED,
    "SELECT * FROM glob('SNAPSHOT*')": CLOSED,
    "SELECT * FROM '/etc/passwd'": "does not exist",
    "SELECT * FROM 'secret.parquet'": CLOSED,
    'SELECT * FROM "FILE"': CLOSED,
    "SELECT * FROM stolen": "does not exist",
    "SELECT * FROM mine": "does not exist",
    "SELECT * FROM query('FROM ''FILE''')": CLOSED,
    "SELECT * FROM query('DROP TABLE videos')": "single SELECT",
    "SELECT * FROM query_table('FILE')": CLOSED,
    "SELECT * FROM query_table(['stolen'])": "does not exist",
    "SELECT * FROM pandas_scan(1)": "No function matches",
    "SELECT * FROM read_csv('http://HOST/x.csv')": CLOSED,
    "SELECT * FROM 'http://HOST/x.parquet'": CLOSED,
    "SELECT * FROM read_parquet('s3://HOST/x.parquet')": CLOSED,
    "SELECT * FROM sqlite_scan('FILE', 't')": "not in the catalog",
    "SELECT * FROM duckdb_secrets()": CLOSED,
    "SELECT * FROM duckdb_extensions()": CLOSED,
    "SELECT getenv('HOME')": "does not exist",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := 'FOLDER')": "locked",
    "COPY videos TO 'stolen.csv'": ONLY_SELECT + "COPY",
    "COPY (SELECT 1) TO 'http://HOST/x.csv'": ONLY_SELECT + "COPY",
    "COPY videos FROM 'FILE'": ONLY_SELECT + "COPY",
    "EXPORT DATABASE 'stolen'": ONLY_SELECT + "EXPORT",
    "IMPORT DATABASE 'FOLDER'": ONLY_SELECT,
    "ATTACH 'other.duckdb'": ONLY_SELECT + "ATTACH",
    "ATTACH 'new.duckdb'": ONLY_SELECT + "ATTACH",
    "INSTALL httpfs FROM 'http://HOST'": ONLY_SELECT + "LOAD",
    "LOAD httpfs": ONLY_SELECT + "LOAD",
    "LOAD 'FILE'": ONLY_SELECT + "LOAD",
    "CREATE SECRET s (TYPE s3)": ONLY_SELECT + "CREATE",
    "SET memory_limit = '100GB'": ONLY_SELECT + "SET",
    "SET enable_external_access = true": ONLY_SELECT + "SET",
    "SET lock_configuration = false": ONLY_SELECT + "SET",
    "SET temp_directory = 'FOLDER'": ONLY_SELECT + "SET",
    "RESET memory_limit": ONLY_SELECT + "SET",
    "PRAGMA memory_limit = '100GB'": ONLY_SELECT + "SET",
    "PRAGMA enable_profiling": ONLY_SELECT + "PRAGMA",
    "CREATE TABLE t AS SELECT 1": ONLY_SELECT + "CREATE",
    "CREATE MACRO said(x) AS TABLE SELECT 1": ONLY_SELECT + "CREATE",
    "INSERT INTO videos FROM videos": ONLY_SELECT + "INSERT",
    "UPDATE videos SET video_key = ''": ONLY_SELECT + "UPDATE",
    "DELETE FROM videos": ONLY_SELECT + "DELETE",
    "WITH x AS (DELETE FROM videos RETURNING *) FROM x": NOT_ON_TOP,
    "DROP TABLE videos": ONLY_SELECT + "DROP",
    "ALTER TABLE videos ADD COLUMN x INT": ONLY_SELECT + "ALTER",
    "EXPLAIN ANALYZE DELETE FROM videos": ONLY_SELECT + "EXPLAIN",
    "EXECUTE p": ONLY_SELECT + "EXECUTE",
    "SELECT 1; DELETE FROM videos": "2 statements",
    "SELECT $1": "not provided",
    "SELEC 1": "syntax error",
    "SELECT 'x^2'::INT": "Could not convert string 'x^2'",
}
# DuckDB by itself would do these: all it may reach is its own memory, and the snapshot's own file.
REFUSED_BY_QUERY = {
    "SELECT '\udcff'": "not UTF-8",
    "": "no SQL statement",
    " ; -- nothing": "no SQL statement",
    "SELECT 1; SELECT 2": "2 statements",
    "PREPARE p AS SELECT 1": ONLY_SELECT + "PREPARE",
    "CALL pragma_version()": ONLY_SELECT + "CALL",
    "PRAGMA database_list": ONLY_SELECT + "PRAGMA",
    "SET VARIABLE x = 1": ONLY_SELECT + "SET",
    "CREATE TEMP TABLE t AS SELECT 1": ONLY_SELECT + "CREATE",
    "BEGIN": ONLY_SELECT + "TRANSACTION",
    "CHECKPOINT": ONLY_SELECT + "CALL",
    "COPY (SELECT 1) TO 'SNAPSHOT'": ONLY_SELECT + "COPY",
    "SELECT * FROM read_blob('SNAPSHOT')": "read_blob() is not possible here",
    COPIES.replace("FILE", "SNAPSHOT"): NOT_ON_TOP,
    f"SELECT 1 UNION ({COPIES})".replace("FILE", "SNAPSHOT"): NOT_ON_TOP,
    f"SELECT (SELECT 1 FROM ({COPIES}))".replace("FILE", "SNAPSHOT.wal"): NOT_ON_TOP,
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''SNAPSHOT'') FROM x'))": "json_execute_serialized_sql() is not possible",
    "SELECT 1 WHERE EXISTS (FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1')))": "possible",
    "FROM query('FROM json_' || 'execute_serialized_sql(json_serialize_sql(''SELECT 1''))')": "not possible",
    "FROM destroy_external_resource('json_execute_serialized_sql', json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''SNAPSHOT'') FROM x'))": "destroy_external_resource() is not possible",
    "FROM create_external_resource('x')": "create_external_resource() is not possible",
    "FROM truncate_duckdb_logs()": "not possible",
}


@dataclass
class Place:
    """Where SQL of an analyst's runs, with things lying around that are none of its business."""

    store: Store
    folder: Path
    listener: socket.socket

    def filled_in(self, sql: str) -> str:
        host, port = self.listener.getsockname()
        for name, what in {
            "SNAPSHOT": self.folder / "store" / layout.snapshot(1),
            "FILE": self.folder / "secret.csv",
            "FOLDER": self.folder,
            "HOST": f"{host}:{port}",
        }.items():
            sql = sql.replace(name, str(what))
        return sql

    def all_files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def nobody_came(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self.listener.accept()
            return False
        return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    store = Store(url=f"file://{folder / 'store'}")
    add_batch(store, "a.mp4", "one two three")
    load(Warehouse(path=str(tmp_path_factory.mktemp("elsewhere") / "w.duckdb")), store)
    (folder / "secret.csv").write_text("secret\n1\n")
    pq.write_table(stolen, folder / "secret.parquet")
    duckdb.connect(folder / "other.duckdb").close()
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        listener.setblocking(False)
        patch.chdir(folder)
        yield Place(store, folder, listener)


@pytest.fixture(scope="module")
def connection(place: Place) -> Iterator[duckdb.DuckDBPyConnection]:
    """One for all attempts: it must answer after each."""
    with snapshot.read(place.store, NOWHERE) as connection:
        yield connection


@pytest.fixture
def small(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with little memory, over a copy: DuckDB sets up a file once in a process."""
    shutil.copytree(place.folder / "store", tmp_path / "store")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setitem(snapshot._SETTINGS, "memory_limit", "64MiB")
    with snapshot.read(Store(url=f"file://{tmp_path / 'store'}"), NOWHERE) as connection:
        yield connection


def answer(
    connection: duckdb.DuckDBPyConnection, sql: str, seconds: float = 10.0
) -> list[tuple[object, ...]]:
    with snapshot.query(connection, sql, seconds) as answering:
        return answering.fetchall()


@pytest.mark.parametrize(("sql", "sentence"), (REFUSED | REFUSED_BY_QUERY).items())
def test_what_an_analyst_may_not(
    place: Place, connection: duckdb.DuckDBPyConnection, sql: str, sentence: str
) -> None:
    mine = stolen  # noqa: F841 - so that there is a variable of this name
    before = place.all_files()
    with pytest.raises(QueryError) as refused:
        answer(connection, place.filled_in(sql))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert answer(connection, "SELECT word FROM words_current LIMIT 1") == [("one",)]
    assert place.all_files() == before
    assert place.nobody_came()


@pytest.mark.parametrize("sql", REFUSED)
def test_what_a_connection_may_not_whoever_uses_it(place: Place, sql: str) -> None:
    mine = stolen  # noqa: F841
    before = place.all_files()
    with snapshot.read(place.store, NOWHERE) as connection:
        with pytest.raises(duckdb.Error):
            connection.execute(place.filled_in(sql)).fetchall()
        assert connection.execute("SELECT word FROM words_current LIMIT 1").fetchall() == [("one",)]
    assert place.all_files() == before
    assert place.nobody_came()


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE words_current",
        "SUMMARIZE words",
        "SHOW TABLES",
        "FROM loops()",
        "FROM range(3) JOIN json_each('[1, 2]') ON true",
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'words'",
        "PIVOT words ON model_version IN ('m') USING count(*)",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) FROM n;",
        "SELECT json_serialize_sql('SELECT 1') AS \"Function\", 'GLOB' AS b, '\"Function\": \"GLOB\"' AS c",
    ],
)
def test_what_an_analyst_may(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert sorted(answer(connection, sql), key=repr) == sorted(
        connection.execute(sql).fetchall(), key=repr
    ), "rows come in any order unless the question orders them"


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM range(10_000_000_000) a, range(1_000_000) b",
        "SELECT sleep_ms(60_000)",
        "SELECT * FROM range(10_000_000_000)",
    ],
)
def test_what_takes_too_long_is_ended(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(QueryError, match=r"longer than 0\.5 s; ask for less"):
        answer(connection, sql, 0.5)
    assert time.monotonic() - began < 5
    assert answer(connection, "SELECT 42") == [(42,)]


def test_what_needs_too_much_memory_is_ended(small: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(QueryError, match="more memory than the 64MiB it may have; ask for less"):
        answer(small, "SELECT list(range) FROM range(20_000_000)")
    assert answer(small, "SELECT 42") == [(42,)]


def test_what_does_not_fit_in_memory_spills_far_from_the_store(
    small: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    with snapshot.query(small, "FROM range(9_000_000) ORDER BY hash(range)") as answering:
        assert answering.fetchone()
        (spilled,) = (tmp_path / "tmp").iterdir()
        assert list(spilled.iterdir())
    assert {path.suffix for path in (tmp_path / "store" / "snapshots").iterdir()} == {".json", ".duckdb"}
    small.close()
    assert not spilled.exists()
