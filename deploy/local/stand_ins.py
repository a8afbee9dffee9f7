"""What stands in for services of AWS on this machine: as much of their protocols as the platform speaks.

Nothing is pretended about the work: requests to SageMaker go to real ``serve.py`` processes. What comes of it
is written to S3, wherever ``AWS_ENDPOINT_URL`` leads. Not for production: nobody is asked who they are.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3

SERVE = Path(__file__).parents[1] / "sagemaker" / "serve.py"
READY_S = 120


class StandIn(ThreadingHTTPServer):
    """An endpoint for ``AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME``; results go to ``bucket``.

    Endpoints are named with the port of their process. For tests: ``asked`` is what came in, so many requests
    are ``refused`` first, and nothing is answered before ``go`` is set.
    """

    daemon_threads = True

    def __init__(self, bucket: str, endpoints: dict[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket, self.endpoints = bucket, endpoints or {}
        self.s3 = boto3.client("s3")
        self.asked: list[str] = []
        self.refused, self.go = 0, threading.Event()
        self.go.set()
        self.workers = ThreadPoolExecutor(2)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def end(self) -> None:
        """Nobody answers any more."""
        self.go.set()
        self.shutdown()
        self.server_close()
        self.workers.shutdown()

    def invoke(self, endpoint: str, headers: Any) -> tuple[str, str]:
        """Queue a request of SageMaker's asynchronous inference; where what becomes of it will be."""
        name = f"{headers['X-Amzn-SageMaker-S3OutputPathExtension']}/{headers['X-Amzn-SageMaker-Filename']}"
        output, failure = f"sagemaker/out/{name}", f"sagemaker/failed/{name}"
        told = headers["X-Amzn-SageMaker-Custom-Attributes"]
        source = headers["X-Amzn-SageMaker-InputLocation"]
        self.asked.append(source)
        self.workers.submit(self._listen, self.endpoints[endpoint], source, told, output, failure)
        return f"s3://{self.bucket}/{output}", f"s3://{self.bucket}/{failure}"

    def _listen(self, port: int, source: str, told: str, output: str, failure: str) -> None:
        self.go.wait()
        bucket, _, key = source.removeprefix("s3://").partition("/")
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with closing(HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("POST", "/invocations", body, {"X-Amzn-SageMaker-Custom-Attributes": told})
            answer = connection.getresponse()
            said = answer.read()
        self.s3.put_object(Bucket=self.bucket, Key=output if answer.status == 200 else failure, Body=said)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refused:
            self.server.refused -= 1
            return self._answer(
                429, {"message": "Rate exceeded"}, {"x-amzn-ErrorType": "ThrottlingException"}
            )
        if found := re.fullmatch(r"/endpoints/([^/]+)/async-invocations", self.path):
            if found[1] not in self.server.endpoints:
                said = {"message": f"Endpoint {found[1]} not found"}
                return self._answer(400, said, {"x-amzn-ErrorType": "ValidationError"})
            output, failure = self.server.invoke(found[1], self.headers)
            places = {
                "X-Amzn-SageMaker-OutputLocation": output,
                "X-Amzn-SageMaker-FailureLocation": failure,
            }
            return self._answer(202, {"InferenceId": self.headers["X-Amzn-SageMaker-Inference-Id"]}, places)
        return self._answer(404, {"message": f"{self.path}, with {len(body)} bytes"})

    def _answer(self, status: int, said: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[int]:
    """A process that listens, of the model version that ``ASR_MODEL`` names; its port."""
    command = [sys.executable, str(SERVE), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(READY_S, process.kill)
    watchdog.start()
    try:
        assert process.stderr
        said = process.stderr.readline()
        watchdog.cancel()
        yield int(said.rpartition(" ")[2])
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
