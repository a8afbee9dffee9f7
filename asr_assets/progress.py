"""How far a step is: a line in Dagster's log now and then, and a signal for a progress bar."""

import logging
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from dagster import AssetExecutionContext

from speech.types import Seconds

LOGGER = logging.getLogger("asr.progress")
"""Records carry ``what``, ``done`` and ``total``; the command line draws them."""

_LINE_EVERY_S: Seconds = 30.0

T = TypeVar("T")


class Progress:
    """Counts items as they are taken, under the name of what is done to them."""

    def __init__(self, context: AssetExecutionContext, what: str) -> None:
        self._context, self._what = context, what
        self._last_line = time.monotonic()

    def __call__(self, items: Collection[T]) -> Iterator[T]:
        """The items, one by one."""
        self.at(0, len(items))
        for done, item in enumerate(items, start=1):
            yield item
            self.at(done, len(items))

    def at(self, done: int, total: int) -> None:
        """``done`` of ``total`` are done."""
        LOGGER.info(self._what, extra={"what": self._what, "done": done, "total": total})
        # Each line is a row in the event log: a batch of thousands must not write thousands.
        if time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._context.log.info("%s: %d of %d", self._what, done, total)
