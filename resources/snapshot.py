"""The published copy of the warehouse that everybody reads.

A snapshot is a numbered object that never changes; ``latest.json`` names the newest. So a reader
never waits for the writer, never blocks it, and needs nothing but the store.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
from pydantic import BaseModel, ValidationError

from resources import layout
from resources.settings import local_path
from resources.store import Store
from resources.warehouse import LoadReport
from speech.errors import QueryError, StoreError, WarehouseError, first_line
from speech.types import Seconds
from speech.watchdog import watchdog

KEEP = 3
"""Older snapshots are deleted; a reader that has just read the name of one has time to fetch it."""

CACHED_S: Seconds = 3600.0
"""A fetched copy is kept at least so long: another reader may be about to open it."""

SECONDS: Seconds = 600.0
"""A query of somebody's own is ended after so long."""

_HALF_OF_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 21
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # a variable of this program is no table
    "memory_limit": f"{_HALF_OF_MEMORY}MiB",
    "max_temp_directory_size": "20GiB",
    "lock_configuration": True,
    "allowed_configs": ["TimeZone"],  # which DuckDB does not know before it has opened the file
}
_NOBODY_GUESSES = uuid4().hex
_CALLED = re.compile(r'"Function": "(\w+)"')
_HARMLESS = re.compile(r"RANGE|GENERATE_SERIES|REPEAT|REPEAT_ROW|JSON_EACH|JSON_TREE|(DUCKDB|PRAGMA)_\w+")
"""Table functions that a reader may call. Some that are left out run SQL in a connection of their own."""


class Latest(BaseModel, frozen=True):
    """Which snapshot is the newest, and of which load of which DuckDB file."""

    number: int
    warehouse: str
    load: int


def latest(store: Store) -> Latest | None:
    """The newest snapshot; None when nothing was published yet."""
    data = store.get(layout.LATEST_SNAPSHOT)
    try:
        return Latest.model_validate_json(data) if data is not None else None
    except ValidationError as error:
        raise StoreError(
            f"{store.url}/{layout.LATEST_SNAPSHOT} is damaged: delete it and load again"
        ) from error


def publish(store: Store, path: Path, report: LoadReport) -> bool:
    """Publish the closed DuckDB file as the load left it; False when that is published already.

    Call with the warehouse held exclusively. Killed half-way, it leaves the former snapshot current.
    """
    former = latest(store)
    if former and (former.warehouse, former.load) == (report.warehouse, report.load):
        return False
    number = former.number + 1 if former else 1
    newest = Latest(number=number, warehouse=report.warehouse, load=report.load)
    store.put(layout.snapshot(number), path)
    store.put(layout.LATEST_SNAPSHOT, newest.model_dump_json().encode())
    delete_former(store, KEEP)
    return True


def delete_former(store: Store, keep: int = 1) -> None:
    """Remove every copy but so many of the newest; those that a kill has left, too."""
    newest = latest(store)
    numbers = range(newest.number, max(0, newest.number - keep), -1) if newest else ()
    kept = {layout.LATEST_SNAPSHOT, *map(layout.snapshot, numbers)}
    for found in list(store.list(layout.SNAPSHOTS)):
        if found.key not in kept:
            store.delete(found.key)


