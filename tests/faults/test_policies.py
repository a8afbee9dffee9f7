"""Policies: what the platform really asks of S3 and SQS, and nothing besides."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from typing import Any

import boto3
import pytest

from tests.conftest import FAST_MODEL, ROOT, SAMPLES, Platform

DEPLOY = ROOT / "deploy" / "security"

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
@pytest.mark.xdist_group("postgres")
def test_each_role_may_do_what_it_does_and_nothing_besides(
    platform: Platform, gate: tuple[Gate, str], postgres: str, monkeypatch: pytest.MonkeyPatch
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
        "ASR_POSTGRES_URL": postgres,
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
        work("loader", "runner.load(); runner.compare(); runner.copy()")
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
