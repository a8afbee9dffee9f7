"""``make bench-warehouse``: a hundred million words asked and loaded; readers, kills and Postgres beside.

The published copy is asked beside Parquet alone, and beside a plain table in the order of arrival.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import duckdb
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import postgres, spoken
from benchmarks.report import Check, publish
from benchmarks.rough import kills, readers
from resources import layout, snapshot
from resources.champions import crown_first
from resources.ingest_log import IngestLog
from resources.observations import batch_key
from resources.search import search
from resources.store import Store
from resources.warehouse import Warehouse

RANKS = (10, 1_000, 100_000)
QUESTIONS = (
    *(f"word of rank {rank:,}" for rank in RANKS),
    "phrase of two",
    "one transcript",
    "A against B, a batch",
)
TIMES = 7
# A's words that B heard too, at about the same time, in each video of a batch.
_A_AGAINST_B = """
WITH heard AS (FROM {words} WHERE {of_batch})
SELECT video_id, count(*) AS words, count(*) FILTER (EXISTS (
    FROM heard AS b WHERE b.model_version = 'model_b' AND b.video_id = a.video_id
    AND b.word_normalized = a.word_normalized AND abs(b.start_s - a.start_s) < 0.3
)) AS both
FROM heard AS a WHERE model_version = 'model_a' GROUP BY ALL
"""
_HITS = """
WITH hits AS (FROM {words} WHERE word_normalized = $word AND model_version = 'model_a')
SELECT (SELECT count(*) FROM hits), * FROM hits ORDER BY batch, video_id, word_index LIMIT 50
"""
_PHRASE = """
SELECT a.* FROM {words} AS a JOIN {words} AS b USING (video_id, model_version)
WHERE a.word_normalized = $first AND b.word_normalized = $second AND b.word_index = a.word_index + 1
AND model_version = 'model_a' ORDER BY a.batch, video_id, a.word_index LIMIT 50
"""
_TRANSCRIPT = "FROM {words} WHERE video_id = $video AND model_version = 'model_a' ORDER BY word_index"


class Asked(NamedTuple):
    """Milliseconds of one question: the median, and the least and the most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:,.0f} ({self.least:,.0f} to {self.most:,.0f})"


def asked(question: Callable[[], object]) -> Asked:
    """Once to warm it, then seven times, or for ten seconds."""
    question()
    took: list[float] = []
    while len(took) < TIMES and sum(took) < 10_000:
        began = time.perf_counter()
        question()
        took.append(1000 * (time.perf_counter() - began))
    return Asked(statistics.median(took), min(took), max(took))


def published(root: str, seed: int, number: int) -> int:
    """One batch, published; in a process of a pool."""
    return sum(spoken.publish(Store(url=f"file://{root}/store"), number, seed))


