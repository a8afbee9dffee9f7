"""A stand-in for Kubernetes, on loopback: it keeps Jobs as the API server does, and may start their pods.

What it is told must be valid by Kubernetes' own schemas. A pod is a process of this machine, with the
arguments and the environment that its manifest says, and nothing of this process's. Volumes, images, accounts
and limits do nothing here: tests look at them in the manifests.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

VERSION = "1.37"
Manifest = dict[str, Any]
_ONE = re.compile(
    r"/(?:api|apis/batch)/v1/namespaces/[\w-]+/(jobs|pods|events)(?:/([\w.-]+))?(?:/(?:status|log))?"
)


def check(manifest: Manifest) -> None:
    """Raises what says where it is not as Kubernetes wants it."""
    kubernetes_validate.validate(manifest, VERSION, strict=True)


@dataclass
class Cluster:
    """``running``: Jobs have pods. Values of ``config`` are by the name of their ConfigMap or Secret."""

    folder: Path
    config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    running: bool = False
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    port: int = 0

    @property
    def kubeconfig(self) -> Path:
        """The file by which clients find it."""
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
        user = {"name": "c", "user": {}}
        file = self.folder / "kubeconfig.yaml"
        said = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **said}))
        return file

    def create(self, job: Manifest) -> tuple[int, Manifest]:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, _status(409, "AlreadyExists")
        try:
            check(job)
        except kubernetes_validate.ValidationError as error:
            return 422, _status(422, str(error))
        self.jobs[name] = job
        if self.running:
            self._start(name, job["spec"]["template"]["spec"]["containers"][0])
        return 201, job

    def job(self, name: str) -> Manifest:
        """The Job with its status as it is now."""
        code = self.pods[name].poll() if name in self.pods else None
        active, failed = name in self.pods and code is None, code not in (None, 0)
        counts = {"active": int(active), "failed": int(failed), "succeeded": int(code == 0)}
        return {**self.jobs[name], "status": {key: count for key, count in counts.items() if count}}

    def delete(self, name: str) -> None:
        """As a cluster does: ask, wait, kill."""
        del self.jobs[name]
        if pod := self.pods.pop(name, None):
            _end(pod, signal.SIGTERM)

    def stop(self, name: str) -> None:
        """A pod does nothing any more, and is there."""
        os.killpg(self.pods[name].pid, signal.SIGSTOP)

    def lose(self, name: str) -> None:
        """The node under a pod goes away."""
        _end(self.pods[name], signal.SIGKILL)

    def of(self, component: str, step: str = "", job: str = "") -> list[str]:
        """Names of the Jobs of runs (``run_worker``) or steps (``step_worker``), in their order."""
        labels = {name: one["metadata"]["labels"] for name, one in list(self.jobs.items())}
        return [
            name
            for name, label in labels.items()
            if label["app.kubernetes.io/component"] == component
            and step in ("", label.get("dagster/op"))
            and job in ("", label["dagster/job"])
        ]

    def said(self, name: str) -> str:
        """What a pod printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, container: Manifest) -> None:
        named = [entry.get(kind) for entry in container["envFrom"] for kind in ("configMapRef", "secretRef")]
        env = {key: text for one in named if one for key, text in self.config[one["name"]].items()}
        env |= {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        (self.folder / "home").mkdir(exist_ok=True)
        image = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder / "home")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.pods[name] = subprocess.Popen(
                container["args"], env=image | env, cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


@contextmanager
def cluster(
    folder: Path, config: Mapping[str, Mapping[str, str]], running: bool = False
) -> Iterator[Cluster]:
    """A cluster, until the block ends."""
    folder.mkdir()
    ours = Cluster(folder, config, running)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(ours))
    ours.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ours
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for pod in ours.pods.values():
            _end(pod, signal.SIGKILL)


def _end(pod: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    if pod.poll() is None:
        os.killpg(pod.pid, how)
        try:
            pod.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(pod.pid, signal.SIGKILL)
            pod.wait(20)


def _status(code: int, reason: str) -> Manifest:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}


def _handler(ours: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            found = _ONE.fullmatch(urlsplit(self.path).path)
            code, body = self._ask(*found.groups()) if found else (404, _status(404, "NotFound"))
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _ask(self, kind: str, name: str | None) -> tuple[int, Manifest]:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "POST":
                return ours.create(json.loads(body))
            if name is None:
                wanted = parse_qs(urlsplit(self.path).query).get("fieldSelector", [""])[0]
                jobs = [ours.job(one) for one in list(ours.jobs) if wanted in ("", f"metadata.name={one}")]
                items = jobs if kind == "jobs" else []
                return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
            if kind != "jobs" or name not in ours.jobs:
                return 404, _status(404, "NotFound")
            job = ours.job(name)
            if self.command == "DELETE":
                ours.delete(name)
            return 200, job

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names are the base class's

        def log_message(self, *_: object) -> None:
            pass

    return Handler
