"""``make bench-ingestion``: nothing missed, nothing doubled, in bounded time and memory."""

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Event
from typing import Annotated, Any

import typer

from benchmarks.bucket import BUCKET, REGION, Plan, bucket
from benchmarks.kills import kills
from benchmarks.report import Check, publish
from resources.aws import S3
from resources.event_queue import EventQueue
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.batches import BatchLimits
from sensors.events import take_events
from sensors.listing import look_on
from sensors.reconciling import compare, reconcile
from speech.types import Seconds


def burst(objects: int, seed: int) -> Iterator[Check]:
    """A listing to the middle of a bucket, which then changes, then its events, then a reconciliation."""
    ticks: list[Seconds] = []

    def tick(work: Callable[[], str]) -> str:
        began = time.monotonic()
        said = work()
        ticks.append(time.monotonic() - began)
        return said

    with tempfile.TemporaryDirectory() as folder, bucket(Plan(objects), seed) as server:
        url, queue_url = server.recv()
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": REGION,
        }
        store = Store(url=f"file://{folder}")
        source = Source(url=f"s3://{BUCKET}/in", s3=S3())
        log = IngestLog(store)
        look = partial(look_on, source, store, log, BatchLimits())
        # The first half is seen by listing before any event is.
        while log.tail * 64 < objects / 2:
            tick(look)
        truth: dict[str, str] = _answer(server, "go on")
        take = partial(take_events, EventQueue(url=queue_url), source, store, log, BatchLimits().at_once)
        while _answer(server, "more"):
            tick(take)
        before = compare(source, log)
        typer.echo(f"after {len(ticks)} ticks, before reconciling: {before}", err=True)
        began = time.monotonic()
        found = reconcile(source, log, BatchLimits().at_once)
        typer.echo(f"reconciled {objects} objects in {time.monotonic() - began:.0f} s: {found}", err=True)
        fresh = IngestLog(store)
        difference = compare(source, fresh)
    missed = sum(not fresh.holds(source.name, key, version) for key, version in truth.items())
    yield Check("missed", missed + difference["missing"] + difference["gone"], "videos", 0)
    yield Check("doubled", difference["doubled"], "videos", 0)
    yield Check("tick_s", max(ticks), "s", 30, below=True)


def _answer(server: Connection, question: str) -> Any:
    server.send(question)
    return server.recv()


HOSTILE = (
    "it's.mp4",
    'quo"te.mp4',
    "new\nline.mp4",
    "a/../b.mp4",
    "a//b.mp4",
    "/lead.mp4",
    "pipe|comma,.mp4",
    "Ünï🎬.mp4",
    "\u202eright-to-left.mp4",
    "'; DROP TABLE words;--.mp4",
    f"{'x' * 1020}.mp4",
    "%2e%2e/+ +.mp4",
)


def hostile_keys() -> Iterator[Check]:
    """Keys of a bucket through log, checkpoint and warehouse to a row, and from the row to the object."""
    with tempfile.TemporaryDirectory() as folder, bucket(Plan(named=HOSTILE), 0) as server:
        os.environ["AWS_ENDPOINT_URL"], _ = server.recv()
        store, source = Store(url=f"file://{folder}/store"), Source(url=f"s3://{BUCKET}", s3=S3())
        reconcile(source, IngestLog(store), BatchLimits().at_once)
        warehouse = Warehouse(path=f"{folder}/warehouse.duckdb")
        with warehouse.exclusive():
            warehouse.load(store, lambda *_: None)
            with warehouse.connect() as connection:
                rows = connection.execute("SELECT video_key, content_version FROM videos").fetchall()
        there = {key: found.version if (found := source.find(key)) else None for key, _ in rows}
    changed = set(HOSTILE) ^ {key for key, _ in rows} | {
        key for key, version in rows if there[key] != version
    }
    yield Check("keys_changed", len(changed), "keys", 0)


MILLION = 1_000_000


class _Endless:
    """A source of so many objects that nobody has to store."""

    name = "s3://endless"

    def __init__(self, objects: int) -> None:
        self._objects = objects
        self._when = datetime(2026, 1, 1, tzinfo=UTC)

    def list(self, after: str | None = None) -> Iterator[Video]:
        first = int(after[:9]) + 1 if after else 0
        for number in range(first, self._objects):
            yield Video(
                source=self.name, key=f"{number:09d}.mp4", version="1", size_bytes=1, modified_at=self._when
            )


def many(objects: int, warm: Event) -> Iterator[Check]:
    """A first look through very many objects, in one process, tick by tick; ``warm`` when a tenth is seen."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_many, args=(theirs, objects))
    process.start()
    ours.recv()
    warm.set()
    first, last, peak = ours.recv()
    process.join(60)
    typer.echo(f"first and last million: {first:.1f} and {last:.1f} s", err=True)
    yield Check("listing_mb", peak, "MB", 1500, below=True)
    yield Check("tick_growth", last / first, "times", 1.5, below=True)


def _many(pipe: Connection, objects: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(url=f"file://{folder}")
        source = Source(url="s3://endless", s3=S3())
        object.__setattr__(source, "_backend", _Endless(objects))
        log = IngestLog(store)
        seen = [(0, time.monotonic())]
        while not look_on(source, store, log, BatchLimits()).endswith(source.url):
            seen.append((log.tail * 64, time.monotonic()))
            if seen[-1][0] >= objects // 10 > seen[-2][0]:
                pipe.send("warm")
        if len(seen) == 1:  # all of it in one tick
            pipe.send("warm")
        seen.append((objects, time.monotonic()))
    first = _seconds(seen, 0, objects // 10)
    last = _seconds(seen, objects - objects // 10, objects)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((first, last, peak))


def _seconds(seen: list[tuple[int, float]], start: int, end: int) -> float:
    """How long it took from object ``start`` to object ``end``, between ticks in a straight line."""
    import numpy as np

    counts, times = zip(*seen, strict=True)
    return float(np.interp(end, counts, times) - np.interp(start, counts, times))


def main(
    seed: Annotated[int, typer.Option(help="Another order of events")] = 1,
    objects: Annotated[int, typer.Option(help="In the bucket that changes")] = 100_000,
    simulated: Annotated[int, typer.Option(help="In the listing that is simulated")] = 10 * MILLION,
) -> None:
    """Measure, print, write ``results/ingestion.json``."""
    warm = Event()
    with ThreadPoolExecutor(1) as beside:
        # The bucket's server is busy on one core, and the long listing, in its own process, on another; but
        # the listing's first tenth is alone, as its last will be: the two are compared.
        listing = beside.submit(list, many(simulated, warm))
        warm.wait(1200)
        checks = [*burst(objects, seed), *hostile_keys(), *kills(), *listing.result()]
    all_hold = publish("ingestion", checks, seed=seed, objects=objects, simulated=simulated)
    raise typer.Exit(0 if all_hold else 1)


if __name__ == "__main__":
    typer.run(main)