def make(root: Path, seed: int, rows: int) -> Store:
    """A store with that many words, by two models."""
    store = Store(url=f"file://{root / 'store'}")
    batches = -(-rows // (len(spoken.MODELS) * spoken.SHAPE.rows))
    spoken.ingest(store, batches)
    # Spawned: a store's client has threads, which a fork would lose.
    with get_context("spawn").Pool(2) as pool:
        jobs = [(str(root), seed, number) for number in range(1, batches + 1)]
        pool.starmap(published, jobs, chunksize=1)
    crown_first(store, spoken.MODELS[0], spoken.MODELS[0])
    return store


def ours(store: Store, batch: str, key: str) -> Iterator[Asked]:
    """Each of :data:`QUESTIONS`, asked of the published copy as a user asks it."""
    of_batch = f"video_id IN (SELECT video_id FROM videos WHERE batch = '{batch}')"
    against = _A_AGAINST_B.format(words="words", of_batch=of_batch)
    with snapshot.read(store, Path("/nonexistent")) as db:
        for rank in RANKS:
            yield asked(partial(search, db, spoken.word(rank), 50))
        yield asked(partial(search, db, f"{spoken.word(1_000)} {spoken.word(1_001)}", 50))
        transcript = "FROM words_current WHERE video_key = ? ORDER BY word_index"
        yield asked(lambda: db.execute(transcript, [key]).fetchall())
        yield asked(lambda: db.execute(against).fetchall())


def plainly(db: duckdb.DuckDBPyConnection, words: str, batch: str, video: str) -> Iterator[Asked]:
    """The same, of one table of words that knows of no postings and of no order."""

    def ask(sql: str, **values: str) -> Asked:
        return asked(lambda: db.execute(sql, values or None).fetchall())

    for rank in RANKS:
        yield ask(_HITS.format(words=words), word=spoken.word(rank))
    yield ask(_PHRASE.format(words=words), first=spoken.word(1_000), second=spoken.word(1_001))
    yield ask(_TRANSCRIPT.format(words=words), video=video)
    yield ask(_A_AGAINST_B.format(words=words, of_batch=f"batch = '{batch}'"))


def asking(root: Path, seed: int, rows: int) -> Iterator[Check]:
    """Load, publish, ask; then the same of Parquet and of a plain table."""
    store, warehouse = make(root, seed, rows), Warehouse(path=str(root / "warehouse.duckdb"))
    began = time.perf_counter()
    with warehouse.exclusive() as path:
        report = warehouse.load(store, lambda *_: None)
        loading_s = time.perf_counter() - began
        snapshot.publish(store, path, report)
        publishing_s = time.perf_counter() - began - loading_s
    note(f"{report.words:,} words loaded in {loading_s:.0f} s, published in {publishing_s:.0f} s more")
    number = IngestLog(store).entry(42 if rows > 50 * spoken.SHAPE.rows * 2 else 1)
    batch, video = batch_key(number.number), number.videos[7]
    columns = {"published copy": list(ours(store, batch, video.key))}
    Path(path).unlink()  # a third copy has to fit on the disk
    with duckdb.connect(root / "plain.duckdb") as db:
        files = root / "store" / layout.TRANSCRIPTS / "*" / "*.parquet"
        db.execute(
            "CREATE VIEW parquet AS SELECT * EXCLUDE (filename), model AS model_version, "
            "regexp_extract(filename, 'batch=(\\d+)', 1) AS batch "
            f"FROM read_parquet('{files}', filename = true)"
        )
        columns["Parquet alone"] = list(plainly(db, "parquet", batch, video.video_id))
        began = time.perf_counter()
        db.execute("CREATE TABLE plain AS FROM parquet")
        db.execute("CHECKPOINT")
        note(f"a plain table: {rows / (time.perf_counter() - began):,.0f} words a second")
        columns["plain table"] = list(plainly(db, "plain", batch, video.video_id))
    show(columns)
    of = dict(zip(QUESTIONS, columns["published copy"], strict=True))
    yield Check("word_ms", of["word of rank 1,000"].median, "ms", 100, below=True)
    yield Check("phrase_ms", of["phrase of two"].median, "ms", 500, below=True)
    yield Check("transcript_ms", of["one transcript"].median, "ms", 50, below=True)
    yield Check("ab_ms", of["A against B, a batch"].median, "ms", 500, below=True)
    yield Check.at_least("load_rows_per_s", report.words / loading_s, "rows/s", 500_000)


def show(columns: dict[str, list[Asked]]) -> None:
    """Milliseconds, side by side."""
    shown = Table("median ms (least to most)", *columns)
    for question, *answers in zip(QUESTIONS, *columns.values(), strict=True):
        shown.add_row(question, *map(str, answers))
    Console().print(shown)


def note(what: str) -> None:
    """On stderr: it takes a while."""
    typer.echo(what, err=True)


def main(rows: int = 100_000_000, seed: int = 1, kill: int = 50, loads: int = 100) -> None:
    """Every check of the warehouse."""
    checks: list[Check] = []
    for part in (
        lambda root: asking(root, seed, rows),
        lambda root: readers(root, loads),
        lambda root: kills(root, seed, kill),
        lambda root: postgres.kills(root, seed),
    ):
        with tempfile.TemporaryDirectory() as root:
            checks += part(Path(root))
    raise typer.Exit(not publish("warehouse", checks, rows=rows, seed=seed, kills=kill, loads=loads))


if __name__ == "__main__":
    typer.run(main)
