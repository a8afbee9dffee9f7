"""Who gets at what: models that are not the ones that are meant, secrets, policies, the login before the UI.

What each of them stands against is in docs/security.md.
"""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

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

DEPLOY = ROOT / "deploy" / "security"
CANARY = "canary"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-aws",
    "AWS_SESSION_TOKEN": "canary-of-the-session",
    "HF_TOKEN": "canary-of-the-hub",
    "ASR_POSTGRES_URL": "postgresql://words:canary-of-postgres@127.0.0.1:1/words",
}


# -- Case 40: a model's files are the ones that are meant, or nothing starts.


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


# -- Case 41: a secret is where it is needed, and nowhere else.


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


# -- What is inside the packages.


@pytest.mark.parametrize("library", doctor.FFMPEG)
def test_the_ffmpeg_inside_av_is_at_least_the_known_one(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(map(int, re.findall(r"\d+", av.ffmpeg_version_info))) >= (8, 1, 2)
    assert av.library_versions[library] >= doctor.FFMPEG[library]
    monkeypatch.setitem(av.library_versions, library, (1, 0, 0))
    with pytest.raises(AsrError, match=f"an older {library} .* make install brings"):
        doctor._ffmpeg()


# -- Policies: what the platform really asks of S3 and SQS, and nothing besides.

ROLES = {
    **{role: [role] for role in ("ingest", "transcripts", "loader", "analyst")},
    "operator": ["ingest", "transcripts", "loader", "operator"],
}
LISTED = "s3:ListBucket"
KMS = "kms:"
OBJECT_ACTIONS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",  # also of a part
    "POST": "s3:PutObject",  # beginning and end of an upload in parts
    "DELETE": "s3:DeleteObject",
}
Call = tuple[str, str]


def statements(policy: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / f"{policy}.json").read_text())["Statement"]
    return found


def allows(policy: str, call: Call) -> bool:
    action, resource = call
    return any(
        said["Effect"] == "Allow"
        and action in said["Action"]
        and any(fnmatchcase(resource, pattern) for pattern in said["Resource"])
        for said in statements(policy)
    )


