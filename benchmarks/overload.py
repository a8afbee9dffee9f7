"""Videos that arrive faster than they are processed, before a real daemon: queues grow, nothing fails, and
afterwards all is as it was."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import typer
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from benchmarks.mutants import MODEL, clip
from benchmarks.processes import free_port, settings_below, started
from benchmarks.report import Check
from resources import snapshot
from resources.store import Store
from speech.errors import WarehouseError

FASTER, AHEAD = 1.5, 100
"""So many come for each that is done, whatever the machine, and so many more before any is."""
DRAINED_TIMES = 6
"""The queue has to be empty within so many times the time in which it grew."""
NORMAL_S = 240
"""A video that comes to an idle platform has its words within so long: the waits of the batch, the run, the
load and the publishing are in it."""


def overload(seconds: float) -> Iterator[Check]:
    """Arrivals for so long, then quiet until all is done, then one more."""
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "videos").mkdir()
        (root / "models.toml").write_text(MODEL)
        dev = "dev", "--port", str(free_port())
        with started(root, "asr", *dev, env=settings_below(root), end=signal.SIGINT):
            data, arrived, longest = clip(root / "clip.ogg", "ogg", "libopus"), 0, 0
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                done_by_now = _done(root)
                while arrived < AHEAD + FASTER * done_by_now:
                    _arrive(root, arrived, data)
                    arrived += 1
                longest = max(longest, arrived - done_by_now)
                time.sleep(1)
            done = _wait(lambda: _done(root) >= arrived, DRAINED_TIMES * seconds + NORMAL_S)
            drained_s = time.monotonic() - began - seconds
            last = time.monotonic()
            _arrive(root, arrived, data)
            _wait(lambda: _done(root) > arrived, 2 * NORMAL_S)
            normal_s = time.monotonic() - last
            with DagsterInstance.from_config(str(root / "data" / "dagster")) as instance:
                failed = len(instance.get_run_ids(RunsFilter(statuses=[DagsterRunStatus.FAILURE])))
            rows = _rows(root)
    typer.echo(
        f"{arrived} videos in {seconds:.0f} s, {longest} of them waiting in the end; "
        f"{'all done' if done else 'NOT done'} after {drained_s:.0f} s more",
        err=True,
    )
    yield Check.at_least("overload_minutes", seconds / 60, "min", 20 if seconds >= 1200 else 1)
    yield Check.at_least("overload_queue", longest, "videos", arrived / 4)
    yield Check("overload_lost", sum(name not in rows for name in range(arrived + 1)), "videos", 0)
    yield Check("overload_doubled", sum(count - 1 for count in rows.values()), "videos", 0)
    yield Check("overload_failed_runs", failed, "runs", 0)
    yield Check("overload_normal_again_s", normal_s, "s", NORMAL_S)


def _arrive(root: Path, number: int, data: bytes) -> None:
    """Written under a hidden name, as uploads are, and then there at once."""
    hidden = root / "videos" / f".{number}"
    hidden.write_bytes(data)
    hidden.rename(root / "videos" / f"{number}.ogg")


def _rows(root: Path) -> dict[int, int]:
    """How often each video has an outcome, by its number."""
    try:
        with snapshot.read(Store(url=f"file://{root / 'data'}"), root / "cache") as db:
            rows = db.execute(
                "SELECT video_key, count(*) FROM videos JOIN transcripts USING (video_id) GROUP BY ALL"
            ).fetchall()
    except (WarehouseError, duckdb.Error):  # nothing is published yet
        return {}
    return {int(Path(key).stem): count for key, count in rows}


def _done(root: Path) -> int:
    return len(_rows(root))


def _wait(until: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (reached := until()) and time.monotonic() < deadline:
        time.sleep(2)
    return reached
