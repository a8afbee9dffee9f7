"""The warehouse: the DuckDB file, its schema and its one writer."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from dagster import ConfigurableResource
from pydantic import Field
from tenacity import retry as retrying
from tenacity import retry_if_exception, stop_after_delay, wait_fixed

from resources.loader import Loader
from resources.store import Store, StoredObject
from speech.errors import WarehouseError, first_line

BYTES_PER_TRANSACTION = 32 << 20
"""Bounds the memory of a load: of Parquet that is about 1.3 million words."""

_HEADERS, _BLOCK, _CHECKSUM = 3 * 4096, 1 << 18, np.uint64(0xBF58476D1CE4E5B9)
"""Of a DuckDB file: bytes before its blocks, and of each; the factor of their checksums."""

_SCHEMA = "".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("schema.sql", "questions.sql")
)
_FIRST_TABLE = "identity"
_SCHEMA_ID = hashlib.blake2b(_SCHEMA.encode(), digest_size=8).hexdigest()


TABLES = {
    name: "FROM " + name
    for name in (
        *("videos", "observations", "erased", "words", "segments", "attempts", "champions"),
        *("comparison", "comparison_by_video", "word_diff"),
    )
} | {
    "transcripts": "SELECT * EXCLUDE (transcript_id) FROM transcripts",
    "transcripts_current": "SELECT * EXCLUDE (transcript_id) FROM transcripts_current",
    "places": "SELECT * EXCLUDE (transcript_id) FROM places "
    "JOIN (SELECT transcript_id, video_id, model_version FROM transcripts) USING (transcript_id)",
}
"""Queries of all that must not depend on how often, in what order or how roughly it was loaded."""


class Content(NamedTuple):
    """How many rows a table has, and a sum over hashes of all of them, whatever their order."""

    rows: int
    hashes: int


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one load did, and what the warehouse holds after it.

    ``warehouse`` names the DuckDB file, ``load`` the newest load that brought anything to it,
    ``ingested_through`` the newest entry of the ingest log in it. ``objects`` counts what this load
    brought; ``words_promised`` is what the published outcomes' own counts add up to, ``videos_unknown``
    the transcripts of videos that are not there, ``champion_changed`` the champion's by another definition
    than the one that became champion. ``crowned_through`` is the newest entry of the champions' log.
    ``growth`` is ``(bucket, hours of audio, words)`` by when videos were taken in: by the day, or by the hour
    while all is younger than two days.
    """

    warehouse: str
    load: int
    ingested_through: int
    objects: int
    videos: int
    words: int
    words_promised: int
    videos_unknown: int
    champion_changed: int
    crowned_through: int
    growth: list[tuple[datetime, float, int]]


_GROWTH = """
WITH taken_in AS (SELECT video_id, min(observed_at) AS seen_at FROM observations GROUP BY ALL),
     scale AS (SELECT if(max(seen_at) - min(seen_at) < INTERVAL 2 DAYS, 'hour', 'day') AS step FROM taken_in),
     spoken AS (SELECT video_id, sum(words) AS words
                FROM transcripts_current GROUP BY ALL)
SELECT date_trunc((SELECT step FROM scale), seen_at) AS bucket,
       coalesce(sum(duration_s), 0) / 3600, coalesce(sum(words), 0)::BIGINT
FROM taken_in JOIN videos USING (video_id) LEFT JOIN spoken USING (video_id) GROUP BY ALL ORDER BY ALL
"""


