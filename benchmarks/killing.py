"""SIGKILL before and after every PUT, delete and commit of DuckDB's, and the first of each kind of rename,
event and commit of Dagster's, through the whole graph, each in a run of its own.

The moments are found by a run that nobody kills, in which all of these are watched where they happen: what
writes something new is killed there the day it is written. Then the same command again, and all must be the
same: words, segments, Parquet.
"""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import typer

from benchmarks.moments import Moments
from benchmarks.report import Check

SAMPLES = Path(__file__).parents[1] / "samples" / "videos"
VIDEOS = ("delayed_audio.mp4", "silent.mp4", "corrupt.mp4")
MODELS = """
[first]
engine = "pocketsphinx"
champion = true
options = { fwdflat = false, maxhmmpf = 3000, topn = 2, ds = 2 }

[second]
engine = "pocketsphinx"
options = { fwdflat = false, maxhmmpf = 1000, topn = 2, ds = 3 }
"""
TABLES = ("words", "segments", "videos", "transcripts", "words_current", "comparison_by_video", "word_diff")
BY_STEP = {"ASSET_MATERIALIZATION", "STEP_SUCCESS"}
DONE_S = 300
AT_ONCE = 2
# What is imported once for all of them; not what reads the environment, or has threads.
PRELOADED = [
    "dagster",
    "dagster_aws.s3",
    "duckdb",
    "obstore",
    "pyarrow.parquet",
    "jiwer",
    "scipy.stats",
    "matplotlib",
]


def kill_points(every: int = 1) -> Iterator[Check]:
    """Every moment there is, or one in so many."""
    with TemporaryDirectory() as temporary:
        desk = Path(temporary)
        source = desk / "videos"
        source.mkdir(parents=True)
        for name in VIDEOS:
            shutil.copy2(SAMPLES / name, source)
        (desk / "models.toml").write_text(MODELS)
        code = _run(desk, "undisturbed", None)
        assert code == 0, f"the run that nobody killed ended with {code}"
        names = json.loads((desk / "undisturbed" / "moments.json").read_text())
        expected = _written(desk / "undisturbed")
        assert expected["words"], "nobody spoke"
        typer.echo(f"{sum(names.values())} moments, {len(names)} of them unlike", err=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ended = list(pool.map(lambda name: _killed(desk, name, expected), list(names)[::every]))
    lost, doubled = (sum(one[place] for one in ended) for place in (0, 1))
    bar = 30 if every == 1 else 1
    yield Check.at_least("kill_points", len(ended), f"of {len(names)} kinds", bar)
    yield Check("lost", lost, "rows", 0)
    yield Check("doubled", doubled, "rows", 0)


def _killed(desk: Path, name: str, expected: dict[str, Counter[Any]]) -> tuple[int, int]:
    """Rows that are missing, and rows too many, once a run that was killed then was started again."""
    folder = re.sub(r"\W+", "_", name)
    code = _run(desk, folder, name)
    assert code == -signal.SIGKILL, f"{name}: was to be killed, and ended with {code}"
    code = _run(desk, folder, None)
    if code != 0:
        typer.echo(f"killed {name}: the next run ended with {code}", err=True)
        return 1, 0
    found = _written(desk / folder)
    lost = sum((expected[table] - found[table]).total() for table in expected)
    doubled = sum((found[table] - expected[table]).total() for table in expected)
    if lost or doubled:
        typer.echo(f"killed {name}: {lost} rows lost, {doubled} too many", err=True)
    else:
        shutil.rmtree(desk / folder)
    return lost, doubled


def _run(desk: Path, folder: str, kill_at: str | None) -> int | None:
    """All that asr run does, in a process of its own; its exit code."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])  # type: ignore[attr-defined]
    process = context.Process(target=_work, args=(desk, folder, kill_at))
    process.start()
    process.join(DONE_S)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _work(desk: Path, folder: str, kill_at: str | None) -> None:
    os.environ |= {
        "ASR_SOURCE_URL": str(desk / "videos"),
        "ASR_STORE_URL": str(desk / folder / "data"),
        "ASR_MODELS": str(desk / "models.toml"),
    }
    os.environ.pop("DAGSTER_HOME", None)
    os.chdir(desk)
    from asr_assets.processing import process_everything
    from resources.settings import Settings

    moments = Moments(kill_at)
    with ExitStack() as stack:
        _watch(moments, stack)
        process_everything(Settings.from_env(), workers=1)
    (desk / folder / "moments.json").write_text(json.dumps(moments.names))


def _watch(moments: Moments, stack: ExitStack) -> None:
    """Every way in which something gets where it stays after a process has gone."""
    import duckdb
    import obstore
    from dagster._core.storage.event_log import SqliteEventLogStorage
    from sqlalchemy.engine.default import DefaultDialect

    happening, seen = "Dagster's start", Counter[str]()

    def watch(owner: Any, method: str, name: Any) -> None:
        stack.enter_context(patch.object(owner, method, moments.around(getattr(owner, method), name)))

    def event(_: Any, entry: Any) -> str:
        nonlocal happening
        what = entry.dagster_event
        # Of what says that an asset is there, one for each; else one of a kind.
        about = what.step_key if what and what.event_type_value in BY_STEP else ""
        happening = f"{what.event_type_value} {about}".strip() if what else "a line of the log"
        return f"event {happening}"

    def by_itself(sql: str) -> str | None:
        """What is committed as soon as it is done."""
        if "CREATE TABLE IF NOT EXISTS" in sql:
            return numbered("DuckDB's tables")
        return numbered("DuckDB's checkpoint") if sql == "CHECKPOINT" else None

    def numbered(name: str) -> str:
        seen[name] += 1
        return f"{name}, {seen[name]}"

    watch(obstore, "put", lambda _, key, *__, **___: numbered(f"PUT {_kind(key)}"))
    watch(obstore, "delete", lambda _, key, *__, **___: numbered(f"DELETE {_kind(key)}"))
    watch(duckdb.DuckDBPyConnection, "commit", lambda *_: numbered("DuckDB's commit"))
    watch(duckdb.DuckDBPyConnection, "execute", lambda _, sql, *__: by_itself(sql))
    watch(duckdb.DuckDBPyConnection, "__exit__", lambda *_: "DuckDB's end")
    watch(SqliteEventLogStorage, "store_event", event)
    watch(DefaultDialect, "do_commit", lambda *_: f"SQLite's commit after {happening}")
    watch(os, "replace", lambda _, to, **__: f"rename to {Path(to).name}")
    watch(os, "rename", lambda _, to, **__: f"rename to {Path(to).name}")


def _kind(key: str) -> str:
    """A key without what is another in each run."""
    return re.sub(r"[0-9a-f]{8,}(-[0-9a-f]{4,})*|\d{8}", "*", str(key))


def _written(folder: Path) -> dict[str, Counter[Any]]:
    """Rows of tables, and Parquet files byte for byte."""
    from resources import snapshot
    from resources.store import Store

    store = Store(url=f"file://{folder / 'data'}")
    with snapshot.read(store, folder / "cache") as db:
        rows = {table: Counter(map(repr, db.execute(f"FROM {table}").fetchall())) for table in TABLES}
    transcripts = sorted((folder / "data" / "transcripts").rglob("*.parquet"))
    rows["parquet"] = Counter((str(path.relative_to(folder)), path.read_bytes()) for path in transcripts)
    rows["unfinished"] = Counter(str(path) for path in (folder / "data" / "unfinished").rglob("*.json"))
    return rows
