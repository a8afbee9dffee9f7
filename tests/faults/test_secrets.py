"""A model's files are the ones that are meant; a secret is where it is needed, and nowhere else."""

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import boto3
import pytest

from asr_assets import doctor
from resources.store import Store
from speech.engines import Hardware
from speech.errors import AsrError, StoreError
from speech.models import ModelVersion, read_models
from speech.workers import Apart
from tests.asr_assets.test_life import everything_in
from tests.conftest import FAST_MODEL, ROOT, SAMPLES, Platform

CANARY = "canary"

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-aws",
    "AWS_SESSION_TOKEN": "canary-of-the-session",
    "HF_TOKEN": "canary-of-the-hub",
    "ASR_POSTGRES_URL": "postgresql://words:canary-of-postgres@127.0.0.1:1/words",
}


@pytest.mark.case(40)
def test_a_bit_that_flipped_in_a_tensor_keeps_the_model_from_starting(platform: Platform) -> None:
    shipped = read_models(ROOT / "models.toml")["micro_whisper"]
    folder = shutil.copytree(shipped.weights, platform.root / "checkpoint")
    platform.env["ASR_MODELS"] = str(platform.root / "models.toml")
    (platform.root / "models.toml").write_text(
        '[micro]\nengine = "whisper"\nweights = "./checkpoint"\nchampion = true\n'
        f'digest = "{shipped.digest}"\n'
    )
    platform.add("weather.mp4")
    tensors = folder / "model.safetensors"
    whole = tensors.read_bytes()
    damaged = bytearray(whole)
    damaged[-1000] ^= 1
    tensors.write_bytes(damaged)
    done = platform.asr("run")
    assert done.returncode == 1
    assert "model micro: the files of its weights in" in done.stderr
    assert f"and models.toml says {shipped.digest}" in done.stderr
    published = [file.relative_to(platform.root) for file in platform.root.glob("data/transcripts/**/*.*")]
    assert published == []
    tensors.write_bytes(whole)
    platform.must("run")
    assert platform.sql("SELECT count(*) > 5 FROM words_current") == ["True"]


