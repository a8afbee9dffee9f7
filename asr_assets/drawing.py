"""Progress bars on a terminal's stderr, fed by the steps' progress records."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Column, Table

from asr_assets.progress import LOGGER

T = TypeVar("T")


class Bars(logging.Handler):
    """A bar per kind of work; a context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Draw a record of :data:`asr_assets.progress.LOGGER`."""
        what, done, total = (record.__dict__[name] for name in ("what", "done", "total"))
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what)
        self._progress.update(self._tasks[what], completed=done, total=total)
        if done == total:
            self._progress.remove_task(self._tasks.pop(what))

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Work whose length is unknown."""
        task = self._progress.add_task(what, total=None)
        yield
        self._progress.remove_task(task)

    def each(self, items: Sequence[T], what: str) -> Iterator[T]:
        """A bar over the items."""
        yield from self._progress.track(items, description=what)

    def __enter__(self) -> Self:
        LOGGER.addHandler(self)
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        LOGGER.removeHandler(self)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table that cuts nothing off: ids and keys fold instead."""
    folding = (Column(name, overflow="fold") for name in columns)
    return Table(*folding, title=title, title_justify="left", box=box.SIMPLE_HEAD)


def printable(text: str) -> str:
    r"""Text that cannot steer the terminal it is shown on.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quiet() -> None:
    """Keep a library's notices to developers from a user's terminal."""
    warnings.filterwarnings("ignore", module="dagster")
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