class Warehouse(ConfigurableResource[Any]):
    """The DuckDB file. Only its writer opens it; readers use a snapshot."""

    path: str = Field(description="The DuckDB file, on a local disk")
    wait_s: float = Field(default=300.0, description="How long to wait for another writer, in seconds")

    @contextmanager
    def exclusive(self) -> Iterator[Path]:
        """Be the only writer, with the file closed or open; yields the file's path.

        DuckDB's own lock ends when anyone in this process closes the file, as copying it does; this
        one does not. Raises :class:`~speech.errors.WarehouseError` after ``wait_s``.
        """
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = Path(f"{path}.lock").open("w")  # noqa: SIM115 - closed below
        except OSError as error:
            raise WarehouseError(
                f"{path}: cannot be written ({error.strerror}); set ASR_WAREHOUSE"
            ) from error
        with lock:
            try:
                self._patiently(lambda error: isinstance(error, BlockingIOError))(fcntl.flock)(
                    lock, fcntl.LOCK_EX | fcntl.LOCK_NB
                )
            except BlockingIOError as error:
                raise WarehouseError(
                    f"{path}: another load has been at work for over {self.wait_s:g} s; try again later"
                ) from error
            yield path

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that may write; call inside :meth:`exclusive`."""
        try:
            connection = self._patiently(_is_locked)(duckdb.connect)(self.path)
        except duckdb.Error as error:
            raise _told(self.path, error) from error
        with connection:
            connection.execute("SET TimeZone = 'UTC'")
            try:
                connection.execute(_SCHEMA)
            except duckdb.CatalogException as error:
                raise WarehouseError(
                    f"{self.path} was made by another version of this program; the next load makes it anew"
                ) from error
            connection.execute(f"CREATE TABLE IF NOT EXISTS made_by AS SELECT '{_SCHEMA_ID}' AS schema")
            yield connection

    def _is_usable(self) -> bool:
        """Whether the file has the tables of this program, and is whole, as far as opening it shows."""
        path = Path(self.path)
        if not path.exists():
            return True  # it will be made
        with path.open("rb") as file:
            head = file.read(_HEADERS)
        if not head.strip(b"\0"):
            return False  # made on a disk that was full, or just before the power failed
        if head[8:12] != b"DUCK":
            raise _not_ours(path, "is no DuckDB file")
        try:
            with self._patiently(_is_locked)(duckdb.connect)(self.path) as connection:
                # Nobody notices what is cut off until it is read, and a load reads little of what is there.
                # Free blocks at the end may be cut off already, and still count.
                (size,) = connection.execute(
                    "SELECT used_blocks * block_size FROM pragma_database_size()"
                ).fetchone() or (0,)
                tables = {
                    name
                    for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
                }
                if tables and _FIRST_TABLE not in tables:
                    raise _not_ours(path, "holds tables that are not of this program")
                made_by = connection.execute("SELECT schema FROM made_by").fetchone()
                is_ours = bool(made_by == (_SCHEMA_ID,)) and path.stat().st_size >= size
        except duckdb.Error as error:
            if _is_blameless(error):
                raise _told(self.path, error) from error
            return False
        return is_ours and _is_whole(path)

    def _patiently(self, busy: Callable[[BaseException], bool]) -> Callable[..., Any]:
        return retrying(
            retry=retry_if_exception(busy),
            stop=stop_after_delay(self.wait_s),
            wait=wait_fixed(0.2),
            reraise=True,
        )

    def load(self, store: Store, progress: Callable[[int, int], None]) -> LoadReport:
        """Load what is published and not loaded yet; call inside :meth:`exclusive`.

        ``progress`` is called with objects done and objects to do. A file that holds a video that was
        erased is made anew: what DuckDB deletes stays in its file. So is a damaged one, and one with other
        tables.
        """
        _remove(self._fresh_path)  # of a rebuild that was cut off; it may hold what was erased since
        if self._is_usable():
            try:
                with self.connect() as connection:
                    report = _load(connection, store, progress)
            except duckdb.Error as error:
                if not _is_damage(error):
                    raise _told(self.path, error) from error
            else:
                if report is not None:
                    return report
        return self.rebuild(store, progress)

    def rebuild(self, store: Store, progress: Callable[[int, int], None]) -> LoadReport:
        """Load all that is published into a new file, and put that in the place of the former one.

        Call inside :meth:`exclusive`. Killed before its end, it leaves the former file as it was.
        """
        _remove(self._fresh_path)
        try:
            with Warehouse(path=self._fresh_path, wait_s=self.wait_s).connect() as connection:
                report = _load(connection, store, progress)
        except duckdb.Error as error:
            _remove(self._fresh_path)  # a disk that is full has no room for it
            raise _told(self.path, error) from error
        assert report is not None  # a new file holds nobody who was erased
        # The former file's log must never meet the new file. Without it, the former lacks a load at most, and
        # its ledger says so.
        Path(f"{self.path}.wal").unlink(missing_ok=True)
        Path(self._fresh_path).replace(self.path)
        return report

    @property
    def _fresh_path(self) -> str:
        return f"{self.path}.new"

    def contents(self) -> dict[str, Content]:
        """What each of :data:`TABLES` holds; empty without a usable file. Call inside :meth:`exclusive`."""
        if not Path(self.path).exists() or not self._is_usable():
            return {}
        with self.connect() as connection:
            return contents(connection)


def _load(
    connection: duckdb.DuckDBPyConnection, store: Store, progress: Callable[[int, int], None]
) -> LoadReport | None:
    """None when the file holds a video that was erased."""
    loader = Loader(connection, store)
    is_new = loader.newest_load() == 0
    # Listed before the log is read: what is published by then has its videos in the log.
    waiting = loader.not_loaded()
    loader.load_ingest_log()
    if loader.holds_erased() and not is_new:
        connection.execute("CHECKPOINT")
        return None
    loader.load_champions()
    for objects in _by_size(waiting):
        loader.load_objects(objects)
        progress(loader.objects, len(waiting))
    connection.execute("CHECKPOINT")
    return LoadReport(
        warehouse=loader.identity(),
        load=loader.newest_load(),
        ingested_through=loader.ingested_through(),
        objects=loader.objects,
        videos=loader.number("SELECT count(*) FROM videos"),
        words=loader.number("SELECT count(*) FROM spoken_words"),
        words_promised=loader.number("SELECT coalesce(sum(words), 0) FROM transcripts"),
        videos_unknown=loader.number("SELECT count(*) FROM transcripts ANTI JOIN videos USING (video_id)"),
        crowned_through=loader.number("SELECT coalesce(max(number), 0) FROM champions"),
        champion_changed=loader.number("SELECT count(*) FROM champion_changed"),
        growth=connection.execute(_GROWTH).fetchall(),
    )


def _is_whole(path: Path) -> bool:
    """Whether every block of a closed DuckDB file is as it was written.

    DuckDB finds a damaged one when somebody reads it: a reader of the copy that is published. Source of the
    format: duckdb/src/common/checksum.cpp; read so, 1 GB takes half a second.
    """
    try:
        with path.open("rb") as file:
            file.seek(_HEADERS)
            while len(block := file.read(_BLOCK)) == _BLOCK:
                words = np.frombuffer(block, np.uint64)
                summed = np.bitwise_xor.reduce(words[1:] * _CHECKSUM) ^ np.uint64(5381)
                if summed != words[0] and block.strip(b"\0"):  # nothing was ever written to one of zeros
                    return False
    except OSError:  # a bad sector
        return False
    return True


def _remove(path: str) -> None:
    for part in (path, f"{path}.wal"):
        Path(part).unlink(missing_ok=True)


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, Content]:
    """What each of :data:`TABLES` holds."""
    found = {}
    for name, query in TABLES.items():
        rows = connection.execute(
            # A sum of 64-bit hashes fits a HUGEINT, and counts a row that is there twice as two.
            f"SELECT count(*), coalesce(sum(hash(rows)::HUGEINT), 0) FROM ({query}) AS rows"  # noqa: S608
        ).fetchone()
        assert rows
        found[name] = Content(*rows)
    return found


def _by_size(objects: Sequence[StoredObject]) -> Iterator[list[StoredObject]]:
    """What one transaction takes: as many as have not more bytes, and one at least."""
    size, taken = 0, list[StoredObject]()
    for found in objects:
        if taken and size + found.size > BYTES_PER_TRANSACTION:
            yield taken
            size, taken = 0, []
        size += found.size
        taken.append(found)
    if taken:
        yield taken


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "Could not set lock" in str(error)


def _is_blameless(error: duckdb.Error) -> bool:
    """Whether it is not the file's fault that nobody can work on it: it will be all right by itself."""
    said = str(error).lower()
    is_full = isinstance(error, duckdb.OutOfMemoryException) or "space left" in said
    return is_full or _is_locked(error) or "permission" in said


def _is_damage(error: duckdb.Error) -> bool:
    """Whether the file is to blame: DuckDB has no one class for what it says of a damaged one."""
    kinds = (
        duckdb.IOException,
        duckdb.FatalException,
        duckdb.InternalException,
        duckdb.SerializationException,
    )
    is_one = isinstance(error, kinds) or type(error) is duckdb.Error or "corrupt" in str(error).lower()
    return is_one and not _is_blameless(error)


def _not_ours(path: Path, what: str) -> WarehouseError:
    return WarehouseError(
        f"{path} {what}, so it stays as it is; move it away, or set ASR_WAREHOUSE: the next load makes one "
        "from the store"
    )


def _told(path: str, error: duckdb.Error) -> WarehouseError:
    if _is_locked(error):
        return WarehouseError(
            f"{path}: another program has the warehouse open; close it, "
            "and read with asr sql, which never gets in the way"
        )
    return WarehouseError(
        f"{path}: DuckDB cannot work on it ({first_line(error)}); is there space on its disk, and may it be "
        "written? asr rebuild makes it anew from the store"
    )
