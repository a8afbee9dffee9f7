"""The warehouse in rough hands: read while it is loaded, and killed while it loads and publishes."""

import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import typer

from benchmarks import spoken
from benchmarks.report import Check
from resources import loader, snapshot
from resources.champions import crown_first
from resources.store import Store
from resources.warehouse import Warehouse, contents

SMALL = spoken.Shape(videos=8, words=120)
READERS = 2
DONE_S = 300
_SPAWN = get_context("spawn")


def readers(root: Path, loads: int) -> Iterator[Check]:
    """So many loads, each published, while other processes read whatever is the newest copy."""
    store, warehouse = _desk(root)
    spoken.ingest(store, loads + 1, SMALL)
    _publish(store, 1)
    _load(store, warehouse)
    over, read = _SPAWN.Event(), [_SPAWN.Pipe(duplex=False) for _ in range(READERS)]
    processes = [_SPAWN.Process(target=_read, args=(root, over, say)) for _, say in read]
    for process in processes:
        process.start()
    for hear, _ in read:
        hear.recv()  # it has begun to read
    for number in range(2, loads + 2):
        _publish(store, number)
        _load(store, warehouse)
    over.set()
    found = [hear.recv() if hear.poll(DONE_S) else (0, ["a reader that did not end"]) for hear, _ in read]
    for process in processes:
        process.join(DONE_S)
    errors = [error for _, errors in found for error in errors]
    typer.echo(f"read {sum(reads for reads, _ in found):,} times during {loads} loads {errors[:3]}", err=True)
    yield Check.at_least("reads_during_loads", sum(reads for reads, _ in found), "", loads)
    yield Check("reader_errors", len(errors), "", 0)


def _read(root: Path, over: Event, say: Connection) -> None:
    """Until it is over: open the newest copy and count its words, twice; a copy never changes."""
    store, reads, errors = Store(url=f"file://{root / 'store'}"), 0, list[str]()
    count = "SELECT (SELECT count(*) FROM words), (SELECT sum(words) FROM transcripts)"
    newest = 0
    say.send("ready")
    while not over.is_set():
        try:
            with snapshot.read(store, root / "cache") as db:
                first, second = (db.execute(count).fetchone() for _ in range(2))
            assert first, "no answer"
            if first != second or first[0] != first[1] or first[0] < newest:
                errors.append(f"{first} and {second} after {newest}")
            newest, reads = first[0], reads + 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            errors.append(repr(error))
    say.send((reads, errors))


def kills(root: Path, seed: int, times: int) -> Iterator[Check]:
    """SIGKILL at random moments of loading and publishing, while batches come and are replaced.

    Then one load that nobody kills: the warehouse and its published copy must hold what one holds that was
    made from the store at once.
    """
    rng = random.Random(seed)
    store, warehouse = _desk(root)
    spoken.ingest(store, 1, SMALL)
    _publish(store, 1)
    whole_s = _killed_after(root, None)
    number = killed = 0
    while killed < times:
        number += 1
        assert number < 4 * times, "loads end before they are killed"
        spoken.ingest(store, 1, SMALL)
        _publish(store, number + 1)
        _publish(store, rng.randrange(1, number + 1), seed=number)  # in place of what was there
        took_s = _killed_after(root, rng.uniform(0, whole_s or 0))
        killed, whole_s = killed + (took_s is None), took_s or whole_s
    _load(store, warehouse)
    with warehouse.exclusive():
        after = warehouse.contents()
    with snapshot.read(store, root / "cache") as db:
        copy = contents(db)
    at_once = Warehouse(path=str(root / "at_once.duckdb"))
    with at_once.exclusive():
        at_once.load(store, lambda *_: None)
        expected = at_once.contents()
    typer.echo(f"{killed} of {number} loads killed; {expected['words'].rows:,} words", err=True)
    wrong = [name for name, content in expected.items() if not content == after[name] == copy[name]]
    yield Check("row_hash_differences", len(wrong), "tables", 0)


def _killed_after(root: Path, seconds: float | None) -> float | None:
    """A load in a process of its own, killed so long after it began (None: never).

    How long it took; None when it was killed.
    """
    hear, say = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_load_alone, args=(root, say))
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


def _load_alone(root: Path, say: Connection) -> None:
    desk = _desk(root)
    say.send("ready")
    _load(*desk)


def _desk(root: Path) -> tuple[Store, Warehouse]:
    loader.POSTINGS_RUN = 20_000  # so that runs of postings begin in here, too
    return Store(url=f"file://{root / 'store'}"), Warehouse(path=str(root / "warehouse.duckdb"))


def _publish(store: Store, number: int, seed: int = 1) -> None:
    for _ in spoken.publish(store, number, seed, SMALL):
        crown_first(store, spoken.MODELS[0], spoken.MODELS[0])


def _load(store: Store, warehouse: Warehouse) -> None:
    with warehouse.exclusive() as path:
        snapshot.publish(store, path, warehouse.load(store, lambda *_: None))
