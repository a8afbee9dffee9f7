"""Runs on this machine that nobody works on any more, after a kill or a power cut.

A run is started by the command line (in its own process) or under asr dev. Every process that may be
at work for a launcher holds the launcher's lock, shared; the kernel drops it with the process, however
that ends. So whoever gets the lock for itself knows that the launcher's unfinished runs are dead, marks
them as failed, and they no longer hold up the queue. So it is where runs are processes of this machine.
"""

import fcntl
import os
from enum import StrEnum
from pathlib import Path

from dagster import DagsterInstance, DefaultRunLauncher, RunsFilter

from sensors.batches import UNDER_WAY
from speech.errors import AsrError

TAG = "asr/launcher"
HELD_BY_CHILDREN = "ASR_DEV_HOME"
"""Tells every process below asr dev to take its lock when it loads the definitions."""


class Launcher(StrEnum):
    """Who starts runs."""

    COMMAND_LINE = "command_line"
    DAEMON = "daemon"


def become(launcher: Launcher, home: Path) -> DagsterInstance:
    """Be this launcher until the process ends; Dagster's instance in ``home``.

    Raises AsrError when another process is this launcher.
    """
    with (home / "starting.lock").open("w") as starting:
        # One at a time: two first starts would both create Dagster's tables.
        fcntl.flock(starting, fcntl.LOCK_EX)
        try:
            ours = _lock(launcher, home, fcntl.LOCK_EX)
        except BlockingIOError:
            command = "asr run" if launcher is Launcher.COMMAND_LINE else "asr dev"
            raise AsrError(f"another {command} is at work on {home}; wait for it or end it") from None
        instance = DagsterInstance.get()
        here = _runs_are_here(instance)
        if here:
            _bury(launcher, instance)
        for other in set(Launcher) - {launcher} if here else ():
            try:
                theirs = _lock(other, home, fcntl.LOCK_EX)
            except BlockingIOError:
                continue  # at work, and welcome to be
            _bury(other, instance)
            os.close(theirs)
        if launcher is Launcher.DAEMON:
            os.environ[HELD_BY_CHILDREN] = str(home)
        # asr dev becomes dagster dev by exec, and must still hold it then.
        os.set_inheritable(ours, True)
        fcntl.flock(ours, fcntl.LOCK_SH)
        return instance


def hold_with_parent() -> None:
    """Hold the daemon's lock as long as this process lives, if asr dev is what started it."""
    if home := os.environ.get(HELD_BY_CHILDREN):
        _lock(Launcher.DAEMON, Path(home), fcntl.LOCK_SH)


def _runs_are_here(instance: DagsterInstance) -> bool:
    """Whether runs are processes of this machine, so that its locks tell of them.

    Of pods they do not, whose homes are each their own: there, run monitoring tells who is dead.
    """
    # Told by its name: a launcher of Kubernetes' could not be made in a pod without a token.
    launcher = instance.get_ref().run_launcher_data
    return launcher is None or launcher.class_name == DefaultRunLauncher.__name__


def _lock(launcher: Launcher, home: Path, kind: int) -> int:
    handle = os.open(home / f"{launcher}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _bury(launcher: Launcher, instance: DagsterInstance) -> None:
    for run in instance.get_runs(RunsFilter(statuses=UNDER_WAY)):
        if run.tags.get(TAG, Launcher.DAEMON.value) == launcher:
            instance.report_run_failed(run, f"The {launcher} that worked on it was killed.")
