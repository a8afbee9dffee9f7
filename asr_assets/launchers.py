"""Runs on this machine that nobody works on any more, after a kill or a power cut.

A run is started by the command line (in its own process) or by the daemon of asr dev. Each launcher
holds a lock for as long as it lives; the kernel drops the lock with the process, however that ends.
So whoever gets a launcher's lock knows that its unfinished runs are dead, marks them as failed, and
they no longer hold up the queue.
"""

import fcntl
import os
from enum import StrEnum
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from speech.errors import AsrError

TAG = "asr/launcher"
_UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


class Launcher(StrEnum):
    """Who starts runs."""

    COMMAND_LINE = "command_line"
    DAEMON = "daemon"


def become(launcher: Launcher, home: Path, instance: DagsterInstance) -> None:
    """Be this launcher until the process ends. Raises AsrError when another process is."""
    if _lock(launcher, home) is None:
        command = "asr run" if launcher is Launcher.COMMAND_LINE else "asr dev"
        raise AsrError(f"another {command} is at work on {home}; wait for it or end it")
    _bury(launcher, instance)
    for other in set(Launcher) - {launcher}:
        held = _lock(other, home)
        if held is not None:
            _bury(other, instance)
            os.close(held)


def _lock(launcher: Launcher, home: Path) -> int | None:
    handle = os.open(home / f"{launcher}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    # asr dev becomes dagster dev by exec, and must still hold it then.
    os.set_inheritable(handle, True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _bury(launcher: Launcher, instance: DagsterInstance) -> None:
    for run in instance.get_runs(RunsFilter(statuses=_UNDER_WAY)):
        if run.tags.get(TAG, Launcher.DAEMON.value) == launcher:
            instance.report_run_failed(run, f"The {launcher} that worked on it was killed.")
