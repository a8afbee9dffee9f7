"""A process that transcribes for another one: ``python -m speech.worker FD`` (see :mod:`speech.workers`).

Over the socket it gets its model version and hardware once, then windows again and again. It answers with
what it heard, or with the error that is to be raised there.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection

from speech.errors import EngineError, ModelError, WorkerBroken
from speech.listening import Listener


def main(pipe: Connection) -> None:
    """Work until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to handle
    try:
        listener = Listener(*pipe.recv())
    except ModelError as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        windows, asked = pipe.recv()
        try:
            pipe.send((listener.hear(windows, asked), listener.usage))
        except (EngineError, WorkerBroken) as error:
            pipe.send(error)


if __name__ == "__main__":
    try:
        main(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        os._exit(1)  # nobody is left to work for
