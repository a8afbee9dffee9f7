"""make dev as an operator has it, for tests: a real UI, a real daemon, real runs, asked over GraphQL."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.processes import free_port
from speech.errors import WarehouseError
from tests.conftest import Platform

LOCATION = {"repositoryLocationName": "asr_platform", "repositoryName": "__repository__"}
STOP = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"
SENSORS = """
query ($selector: RepositorySelector!) {
  sensorsOrError(repositorySelector: $selector) { ... on Sensors { results { id name } } }
}
"""


class Dev:
    """A running asr dev, or a command that starts one in a folder; it is told the port."""

    def __init__(self, platform: Platform, command: Sequence[str] = (), folder: Path | None = None) -> None:
        self.platform = platform
        self.port = free_port()
        self._log = (platform.root / "dev.log").open("w")
        self._process = subprocess.Popen(
            [*(command or platform.command("dev")), "--port", str(self.port)],
            env=platform.environment,
            cwd=folder or platform.root,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            data = json.load(answer)
        assert "errors" not in data, data
        return data["data"]

    def up(self) -> bool:
        assert self._process.poll() is None, self.said()[-2000:]
        try:
            return bool(
                self.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            )
        except (URLError, ConnectionError):
            return False

    def said(self) -> str:
        return (self.platform.root / "dev.log").read_text()

    def stop(self, *names: str) -> None:
        """Turn sensors off."""
        sensors = self.ask(SENSORS, selector=LOCATION)["sensorsOrError"]["results"]
        ids = [sensor["id"] for sensor in sensors if sensor["name"] in names]
        assert len(ids) == len(names), sensors
        for sensor in ids:
            self.ask(STOP, id=sensor)

    def end(self, how: signal.Signals) -> None:
        os.killpg(self._process.pid, how)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            # Dagster's code server can hang in its own shutdown while a run has just begun.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
        self._log.close()


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.5)
    return found


def spoken(platform: Platform, key: str, model: str) -> int:
    quoted = key.replace("'", "''")
    try:
        (count,) = platform.sql(
            "SELECT count(*) FROM words JOIN videos_current USING (video_id) "
            f"WHERE video_key = '{quoted}' AND model_version = '{model}'"
        )
    except WarehouseError:  # nothing was published yet
        return 0
    return int(count)
