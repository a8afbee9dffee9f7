"""A gate in front of AWS's stand-ins, which lets a role do what its policies allow."""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy" / "security"

ROLES = {
    **{role: [role] for role in ("ingest", "transcripts", "loader", "analyst", "explorer")},
    "operator": ["ingest", "transcripts", "loader", "operator"],
    "mediaconvert": ["ingest", "mediaconvert"],
    "sagemaker": ["transcripts", "sagemaker"],
    "logs": ["logs"],
    "webserver": ["webserver"],
}

ADDED = {"operator", "mediaconvert", "sagemaker"}
"""Policies that nobody has alone."""

LISTED = "s3:ListBucket"

KMS = "kms:"

ELSEWHERE = r"/endpoints/(?P<endpoint>[^/]+)/async-invocations|/2017-08-29/jobs(?:/(?P<job>.+))?"
"""What the stand-ins for SageMaker and MediaConvert are asked."""

OBJECT_ACTIONS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",  # also of a part
    "POST": "s3:PutObject",  # beginning and end of an upload in parts
    "DELETE": "s3:DeleteObject",
}

ACCOUNT = "eu-central-1:111122223333"

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


def _endpoint(name: str) -> str:
    return f"arn:aws:sagemaker:{ACCOUNT}:endpoint/{name}"


def asked(environ: dict[str, Any]) -> list[Call]:
    """The actions that a request stands for, as AWS's reference of actions has them, and on what."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        action = target.rpartition(".")[2].removesuffix("Batch")
        if target.startswith("SageMaker."):
            return [(f"sagemaker:{action}", _endpoint(json.loads(body)["EndpointName"]))]
        queue = json.loads(body)["QueueUrl"].rpartition("/")[2]
        return [(f"sqs:{action}", f"arn:aws:sqs:{ACCOUNT}:{queue}")]
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    if found := re.fullmatch(ELSEWHERE, environ["PATH_INFO"]):
        if found["endpoint"]:
            return [("sagemaker:InvokeEndpointAsync", _endpoint(found["endpoint"]))]
        if method == "GET":
            return [("mediaconvert:GetJob", f"arn:aws:mediaconvert:{ACCOUNT}:jobs/{found['job']}")]
        queue = f"arn:aws:mediaconvert:{ACCOUNT}:queues/Default"
        return [("mediaconvert:CreateJob", queue), ("iam:PassRole", json.loads(body)["role"])]
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
    withheld: Call | None = None
    """What nobody may for now, though a policy allows it."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # A link has it in its address.
        signed = environ.get("HTTP_AUTHORIZATION") or unquote(environ["QUERY_STRING"])
        role = re.findall(r"Credential=(\w+)/", signed)[0]
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
        wrong = [
            call
            for call in calls
            if (self.withheld and call[0] == self.withheld[0] and fnmatchcase(call[1], self.withheld[1]))
            or not any(allows(policy, call) for policy in ROLES[role])
        ]
        self.refused += [(role, call) for call in wrong]
        return not wrong


@contextmanager
def gated() -> Iterator[tuple[Gate, str]]:
    """A gate in front of moto, and its URL."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield gate, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nobody_may_more(gate: Gate, *policies: str) -> None:
    """Whoever has a policy has done all that it allows."""
    for policy in policies:
        did = {call for role, call in gate.done if role == policy}
        for said in statements(policy):
            for action in [action for action in said["Action"] if not action.startswith(KMS)]:
                used = [call for call in did if call[0] == action and allows(policy, call)]
                assert used, f"{policy}.json allows {action}, and nobody ever does it"


def set_up(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The AWS environment of whoever makes buckets behind the gate, also set in this process."""
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "setup",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    return aws
