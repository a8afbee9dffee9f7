"""The moments before and after whatever is written, and SIGKILL at one of them."""

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any


class Moments:
    """Counts moments, by name, and ends the process at the first that is called ``kill_at``."""

    def __init__(self, kill_at: str | None) -> None:
        self._kill_at = kill_at
        self.names: dict[str, int] = {}
        """How often each came."""

    def _at(self, name: str) -> None:
        if name == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names[name] = self.names.get(name, 0) + 1

    def around(
        self, function: Callable[..., Any], name: Callable[..., str | None] | None = None
    ) -> Callable[..., Any]:
        """The same function with a moment before and one after it.

        ``name`` makes a name from its arguments, or None where there is no moment; without one, moments are
        numbered from 0.
        """

        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            called = name(*arguments, **options) if name else None
            if name and called is None:
                return function(*arguments, **options)
            self._at(f"before {called}" if name else str(len(self.names)))
            answer = function(*arguments, **options)
            self._at(f"after {called}" if name else str(len(self.names)))
            return answer

        return watched