@contextmanager
def read(store: Store, cache: Path, *, files: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """The newest snapshot, read-only and sandboxed: no files, no network, no writes, no settings.

    What others wrote goes through :func:`query`: by itself DuckDB lets COPY reach the snapshot's own file.
    With ``files`` any file can be read and written: for SQL of ours alone. From a store that is not a folder
    the snapshot is fetched once into ``cache``. Raises :class:`~speech.errors.WarehouseError` when nothing
    was published yet.
    """
    folder = local_path(store.url)
    # Asking must not make a folder where there is none.
    newest = None if folder and not folder.exists() else latest(store)
    if newest is None:
        raise WarehouseError(f"{store.url}: there are no words yet; run asr run (or asr demo) first")
    key = layout.snapshot(newest.number)
    path = folder / key if folder else _fetched(store, key, cache)
    try:
        # A large sort spills beside the file unless told otherwise, and that is the store. One place for each
        # process: DuckDB refuses a second connection that is set up otherwise.
        spill = Path(tempfile.gettempdir()) / f"asr-{os.getpid()}-{_NOBODY_GUESSES}"
        connection = duckdb.connect(
            path,
            read_only=True,
            config=_SETTINGS | {"temp_directory": str(spill), "enable_external_access": files},
        )
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise WarehouseError(f"{path}: the snapshot cannot be opened: {first_line(error)}") from error
    with connection:
        try:
            yield connection
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C
                raise KeyboardInterrupt from error
            raise
        except duckdb.Error as error:
            # Only what a disk that is full and a damaged file are told by; the rest is about somebody's SQL.
            if isinstance(error, duckdb.IOException) or type(error) is duckdb.Error:
                raise WarehouseError(f"{path}: the snapshot cannot be read: {first_line(error)}") from error
            raise


def champion(connection: duckdb.DuckDBPyConnection) -> str:
    """The model version whose words are the current ones; empty before there is one."""
    (champion,) = connection.execute("SELECT model_version FROM champion_current").fetchone() or ("",)
    return champion or ""


def rows(connection: duckdb.DuckDBPyConnection, sql: str, asked: Any = None) -> list[dict[str, Any]]:
    """All rows of an answer, each by name of column."""
    answer = connection.execute(sql, asked)
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@contextmanager
def query(
    connection: duckdb.DuckDBPyConnection, sql: str, seconds: Seconds = SECONDS
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Run one SELECT; its rows are fetched from what is yielded, ``seconds`` at most for all of it.

    Raises :class:`~speech.errors.QueryError` for anything else, and for what takes longer or more memory.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise QueryError("the SQL cannot be answered: it is not UTF-8") from error
    try:
        statements = connection.extract_statements(sql)
        if not statements:
            raise QueryError("there is no SQL statement to answer; give one SELECT")
        if len(statements) > 1:
            raise QueryError(f"these are {len(statements)} statements; give one at a time")
        if statements[0].type is not duckdb.StatementType.SELECT:
            kind = statements[0].type.name
            raise QueryError(f"only SELECT is possible here, not {kind}: this is a read-only copy")
        with watchdog(seconds, connection.interrupt):
            _refuse_side_effects(connection, sql)
            yield _execute(connection, sql)
    except duckdb.InterruptException as error:
        raise QueryError(
            f"the SQL took longer than {seconds:g} s; ask for less, or give it more time"
        ) from error
    except duckdb.OutOfMemoryException as error:
        limit = _SETTINGS["memory_limit"]
        raise QueryError(f"the SQL needs more memory than the {limit} it may have; ask for less") from error
    except duckdb.Error as error:
        message = " ".join(str(error).partition("\n\nLINE ")[0].split())
        raise QueryError(f"the SQL cannot be answered: {message}") from error


def _execute(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """In a thread of its own: DuckDB notices Ctrl-C when a query ends, and who waits for a thread at once."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(connection.execute, sql).result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _refuse_side_effects(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """A SELECT may have a COPY in its WITH clause, which query() does not take, or call what runs one."""
    ((_, plan),) = connection.execute("EXPLAIN (FORMAT json) FROM query(?)", [sql]).fetchall()
    for function in _CALLED.findall(plan):
        if not _HARMLESS.fullmatch(function):
            raise QueryError(f"the SQL cannot be answered: {function.lower()}() is not possible here")


def _fetched(store: Store, key: str, cache: Path) -> Path:
    head = store.head(key)
    if head is None:
        raise WarehouseError(f"{store.url}/{key} is gone; a newer snapshot is there: ask again")
    # The ETag is part of the name, so another store's snapshot of this number is never taken for it.
    name = "".join(char for char in head.etag if char.isalnum())
    path = cache / f"{name}-{Path(key).name}"
    if not path.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Readers share the cache: each fetches into a file of its own, and the last rename wins.
            with tempfile.TemporaryDirectory(dir=cache) as own:
                store.fetch(key, Path(own) / "snapshot").replace(path)
        except (OSError, StoreError) as error:
            why = error.__context__ if isinstance(error, StoreError) else error
            if not isinstance(why, OSError):
                raise
            raise WarehouseError(
                f"{cache}: there must be room for a copy of the words ({why.strerror}); free some, or set "
                "XDG_CACHE_HOME"
            ) from error
        for former in cache.glob("*.duckdb"):
            if time.time() - former.stat().st_mtime > CACHED_S:
                former.unlink(missing_ok=True)
    return path
