"""A limit on how long something may take."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from speech.types import Seconds


@contextmanager
def watchdog(patience_s: Seconds, end: Callable[[], object]) -> Iterator[None]:
    """Call ``end``, from another thread, when the body takes longer than ``patience_s``."""
    timer = threading.Timer(patience_s, end)
    # Ctrl-C may come before it can be cancelled, and a process waits for all threads but these.
    timer.daemon = True
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
