"""The words in PostgreSQL: a mirror of the newest published copy, for those who ask there.

It follows the copy and not the loads. What of a batch has another ETag here than there is replaced, in one
transaction with its ledger row: a kill leaves all of it or nothing, and the next sync goes on from there.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
from dagster import ConfigurableResource
from pydantic import Field

from resources import layout, snapshot
from resources.store import Store
from speech.errors import WarehouseError, first_line

if TYPE_CHECKING:
    from psycopg import Connection

OBJECTS_PER_TRANSACTION = 8
"""Full ones are up to a million words, which take ten seconds: that much a kill can cost."""

ROWS = 10_000
"""In memory at once."""

TABLES = ("videos", "transcripts", "words", "segments")
_SCHEMA = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_SCHEMA_ID = hashlib.blake2b(_SCHEMA.encode(), digest_size=8).hexdigest()

# What the published copy has of some units.
_UNITS = "(SELECT unnest($batches) AS batch, unnest($models) AS model_version)"
_VIDEOS = f"""
FROM videos SEMI JOIN (FROM {_UNITS} WHERE model_version = '') USING (batch) ANTI JOIN erased USING (video_id)
"""
_TRANSCRIPTS = f"""
FROM transcripts SEMI JOIN {_UNITS} USING (batch, model_version) ANTI JOIN erased USING (video_id)
"""
_SPOKEN = f"""
FROM spoken_{{}} JOIN (SELECT transcript_id, video_id, model_version {_TRANSCRIPTS}) USING (transcript_id)
"""

_SCRATCH = """
CREATE TEMP TABLE units (batch text, model_version text, etag text) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE new_videos (LIKE videos INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE new_transcripts (LIKE transcripts INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE now_current (video_id text, model_version text) ON COMMIT DELETE ROWS;
"""
# By units, and by videos: in a store that was begun anew they may be of other batches than here.
_DELETE = """
DELETE FROM {} WHERE (video_id, model_version) IN (
    SELECT video_id, model_version FROM transcripts JOIN units USING (batch, model_version)
    UNION SELECT video_id, model_version FROM new_transcripts
)
"""
_DELETE_GONE = """
DELETE FROM transcripts WHERE (batch, model_version) IN (SELECT batch, model_version FROM units)
AND (video_id, model_version) NOT IN (SELECT video_id, model_version FROM new_transcripts);
DELETE FROM videos WHERE batch IN (SELECT batch FROM units WHERE model_version = '')
AND video_id NOT IN (SELECT video_id FROM new_videos);
"""
_WRITE_LEDGER = """
DELETE FROM ledger WHERE (batch, model_version) IN (SELECT batch, model_version FROM units);
INSERT INTO ledger SELECT * FROM units WHERE etag IS NOT NULL;
"""
# First who is not and then who is: no two transcripts of a video may be.
_CHOOSE = """
UPDATE videos SET is_current = false
WHERE is_current AND NOT EXISTS (SELECT FROM now_current AS now WHERE now.video_id = videos.video_id);
UPDATE videos SET is_current = true
FROM now_current AS now WHERE now.video_id = videos.video_id AND NOT is_current;
UPDATE transcripts AS t SET is_current = false WHERE is_current AND NOT EXISTS (
    SELECT FROM now_current AS now WHERE now.video_id = t.video_id AND now.model_version = t.model_version
);
UPDATE transcripts AS t SET is_current = true
FROM now_current AS now
WHERE now.video_id = t.video_id AND now.model_version = t.model_version AND NOT is_current;
"""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Objects of the store that a sync copied, and rows that the published copy has of each table."""

    objects: int
    rows: dict[str, int]


class Unit(NamedTuple):
    """What is replaced at once: a batch's transcripts by a model version, or its videos (by none: '').

    ``etag`` is '' for videos that wait, and None for what the published copy does not have any more.
    """

    load: int
    batch: str
    model_version: str
    etag: str | None


class PostgresMirror(ConfigurableResource[Any]):
    """Schema ``asr`` of a database. The URL may hold a password: it is in no message and no log."""

    url: str = Field(repr=False, description="postgresql://user:password@host:5432/database")
    wait_s: float = Field(
        default=300.0, description="How long to wait for another sync, or reader, in seconds"
    )

    def sync(self, store: Store, cache: Path, progress: Callable[[int, int], None]) -> SyncReport:
        """Make PostgreSQL equal to the newest published copy (:func:`resources.snapshot.read`).

        ``progress`` is called with objects done and objects to do. Syncs exclude each other. Raises
        :class:`~speech.errors.WarehouseError` when nothing was published yet, or PostgreSQL refuses.
        """
        # Read behind the lock: a copy read before it could bring back what was erased since.
        with self._alone() as postgres, snapshot.read(store, cache) as warehouse:
            return _Sync(postgres, warehouse).run(progress)

    @contextmanager
    def _alone(self) -> Iterator["Connection"]:
        """A connection that holds the lock of syncs for as long as it lives."""
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise WarehouseError("psycopg is not installed: pip install 'asr-platform[postgres]'") from error
        # No error of psycopg's is told as a cause: it may quote a row, or a part of the password.
        try:
            given = conninfo_to_dict(self.url)
        except (psycopg.Error, UnicodeError):
            given = {}
        host, database = given.get("host") or "localhost", given.get("dbname")
        if not given or "@" in f"{host}{database}":
            raise WarehouseError(
                "ASR_POSTGRES_URL is not of the form postgresql://user:password@host:5432/database; "
                "in its password write %40 for @, %2F for /, %3A for : and %25 for %"
            )
        try:
            with psycopg.connect(
                self.url,
                autocommit=True,
                client_encoding="UTF8",
                connect_timeout=given.get("connect_timeout") or 10,
            ) as postgres:
                postgres.execute(
                    "SELECT set_config('search_path', 'asr', false), set_config('lock_timeout', %s, false), "
                    "set_config('statement_timeout', '0', false)",
                    [f"{self.wait_s * 1000:.0f}ms"],
                )
                postgres.execute("SELECT pg_advisory_lock(hashtext('asr'))")
                yield postgres
        except psycopg.errors.LockNotAvailable:
            raise WarehouseError(
                f"PostgreSQL on {host}: another sync, or a reader, is in the way for over {self.wait_s:g} s; "
                "try again later"
            ) from None
        except psycopg.Error as error:
            raise WarehouseError(
                f"PostgreSQL on {host}: {first_line(error)}; check the server, and ASR_POSTGRES_URL"
            ) from None


class _Sync:
    """One sync, from a published copy to a connection over which nobody else syncs."""

    def __init__(self, postgres: "Connection", warehouse: duckdb.DuckDBPyConnection) -> None:
        self._postgres, self._warehouse = postgres, warehouse

    def run(self, progress: Callable[[int, int], None]) -> SyncReport:
        newest = self._ask("SELECT warehouse, (SELECT max(load) FROM load_ledger) FROM identity")[0]
        units: list[Unit] = []
        if self._copied() != newest:
            self._postgres.execute(_SCRATCH)
            self._erase()
            units = self._changed()
            for first in range(0, len(units), OBJECTS_PER_TRANSACTION):
                progress(first, len(units))
                self._replace(units[first : first + OBJECTS_PER_TRANSACTION])
            self._choose(newest)
        progress(len(units), len(units))
        counts = {table: self._ask(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608
        return SyncReport(len(units), counts)

    def _ask(self, sql: str) -> list[Any]:
        return self._warehouse.execute(sql).fetchall()

    def _copied(self) -> tuple[Any, ...]:
        """Which load of which DuckDB file is in here; tables that another version made are made anew."""
        fetch = self._postgres.execute
        if fetch("SELECT to_regclass('asr.copied')").fetchone() != (None,):
            made_by, *copied = fetch("SELECT made_by, warehouse, load FROM copied").fetchone() or ("",)
            if made_by == _SCHEMA_ID:
                return tuple(copied)
        elif fetch("SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace('asr')").fetchone():
            raise WarehouseError("the schema asr of that database is somebody else's; name another database")
        with self._postgres.transaction():
            if fetch("SELECT to_regnamespace('asr')").fetchone() == (None,):
                fetch("CREATE SCHEMA asr")
            fetch(_SCHEMA)
            fetch("INSERT INTO copied VALUES (%s)", [_SCHEMA_ID])
        return ()

    def _erase(self) -> None:
        """Delete what was erased, and write the tables' files anew without it."""
        erased = [video_id for (video_id,) in self._ask("SELECT video_id FROM erased")]
        if {video_id for (video_id,) in self._postgres.execute("SELECT video_id FROM erased")} != set(erased):
            with self._postgres.transaction():
                for table in TABLES:
                    self._postgres.execute(f"DELETE FROM {table} WHERE video_id = ANY(%s)", [erased])  # noqa: S608
            # Statistics quote values, too; who may not rewrite those is warned, and they go in time.
            self._postgres.execute(f"VACUUM (FULL, ANALYZE) {', '.join(TABLES)}, pg_statistic")
            # Last: killed before it, the next sync does all of it again.
            with self._postgres.transaction():
                self._postgres.execute("DELETE FROM erased")
                self._postgres.execute("INSERT INTO erased SELECT unnest(%s::text[])", [erased])

    def _changed(self) -> list[Unit]:
        """What is there in another state than here, by load: what lies together is copied together."""
        states = {key: state for key, *state in self._ask("SELECT object, load, etag FROM load_ledger")}
        here = self._postgres.execute("SELECT batch, model_version, etag FROM ledger")
        ledger = {(batch, model): etag for batch, model, etag in here}
        changed = []
        for batch, model in self._ask(
            "SELECT batch, '' FROM videos UNION SELECT batch, model_version FROM transcripts"
        ):
            key = layout.transcripts(model, batch) if model else layout.extracted(batch)
            load, etag = states.get(key, (0, ""))
            if ledger.pop((batch, model), None) != etag:
                changed.append(Unit(load, batch, model, etag))
        return sorted(changed) + [Unit(0, batch, model, None) for batch, model in ledger]

    def _replace(self, units: list[Unit]) -> None:
        """Have of these what the published copy has."""
        of_units = {"batches": [one.batch for one in units], "models": [one.model_version for one in units]}
        with self._postgres.transaction():
            with self._postgres.cursor() as cursor:
                cursor.executemany("INSERT INTO units VALUES (%s, %s, %s)", [unit[1:] for unit in units])
            videos = self._copy("videos", "new_videos", _VIDEOS, of_units)
            transcripts = self._copy("transcripts", "new_transcripts", _TRANSCRIPTS, of_units)
            # Without figures about them PostgreSQL might look for their words among all words.
            self._postgres.execute("ANALYZE units, new_videos (video_id), new_transcripts (video_id)")
            for table in ("words", "segments"):
                self._postgres.execute(_DELETE.format(table))
            self._postgres.execute(_DELETE_GONE)
            self._upsert("videos", videos, "video_id")
            self._upsert("transcripts", transcripts, "video_id, model_version")
            for table in ("words", "segments"):
                self._copy(table, table, _SPOKEN.format(table), of_units)
            self._postgres.execute(_WRITE_LEDGER)

    def _copy(self, table: str, into: str, rows: str, of_units: dict[str, list[str]]) -> list[str]:
        """Copy what the published copy has of the columns of ``table``; their names."""
        kinds = self._postgres.execute(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = %s::regclass "
            "AND attnum > 0 AND NOT attisdropped AND attname <> 'is_current' ORDER BY attnum",
            [table],
        ).fetchall()
        names = [name for name, _ in kinds]
        shown = ", ".join(f"{_as_held(name, kind)} AS {name}" for name, kind in kinds)
        self._stream(
            f"SELECT {shown} {rows}", of_units, f"{into} ({', '.join(names)})", [kind for _, kind in kinds]
        )
        return names

    def _stream(self, sql: str, parameters: dict[str, list[str]], into: str, kinds: list[str]) -> None:
        answer = self._warehouse.execute(sql, parameters)
        # Binary: nothing that is said in a word has a meaning for it.
        with self._postgres.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(kinds)
            while rows := answer.fetchmany(ROWS):
                for row in rows:
                    copy.write_row(row)

    def _upsert(self, table: str, columns: list[str], key: str) -> None:
        """What is known keeps ``is_current``, which is none of the columns."""
        names, written = ", ".join(columns), ", ".join(f"{name} = excluded.{name}" for name in columns)
        self._postgres.execute(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM new_{table} "  # noqa: S608
            f"ON CONFLICT ({key}) DO UPDATE SET {written}"
        )

    def _choose(self, newest: tuple[Any, ...]) -> None:
        """Say what is current now, all at once, and that everything is here."""
        current = "FROM videos_current LEFT JOIN transcripts_current USING (video_id)"
        with self._postgres.transaction():
            self._stream(f"SELECT video_id, model_version {current}", {}, "now_current", ["text", "text"])
            self._postgres.execute("ANALYZE now_current")
            self._postgres.execute(_CHOOSE)
            self._postgres.execute("UPDATE copied SET warehouse = %s, load = %s", newest)


def _as_held(column: str, kind: str) -> str:
    """A column as PostgreSQL holds it: U+2400 for U+0000, which none of its texts can have."""
    if column == "word_normalized":
        return f"left(replace({column}, chr(0), '␀'), 600)"
    if kind == "text[]":
        return f"list_transform({column}, lambda one: replace(one, chr(0), '␀'))"
    return f"replace({column}, chr(0), '␀')" if kind == "text" else column
