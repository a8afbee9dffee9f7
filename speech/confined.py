"""``python -I -m speech.confined FD``: give up what a decoder does not need, then decode.

Before anything is imported that has threads: a process with threads cannot leave its network.
"""

import ctypes
import resource
import signal
import sys
from multiprocessing.connection import Connection

MEMORY_BYTES = 4 << 30
FILE_BYTES = 4 << 30
OPEN_FILES = 64
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def confine() -> None:
    """No more memory, disk and files than any video needs; on Linux no new rights, and no network."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, not this video's fault
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # A decoder that spins never sees that the parent is gone.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Where namespaces are forbidden, as in most containers, what is left are the allow-lists, and the
        # network policy of the container.
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)


if __name__ == "__main__":
    confine()
    from speech.media_child import serve

    serve(Connection(int(sys.argv[1])))
