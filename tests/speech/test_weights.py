"""Weights from the hub: the pinned revision, safetensors alone, and one sentence when it is out of reach.

And weights from anywhere: the ones that are meant, to the last byte, or none.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from speech.errors import ModelError
from speech.models import ModelVersion, read_models
from speech.weights import digest_of, local_weights
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
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')  # as the hub does for large files
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


def flip(file: Path, at: int = -1000) -> None:
    """One bit, in the middle of a tensor: as good a number as any."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def fetch(
    cache: Path, revision: str, digest: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: the hub's client reads its settings once."""
    code = (
        "from speech.models import ModelVersion; from speech.weights import local_weights; "
        f"print(local_weights(ModelVersion('m', 'whisper', weights='ours/micro', revision={revision!r}, "
        f"digest={digest!r})))"
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


@pytest.mark.case(40)
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


@pytest.mark.case(40)
def test_a_file_of_the_hubs_cache_that_was_damaged_is_not_loaded(hub: str, tmp_path: Path) -> None:
    folder = Path(fetch(tmp_path, COMMIT, HF_ENDPOINT=hub).stdout.strip())
    blob = (folder / "model.safetensors").resolve()
    flip(blob)
    done = fetch(tmp_path, COMMIT, HF_HUB_OFFLINE="1")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"speech.errors.ModelError: model m: {blob} is not what the Hugging Face hub sent")
    assert "delete it, and it is fetched again" in last
    blob.unlink()
    mended = fetch(tmp_path, COMMIT, HF_ENDPOINT=hub)
    assert Path(mended.stdout.strip()) == folder, mended.stderr


@pytest.mark.case(40)
def test_a_hub_that_sends_something_else_at_the_pinned_commit_is_not_believed(
    hub: str, tmp_path: Path
) -> None:
    done = fetch(tmp_path, COMMIT, digest="0" * 32, HF_ENDPOINT=hub)
    assert "are not those that are meant" in done.stderr.strip().splitlines()[-1]


@pytest.mark.case(40)
@pytest.mark.parametrize(
    ("engine", "weights"), [("whisper", None), ("ctc", None), ("faster_whisper", "model.bin")]
)
@pytest.mark.parametrize("damage", ["a tensor", "a setting", "a file that is gone"])
def test_a_damaged_model_is_refused_by_any_engine(
    engine: str, weights: str | None, damage: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "copy")
    if weights:
        (folder / "model.safetensors").rename(folder / weights)
    model = ModelVersion("m", engine, weights=str(folder))
    pinned = replace(model, digest=digest_of(model, folder))
    assert local_weights(pinned) == folder
    assert pinned.fingerprint == model.fingerprint  # words are what they were
    if damage == "a tensor":
        flip(folder / (weights or "model.safetensors"))
    elif damage == "a setting":
        flip(folder / "tokenizer.json")
    else:
        (folder / "generation_config.json").unlink()
    with pytest.raises(ModelError) as refused:
        local_weights(pinned)
    found = digest_of(model, folder)
    assert str(refused.value) == (
        f"model m: the files of its weights in {folder} are not those that are meant: their digest is "
        f"{found}, and models.toml says {pinned.digest}. If they are damaged, copy them anew; if "
        f'they were changed on purpose, write digest = "{found}"'
    )


@pytest.mark.case(40)
def test_a_damaged_package_of_an_engine_that_carries_its_weights_is_refused(tmp_path: Path) -> None:
    installed = distribution("pocketsphinx")
    package = Path(str(installed.locate_file("pocketsphinx")))
    shutil.copytree(package, tmp_path / "pocketsphinx")
    record = next(file for file in installed.files or () if file.name == "RECORD")
    shutil.copytree(Path(str(record.locate())).parent, tmp_path / record.parent)
    code = (
        "from speech.engines import Hardware, load; from speech.models import ModelVersion; "
        "load(ModelVersion('m', 'pocketsphinx'), Hardware()); print('loaded')"
    )

    def start() -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert start().stdout == "loaded\n"
    means = tmp_path / "pocketsphinx" / "model" / "en-us" / "en-us" / "means"
    flip(means)
    last = start().stderr.strip().splitlines()[-1]
    assert last.startswith(f"speech.errors.ModelError: model m: {means} is not the file that was installed")


@pytest.mark.case(40)
def test_the_checkpoint_that_is_shipped_is_pinned() -> None:
    assert read_models(ROOT / "models.toml")["micro_whisper"].digest


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('engine = "whisper"\nweights = "./x"\ndigest = "12"\n', "digest"),
        (
            'engine = "pocketsphinx"\ndigest = "0123456789abcdef0123456789abcdef"\n',
            "a digest, but no weights",
        ),
    ],
)
def test_a_digest_that_cannot_be_is_refused(entry: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(f"[m]\nchampion = true\n{entry}")
    with pytest.raises(ModelError, match=sentence):
        read_models(tmp_path / "models.toml")
