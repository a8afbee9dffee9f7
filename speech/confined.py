"""``python -I -m speech.confined FD``: give up what a decoder does not need, then decode.

Before anything is imported that has threads: a process with threads cannot leave its network.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

# Of address space: Python and FFmpeg take a quarter of a GiB before any video is there. For each packet that
# an MP4 lists FFmpeg takes up to 60 bytes, and a day of sound and of a picture at 60 Hz has nine million.
MEMORY_BYTES = 5 << 28
FILE_BYTES = 4 << 30
OPEN_FILES = 64
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
# Numbers are the same on every processor; source: landlock(7).
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, LANDLOCK_VERSION = 444, 446, 1
LANDLOCK_EXECUTE, LANDLOCK_TCP, LANDLOCK_SCOPES = 1, 3, 3


def confine() -> None:
    """No more memory, disk and files than any video needs; on Linux no new rights, and no network."""
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
        # Where a container's memory runs out, this one is ended, and not who runs the batch.
        with suppress(OSError):  # there is no /proc
            Path("/proc/self/oom_score_adj").write_text("1000")
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # it starts nobody; not asked of root
        stay_apart(libc)


def stay_apart(libc: ctypes.CDLL) -> None:
    """No program, no TCP, no look into the environment or memory of another process, and no signal to it.

    Linux without Landlock refuses nothing, an older one not all of it.
    """
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION)
    if version < 1:
        return
    refused = struct.pack(
        "QQQ", LANDLOCK_EXECUTE, LANDLOCK_TCP * (version >= 4), LANDLOCK_SCOPES * (version >= 6)
    )
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, refused, len(refused), 0)
    libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


if __name__ == "__main__":
    confine()
    from speech.media_child import serve

    serve(Connection(int(sys.argv[1])))
