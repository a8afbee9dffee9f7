"""A process that transcribes for another one: ``python -m speech.worker FD`` (see :mod:`speech.workers`).

Over the socket it gets its model version and hardware once, then windows again and again. It answers with
what it heard, or with the error that is to be raised there.
"""

import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from speech.engines import Asked, Hardware
from speech.errors import EngineError, ModelError, WorkerBroken
from speech.listening import Listener, Usage
from speech.models import ModelVersion
from speech.types import HeardWindow, Window


class Remote:
    """A listener for whoever is in another process: errors are answers, to be raised there."""

    def load(self, model: ModelVersion, hardware: Hardware) -> ModelError | None:
        """Comes first."""
        try:
            self._listener = Listener(model, hardware)
        except ModelError as error:
            return error
        return None

    def hear(
        self, windows: Sequence[Window], asked: Asked
    ) -> tuple[list[HeardWindow], Usage] | EngineError | WorkerBroken:
        """See :meth:`speech.listening.Listener.hear`."""
        try:
            return self._listener.hear(windows, asked), self._listener.usage
        except (EngineError, WorkerBroken) as error:
            return error


def main(pipe: Connection) -> None:
    """Work until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to handle
    remote = Remote()
    problem = remote.load(*pipe.recv())
    pipe.send(problem)
    while not problem:
        pipe.send(remote.hear(*pipe.recv()))


if __name__ == "__main__":
    try:
        main(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        os._exit(1)  # nobody is left to work for