def asked(environ: dict[str, Any]) -> list[Call]:
    """The actions that a request stands for, as AWS's reference of actions has them, and on what."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        queue = json.loads(body)["QueueUrl"].rpartition("/")[2]
        action = target.rpartition(".")[2].removesuffix("Batch")
        return [(f"sqs:{action}", f"arn:aws:sqs:eu-central-1:111122223333:{queue}")]
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    _, bucket, *key = environ["PATH_INFO"].split("/", 2)
    resource = f"arn:aws:s3:::{bucket}"
    if any(key):
        assert not (method == "DELETE" and "uploadId" in query), "s3:AbortMultipartUpload is in no policy"
        return [(OBJECT_ACTIONS[method], f"{resource}/{key[0]}")]
    if query.startswith("delete"):
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        return [("s3:DeleteObject", f"{resource}/{key}") for key in keys]
    assert "list-type=2" in query
    return [(LISTED, resource)]


@dataclass
class Gate:
    """In front of moto: lets a role do what its policies allow, and remembers what it did."""

    behind: Callable[..., Iterable[bytes]]
    done: set[tuple[str, Call]] = field(default_factory=set)
    refused: list[tuple[str, Call]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        role = re.findall(r"Credential=(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))[0]
        if role not in ROLES:
            return self.behind(environ, start)
        calls = asked(environ)
        said: list[tuple[Any, ...]] = []
        answer: list[bytes] = []
        if allowed := self._may(role, calls):
            answer = list(self.behind(environ, lambda *args: said.append(args)))
            if said[0][0].startswith("404"):
                # Who may not list is not told that there is no such object; the platform has to know it.
                calls = [(LISTED, calls[0][1].partition("/")[0])]
                allowed = self._may(role, calls)
        if not allowed:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>"]
        self.done.update((role, call) for call in calls)
        start(*said[0])
        return answer

    def _may(self, role: str, calls: list[Call]) -> bool:
        wrong = [call for call in calls if not any(allows(policy, call) for policy in ROLES[role])]
        self.refused += [(role, call) for call in wrong]
        return not wrong


@pytest.fixture
def gate() -> Iterator[tuple[Gate, str]]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield gate, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


AS_A_ROLE = """
from asr_assets.running import *
from resources.event_queue import EventQueue
from sensors.events import take_events
from sensors.listing import Position, look_on
from speech.models import replace
settings = Settings.from_env()
runner, queue = Runner(settings), EventQueue(url=settings.queue_url)
source, store, log = runner.source, runner.store, IngestLog(runner.store)
limits = BatchLimits.of(settings).at_once
batches = ("00000001", "00000002")
audio, words = [raw_videos.key, extracted_audio.key], [transcripts_key(m.name) for m in runner.models.enabled]
"""
INGEST = """
queue.describe()
queue.postpone(queue.receive(), 0)
take_events(queue, source, store, log, limits)
store.put(layout.LISTING, Position(source=source.name, after="").model_dump_json().encode())
look_on(source, store, log, limits)
runner.ingest()
"""


@pytest.mark.long
def test_each_role_may_do_what_it_does_and_nothing_besides(
    platform: Platform, gate: tuple[Gate, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the platform's work, by four roles and an operator, each stopped where its policies end."""
    gatekeeper, endpoint = gate
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "setup",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("videos-bucket", "words-bucket"):
        s3.create_bucket(Bucket=bucket)
    queue = sqs.create_queue(QueueName="video-events")["QueueUrl"]

    def upload(name: str) -> None:
        s3.upload_file(str(SAMPLES / name), "videos-bucket", f"in/{name}")

    second = (
        FAST_MODEL.replace("champion = true\n", "").replace("_fast", "_second").replace("ds = 2", "ds = 3")
    )
    (platform.root / "models.toml").write_text(FAST_MODEL + second)
    platform.env |= aws | {
        "ASR_SOURCE_URL": "s3://videos-bucket/in",
        "ASR_QUEUE_URL": queue,
        "ASR_STORE_URL": "s3://words-bucket/platform",
        "ASR_WAREHOUSE": str(platform.root / "warehouse.duckdb"),
        "DAGSTER_HOME": str(platform.root / "dagster"),
        "XDG_CACHE_HOME": str(platform.root / "cache"),
    }

    def work(role: str, code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", AS_A_ROLE + code],
            env=platform.environment | {"AWS_ACCESS_KEY_ID": role},
            cwd=platform.root,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, gatekeeper.refused) == (0, []), done.stderr

    def command(role: str, *arguments: str) -> None:
        platform.env["AWS_ACCESS_KEY_ID"] = role
        platform.must(*arguments)
        assert gatekeeper.refused == []

    for name in ("delayed_audio.mp4", "silent.mp4"):
        upload(name)
    event = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "videos-bucket"}}}
    event["s3"]["object"] = {"key": "in/delayed_audio.mp4"}  # type: ignore[index]
    for body in (json.dumps({"Records": [event]}), "nonsense"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    work("ingest", INGEST)
    s3.delete_object(Bucket="videos-bucket", Key="in/silent.mp4")  # noticed, and gone before it was read
    for _ in range(2):  # the second time it is there again, and what was to be tried again is forgotten
        work("ingest", "for batch in batches: runner.process(batch, audio)")
        work("transcripts", "for batch in batches: runner.process(batch, words)")
        work("loader", "runner.load(); runner.compare()")
        upload("silent.mp4")
    newest = json.dumps({"number": 7, "warehouse": "another", "load": 1}).encode()
    s3.put_object(Bucket="words-bucket", Key="platform/snapshots/latest.json", Body=newest)
    work("loader", "runner.load()")
    for arguments in (["sql", "from words_current limit 1"], ["search", "picture"], ["models"]):
        command("analyst", *arguments)
    for arguments in (["doctor"], ["verify"], ["erase", "--yes", "in/delayed_audio.mp4"]):
        command("operator", *arguments)

    for policy in ROLES:
        did = {call for role, call in gatekeeper.done if role == policy}
        for said in statements(policy):
            for action in [action for action in said["Action"] if not action.startswith(KMS)]:
                used = [call for call in did if call[0] == action and allows(policy, call)]
                assert used, f"{policy}.json allows {action}, and nobody ever does it"


@pytest.mark.parametrize(
    ("policy", "action", "resource"),
    [
        ("transcripts", "s3:GetObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("transcripts", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/champions/00000001.json"),
        ("loader", "s3:GetObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("loader", "s3:GetObject", "arn:aws:s3:::words-bucket/platform/audio/a.flac"),
        ("loader", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/transcripts/model=m/batch=1.parquet"),
        ("ingest", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/transcripts/model=m/batch=1.parquet"),
        ("ingest", "s3:PutObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("ingest", "s3:DeleteObject", "arn:aws:s3:::words-bucket/platform/ingest/00000001.json"),
        ("analyst", "s3:GetObject", "arn:aws:s3:::words-bucket/platform/audio/a.flac"),
        ("analyst", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/snapshots/latest.json"),
        ("operator", "s3:DeleteObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
    ],
)
def test_a_role_may_not(policy: str, action: str, resource: str) -> None:
    assert not any(allows(each, (action, resource)) for each in ROLES[policy])


def test_policies_name_no_more_than_they_must() -> None:
    assert {file.stem for file in DEPLOY.glob("*.json")} == ROLES.keys()
    for policy in ROLES:
        actions = {action for said in statements(policy) for action in said["Action"]}
        assert not any("*" in action for action in actions)
        encrypts = {"s3:PutObject"} & actions and policy != "operator"  # who is never it alone
        decrypts = {"s3:GetObject"} & actions and policy != "operator"
        assert ("kms:GenerateDataKey" in actions, "kms:Decrypt" in actions) == (
            bool(encrypts),
            bool(decrypts),
        )


# -- A login in front of the UI.

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class SignIn(BaseHTTPRequestHandler):
    """Stands in for oauth2-proxy: a cookie says which group somebody is of."""

    def do_GET(self) -> None:
        allowed = self.path.partition("allowed_groups=")[2].split(",")
        group = re.findall(r"group=(\w+)", self.headers.get("Cookie", ""))
        self.send_response(202 if set(group) & set(allowed) else 403 if group else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Everything(SignIn):
    """Stands in for the UI; answers with what it was sent."""

    def do_GET(self) -> None:
        body = f"everything {dict(self.headers)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815


class ReadOnly(Everything):
    """Stands in for the second UI."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"read-only")

    do_POST = do_GET  # noqa: N815


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[int]:
    """nginx as configured, on loopback, before stand-ins; its port."""
    if not NGINX:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    key, certificate = tmp_path / "certificate.key", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -keyout {} -out {}"
    subprocess.run(made.format(key, certificate).split(), capture_output=True, check=True)
    text, port = (DEPLOY / "nginx.conf").read_text(), free_port()
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    with serving(SignIn) as sign_in, serving(Everything) as ui, serving(ReadOnly) as view:
        for was, now in [
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("listen 80", f"listen 127.0.0.1:{free_port()}"),
            ("127.0.0.1:4180", f"127.0.0.1:{sign_in}"),
            ("127.0.0.1:3000;", f"127.0.0.1:{ui};"),
            ("127.0.0.1:3001;", f"127.0.0.1:{view};"),
            ("http {", f"http {{\n{temporary}"),
        ]:
            assert was in text
            text = text.replace(was, now)
        (tmp_path / "nginx.conf").write_text(text)
        how = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        checked = subprocess.run([*how, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        server = subprocess.Popen([*how, "-g", "daemon off; master_process off;"], stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            server.kill()
            server.wait()


@pytest.mark.parametrize(
    ("host", "group", "status", "says"),
    [
        ("dagster.example.org", "operators", 200, "everything"),
        ("dagster.example.org", "viewers", 403, ""),
        ("dagster.example.org", "", 302, ""),
        ("dagster-view.example.org", "viewers", 200, "read-only"),
        ("dagster-view.example.org", "operators", 200, "read-only"),
        ("dagster-view.example.org", "", 302, ""),
        ("elsewhere.example.org", "operators", 421, ""),
    ],
)
def test_nobody_gets_to_the_ui_who_has_not_signed_in(
    proxy: int, host: str, group: str, status: int, says: str
) -> None:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    for method in ("GET", "POST"):
        headers = {"Host": host} | ({"Cookie": f"group={group}"} if group else {})
        with closing(HTTPSConnection("127.0.0.1", proxy, context=unverified, timeout=20)) as connection:
            connection.request(method, "/graphql", headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode()
        assert answer.status == status
        assert says in body
        assert f"group={group}" not in body or not group  # the login's cookie is nothing for the UI
        if status == 302:
            assert answer.headers["Location"].startswith(f"https://{host}/oauth2/start?rd=")
