"""The platform's programs, as a user starts them: settings of their own, free ports, and a certain end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ENDING_S = 30


def program(name: str) -> str:
    """The installed command."""
    return str(Path(sys.executable).with_name(name))


def settings_below(root: Path) -> dict[str, str]:
    """The environment of a platform whose videos, models and state lie in one folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ASR_", "DAGSTER_"))}
    return clean | {
        "ASR_SOURCE_URL": str(root / "videos"),
        "ASR_STORE_URL": str(root / "data"),
        "ASR_MODELS": str(root / "models.toml"),
    }


def free_port() -> int:
    """One of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def started(
    root: Path,
    name: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """A program at work in ``root``, which has its log, until the context ends; and all that it starts."""
    with (root / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [program(name), *arguments], cwd=root, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, end)
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(ENDING_S)
