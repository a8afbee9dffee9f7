"""SIGKILL before and after every access of a tick to the store, every run asked for and every cursor saved,
while another sensor races; then a tick that nobody kills. What stands there at the end must be the same."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import typer
from dagster import DagsterInstance, SensorResult, build_sensor_context

from benchmarks.moments import Moments
from benchmarks.report import Check
from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.settings import HOME
from resources.source import Source
from resources.store import Store
from sensors.batches import BatchLimits, Steps
from sensors.listing import look_on
from sensors.offering import offering_sensor

VIDEOS = 10
LIMITS = BatchLimits(videos=3, wait_s=0, min_age_s=0)
DONE_S = 120


def kills() -> Iterator[Check]:
    """The check, after as many killed ticks as a tick has steps."""
    with tempfile.TemporaryDirectory() as root:
        never = _Desk(Path(root) / "never")
        never.end(never.start("last"))
        expected = never.written()
        steps = int((never.folder / "steps-last").read_text())
        differences = raced = 0
        for step in range(steps):
            desk = _Desk(Path(root) / str(step))
            doomed, other = desk.start("doomed", step), desk.start("other")
            desk.end(other)
            if desk.end(doomed) == -signal.SIGKILL:
                raced += 1
            else:  # the other was faster, and nothing was left to do
                desk = _Desk(Path(root) / f"{step}-alone")
                assert desk.end(desk.start("doomed", step)) == -signal.SIGKILL, f"step {step} of {steps}"
            desk.end(desk.start("last"))
            differences += desk.written() != expected
    typer.echo(f"killed at each of {steps} steps, at {raced} beside another sensor", err=True)
    yield Check("kill_differences", differences, "runs", 0)


class _Desk:
    """A source, a store, and what sensors keep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "in").mkdir(parents=True)
        for number in range(VIDEOS):
            path = folder / "in" / f"{number}.mp4"
            path.write_bytes(b"video")
            os.utime(path, (1_000_000, 1_000_000))

    def start(self, name: str, kill_at: int | None = None) -> BaseProcess:
        """A sensor's ticks in a process of their own."""
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])  # type: ignore[attr-defined]
        process = context.Process(target=_tick, args=(self.folder, name, kill_at))
        process.start()
        return process

    def end(self, process: BaseProcess) -> int | None:
        """Wait for it; its exit code."""
        process.join(DONE_S)
        return process.exitcode

    def written(self) -> tuple[list[str], int]:
        """The keys that were taken in, as often as they were, and runs beyond one a batch."""
        log = IngestLog(Store(url=f"file://{self.folder / 'store'}"))
        keys = [row["key"] for table in log.tables(0) for row in table.to_pylist() if row["kind"] == "new"]
        log.catch_up()
        runs = {line for file in self.folder.glob("runs-*") for line in file.read_text().split()}
        return sorted(keys), len(runs) - len(log.batches)


def _tick(folder: Path, name: str, kill_at: int | None) -> None:
    """Listing, offering, and the cursor saved: all that two ticks of the daemon do."""
    steps = Moments(None if kill_at is None else str(kill_at))
    store = Store(url=f"file://{folder / 'store'}")
    source = Source(url=f"file://{folder / 'in'}", s3=S3())
    cursor = folder / f"cursor-{name}"
    with ExitStack() as stack:
        for method in ("get", "head", "put", "create", "delete"):
            stack.enter_context(patch.object(Store, method, steps.around(getattr(Store, method))))
        look_on(source, store, IngestLog(store), LIMITS)
        instance = stack.enter_context(DagsterInstance.ephemeral())
        resources = {"store": store, "speech_models": SpeechModels(path=str(HOME / "models.toml"))}
        former = cursor.read_text() if cursor.exists() else None
        context = stack.enter_context(build_sensor_context(instance, former, resources=resources))
        result = offering_sensor(Steps([], {}), 10)(context)
        if isinstance(result, SensorResult):
            steps.around(_ask_for)(folder / f"runs-{name}", result)
            steps.around(cursor.write_text)(result.cursor or "")
    (folder / f"steps-{name}").write_text(str(len(steps.names)))


def _ask_for(path: Path, result: SensorResult) -> None:
    with path.open("a") as runs:
        runs.writelines(f"{request.run_key}\n" for request in result.run_requests or ())
