"""An interrupt may come between any two instructions."""

import subprocess
import sys

INTERRUPTED = """
from threading import Timer
from speech.watchdog import watchdog

start = Timer.start

def interrupted(timer):
    start(timer)
    timer.cancel = lambda: None
    raise KeyboardInterrupt

Timer.start = interrupted
with watchdog(60, print):
    pass
"""


def test_nobody_waits_for_one_that_was_never_called_off() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=30, check=False
    )
    assert "KeyboardInterrupt" in ended.stderr