class Gossip(BaseHTTPRequestHandler):
    """A server that refuses everything, and tells all that it was asked with; S3 does so with tokens."""

    def do_GET(self) -> None:
        asked = json.dumps(dict(self.headers))
        error = (
            f"<Error><Code>ExpiredToken</Code><Message>expired</Message><Token-0>{asked}</Token-0></Error>"
        )
        self.send_response(400)
        self.send_header("Content-Length", str(len(error)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(error.encode())

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def below(pid: int) -> Iterator[int]:
    """All processes that a process has started, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in map(int, task.read_text().split()):
                yield child
                yield from below(child)


def watched(platform: Platform, *arguments: str) -> tuple[str, dict[str, set[str]]]:
    """All that a command wrote, and the environments of the processes that it started, by their program."""
    environments: dict[str, set[str]] = {}
    command = subprocess.Popen(
        platform.command(*arguments),
        env=platform.environment,
        cwd=platform.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    written: list[bytes] = []
    assert command.stdout
    reader = threading.Thread(target=lambda out: written.append(out.read()), args=[command.stdout])
    reader.start()
    until = time.monotonic() + 300
    while command.poll() is None and time.monotonic() < until:
        for pid in [*below(command.pid)]:
            with suppress(OSError):
                program = Path(f"/proc/{pid}/cmdline").read_text()
                found = Path(f"/proc/{pid}/environ").read_text()
                if match := re.search(r"speech\.\w+", program):
                    environments.setdefault(match[0], set()).add(found)
        time.sleep(0.02)
    command.kill()
    command.wait()
    reader.join()
    command.stdout.close()
    return b"".join(written).decode(), environments


@pytest.mark.long
@pytest.mark.case(41)
def test_no_secret_is_written_down_or_handed_on(
    platform: Platform, bucket: str, s3_env: dict[str, str]
) -> None:
    client = boto3.client("s3")
    for name in ("delayed_audio.mp4", "corrupt.mp4"):
        client.upload_file(str(SAMPLES / name), bucket, f"in/{name}")
    hub = '[far]\nengine = "whisper"\nweights = "ours/micro"\nrevision = "{}"\n'.format("0" * 40)
    (platform.root / "models.toml").write_text(FAST_MODEL + hub)
    (platform.root / "tmp").mkdir()
    with serving(Gossip) as port:
        gossip = f"http://127.0.0.1:{port}"
        platform.env |= (
            s3_env
            | SECRETS
            | {
                "ASR_SOURCE_URL": f"s3://{bucket}/in",
                "HOME": str(platform.root),
                "TMPDIR": str(platform.root / "tmp"),
                "XDG_CACHE_HOME": str(platform.root / "cache"),
                "HF_ENDPOINT": gossip,
                "HF_HUB_DISABLE_XET": "1",
            }
        )
        said, environments = watched(platform, "run")
        assert "PostgreSQL on 127.0.0.1: connection failed" in said
        assert "transcripts/far failed: model far: " in said or "transcripts__far failed: model far: " in said
        assert platform.sql("SELECT count(*) > 15 FROM words_current") == ["True"]
        platform.env["AWS_ENDPOINT_URL"] = gossip
        for arguments in (["run"], ["doctor"], ["verify"]):
            some, _ = watched(platform, *arguments)
            assert "ExpiredToken" in some
            said += some
    assert CANARY not in said
    assert CANARY not in everything_in(platform.root)
    workers = environments.pop("speech.worker")
    assert environments.keys() & {
        "speech.confined",
        "speech.media_child",
    }  # the decoder begins as one of them
    assert not any(CANARY in found for others in environments.values() for found in others)
    # The model that comes from the hub has a worker, too, and that one fetches: it has the hub's token.
    needed = f"HF_TOKEN={SECRETS['HF_TOKEN']}"
    assert {found.replace(needed, "").find(CANARY) for found in workers} == {-1}
    assert {needed in found for found in workers} == {True, False}


LOOKS = """
import os, sys
from multiprocessing.connection import Connection
from speech.confined import confine
confine()
for look in (lambda: open(f"/proc/{os.getppid()}/environ").read(), lambda: os.kill(os.getppid(), 0)):
    try:
        seen = look()
    except PermissionError:
        seen = "refused"
    else:
        break
Connection(int(sys.argv[1])).send_bytes(f"W{seen}".encode())
"""
DECODES = f"""
import sys
from speech import media
media.CHILD = ("-c", {LOOKS!r})
with media.MediaDecoder() as decoder, media.LocalFile(sys.argv[1]) as source:
    decoder.probe(source, "x.mp4")
"""
NO_NAMESPACES = "unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"' sh"


@pytest.mark.case(41)
@pytest.mark.parametrize(
    "under",
    [
        "",
        NO_NAMESPACES,
        f"{NO_NAMESPACES} setpriv --bounding-set=-all --no-new-privs",
    ],
    ids=["as it is", "root of a container", "user of a container"],
)
def test_a_decoder_sees_nothing_of_who_started_it(under: str) -> None:
    """Its environment is not emptied only to be read elsewhere; a container lets nobody make namespaces."""
    if not has_landlock() or subprocess.run([*shlex.split(under), "true"], check=False).returncode:
        pytest.skip("this system has no Landlock, or no namespaces to forbid")
    command = [*shlex.split(under), sys.executable, "-c", DECODES, str(SAMPLES / "silent.mp4")]
    done = subprocess.run(command, env=os.environ | SECRETS, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("AsrError: x.mp4: refused\n"), done.stderr[-500:].replace(CANARY, "")


def has_landlock() -> bool:
    create_ruleset, version = 444, 1
    return int(ctypes.CDLL(None).syscall(create_ruleset, None, 0, version)) >= 6


@pytest.mark.case(41)
@pytest.mark.parametrize("asked", ["get", "head", "put", "create", "list", "open", "delete"])
def test_what_a_store_says_of_a_token_is_not_repeated(
    asked: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers with the token that has expired; Dagster keeps an error's causes, too."""
    with serving(Gossip) as port:
        for name, value in (SECRETS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            monkeypatch.setenv(name, value)
        store = Store(url="s3://bucket/platform")
        with pytest.raises(StoreError, match="check ASR_STORE_URL and its credentials") as refused:
            list(getattr(store, asked)("key", *([b"x"] if asked in ("put", "create") else [])))
    assert asked in ("head", "open") or "ExpiredToken" in str(refused.value)  # to HEAD there is no text
    assert CANARY not in "".join(traceback.format_exception(refused.value))


@pytest.mark.case(41)
@pytest.mark.parametrize(
    ("name", "always", "to_fetch"),
    [
        ("PATH", True, True),
        ("LD_LIBRARY_PATH", True, True),
        ("OMP_NUM_THREADS", True, True),
        ("TORCH_HOME", True, True),
        ("CUDA_DEVICE_ORDER", True, True),
        ("TMPDIR", True, True),
        ("HF_TOKEN", False, True),
        ("HF_HOME", False, True),
        ("https_proxy", False, True),
        ("HTTPS_PROXY", False, True),
        ("REQUESTS_CA_BUNDLE", False, True),
        ("AWS_SECRET_ACCESS_KEY", False, False),
        ("AWS_SESSION_TOKEN", False, False),
        ("ASR_POSTGRES_URL", False, False),
        ("PGPASSWORD", False, False),
        ("AZURE_STORAGE_KEY", False, False),
        ("GOOGLE_APPLICATION_CREDENTIALS", False, False),
        ("DAGSTER_PG_PASSWORD", False, False),
        ("LDAP_PASSWORD", False, False),
        ("NVIDIA_API_KEY", False, False),
        ("SECRET_OF_A_NAME_THAT_NOBODY_KNOWS", False, False),
    ],
)
def test_a_worker_is_given_what_it_needs_of_the_environment(
    name: str, always: bool, to_fetch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, os.environ.get(name, "x"))
    here = Apart(ModelVersion("m", "whisper", weights="/folder"), Hardware())
    hub = Apart(ModelVersion("m", "whisper", weights="ours/micro"), Hardware())
    assert (name in here._environment(), name in hub._environment()) == (always, to_fetch)


@pytest.mark.parametrize("library", doctor.FFMPEG)
def test_the_ffmpeg_inside_av_is_at_least_the_known_one(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(map(int, re.findall(r"\d+", av.ffmpeg_version_info))) >= (8, 1, 2)
    assert av.library_versions[library] >= doctor.FFMPEG[library]
    monkeypatch.setitem(av.library_versions, library, (1, 0, 0))
    with pytest.raises(AsrError, match=f"an older {library} .* make install brings"):
        doctor._ffmpeg()
