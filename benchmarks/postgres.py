"""SIGKILL at random moments of a sync to PostgreSQL, while batches come, are replaced, and champions fall."""

import os
import random
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import typer

from benchmarks import spoken
from benchmarks.report import Check
from resources import champions, postgres, snapshot
from resources.postgres import PostgresMirror
from resources.store import Store
from resources.warehouse import Warehouse

SHAPE = spoken.Shape(videos=16, words=300)
DONE_S = 120

_MIRRORED = {
    "videos": "SELECT *, video_id IN (SELECT video_id FROM videos_current) AS is_current FROM videos",
    "transcripts": (
        "SELECT * EXCLUDE (transcript_id), "
        "transcript_id IN (SELECT transcript_id FROM transcripts_current) AS is_current FROM transcripts"
    ),
    "words": "FROM words",
    "segments": "FROM segments",
    "words_current": "FROM words_current",
}


@contextmanager
def server() -> Iterator[str]:
    """A PostgreSQL server on a socket, with nothing in it; the URL of its database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR, and does without
        from pgserver.postgres_server import get_server
    import psycopg

    # A folder that is nobody else's: as root it runs as another user, who has to get there.
    with tempfile.TemporaryDirectory(prefix="asr-") as folder:
        started = get_server(folder, cleanup_mode="stop")
        try:
            with psycopg.connect(started.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")  # nobody kills it, or cuts its power
                connection.execute("SELECT pg_reload_conf()")
            yield started.get_uri()
        finally:
            started.cleanup()


def differences(url: str, store: Store, cache: Path) -> int:
    """Rows that only the published copy has, and rows that only PostgreSQL has, over the four tables."""
    import psycopg

    found = 0
    with snapshot.read(store, cache) as there, psycopg.connect(url, options="-c timezone=UTC") as here:
        for table, query in _MIRRORED.items():
            expected = there.execute(query)
            names = ", ".join(column[0] for column in expected.description or ())
            rows = _counted(expected.fetchall())
            copied = _counted(here.execute(f"SELECT {names} FROM asr.{table}").fetchall())
            found += (rows - copied).total() + (copied - rows).total()
    return found


def _counted(rows: list[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """Values of two drivers: their lists and time zones are of different kinds."""
    return Counter(
        tuple(str(value) if isinstance(value, (list, datetime)) else value for value in row) for row in rows
    )


def kills(root: Path, seed: int, times: int = 25) -> Iterator[Check]:
    """The check, after so many syncs that were to be killed."""
    with server() as url:
        yield Check("postgres_differences", differences_after(root, url, seed, times), "rows", 0)


def differences_after(root: Path, url: str, seed: int, times: int) -> int:
    """So many syncs, each to be killed at a moment of its own; then one that nobody kills."""
    rng = random.Random(seed)
    store, warehouse = _desk(root)
    spoken.ingest(store, times + 2, SHAPE)
    _change(store, warehouse, 1, rng)
    _sync(root, url)
    _change(store, warehouse, 2, rng)
    whole_s = _killed_after(root, url, None)
    assert whole_s
    killed = behind = 0
    for number in range(3, times + 3):
        _change(store, warehouse, number, rng)
        # A little longer than it takes, with all that killed ones have left to do: some get to their end.
        took = _killed_after(root, url, rng.uniform(0, 1.2 * whole_s * (1 + behind)))
        killed, behind = (killed + 1, behind + 1) if took is None else (killed, 0)
    typer.echo(f"killed {killed} of {times} syncs, of which one takes {whole_s:.2f} s", err=True)
    _sync(root, url)
    return differences(url, store, root / "cache")


def _change(store: Store, warehouse: Warehouse, number: int, rng: random.Random) -> None:
    """Publish a batch, and another in place of one that is there; promote the other model; load."""
    for batch in (number, rng.randrange(1, number + 1)):
        list(spoken.publish(store, batch, rng.randrange(1 << 30), SHAPE))
    reigning = champions.reigning(store)
    model = spoken.MODELS[number % 2]
    if reigning:
        champions.promote(store, model, reigning, "bench", "", {})
    else:
        champions.crown_first(store, model, "")
    with warehouse.exclusive() as path:
        snapshot.publish(store, path, warehouse.load(store, lambda *_: None))


def _killed_after(root: Path, url: str, seconds: float | None) -> float | None:
    """A sync in a process of its own, killed so long after it began (None: never).

    How long it took; None when it was killed.
    """
    context = get_context("forkserver")  # never a fork of this process: a store's client has threads
    context.set_forkserver_preload([__name__])
    hear, say = context.Pipe(duplex=False)
    process = context.Process(target=_sync, args=(root, url, say))
    process.start()
    hear.recv()  # it is about to begin
    began = time.monotonic()
    process.join(DONE_S if seconds is None else seconds)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join(DONE_S)
    if process.exitcode == -signal.SIGKILL:
        return None
    assert process.exitcode == 0
    return time.monotonic() - began


def _sync(root: Path, url: str, say: Connection | None = None) -> None:
    postgres.OBJECTS_PER_TRANSACTION = 2  # so that a sync has several
    store, _ = _desk(root)
    if say:
        import psycopg  # noqa: F401 - before the clock runs

        say.send("ready")
    PostgresMirror(url=url).sync(store, root / "cache", lambda *_: None)


def _desk(root: Path) -> tuple[Store, Warehouse]:
    return Store(url=f"file://{root / 'store'}"), Warehouse(path=str(root / "warehouse.duckdb"))
