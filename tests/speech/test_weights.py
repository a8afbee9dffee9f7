"""Weights from the hub: the pinned revision, safetensors alone, and one sentence when it is out of reach."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT

CHECKPOINT = ROOT / "micro_whisper" / "checkpoint"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as its client asks: one model, at one commit, with a pickle in it."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        Hub.asked.append(path)
        files = [*(path.name for path in CHECKPOINT.iterdir()), "pytorch_model.bin"]
        if path.startswith("/api/models/ours/micro/tree/"):
            listed = [{"type": "file", "oid": "0" * 40, "size": 1, "path": name} for name in files]
            self._answer(json.dumps(listed).encode())
        elif path.startswith("/api/models/ours/micro"):
            siblings = [{"rfilename": name} for name in files]
            self._answer(json.dumps({"id": "ours/micro", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/ours/micro/resolve/{COMMIT}/"):
            self._answer((CHECKPOINT / path.rpartition("/")[2]).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{abs(hash(body)):x}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(cache: Path, revision: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: the hub's client reads its settings once."""
    code = (
        "from speech.models import ModelVersion; from speech.weights import local_weights; "
        f"print(local_weights(ModelVersion('m', 'whisper', weights='ours/micro', revision={revision!r})))"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_pinned_revision_is_fetched_once_and_without_its_pickle(hub: str, tmp_path: Path) -> None:
    Hub.asked.clear()
    first = fetch(tmp_path, COMMIT, HF_ENDPOINT=hub)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == (CHECKPOINT / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists()
    assert not any(path.endswith(".bin") for path in Hub.asked)
    again = fetch(tmp_path, COMMIT, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout


def test_an_unpinned_model_is_refused_with_the_line_to_write(hub: str, tmp_path: Path) -> None:
    for revision in ("", "main"):
        done = fetch(tmp_path, revision, HF_ENDPOINT=hub)
        wanted = f"ours/micro at revision {revision}" if revision else "ours/micro"
        assert f"model m: pin {wanted} to a commit in models.toml" in done.stderr
        assert f'revision = "{COMMIT}"' in done.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "the Hugging Face hub is out of reach, and ours/micro at revision"),
        ({"HF_ENDPOINT": "{hub}/elsewhere"}, "the Hugging Face hub has no ours/micro at revision"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(
    hub: str, tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    settings = {name: value.format(hub=hub) for name, value in environment.items()}
    done = fetch(tmp_path, COMMIT, **settings)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"speech.errors.ModelError: model m: {sentence}")
    assert "models.toml" in last or "weights =" in last
