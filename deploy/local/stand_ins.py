"""What stands in for services of AWS on this machine: as much of their protocols as the platform speaks.

Nothing is pretended about the work: requests to SageMaker go to real ``serve.py`` processes, and jobs of
MediaConvert's to the project's own decoder. What comes of it is written to S3, wherever ``AWS_ENDPOINT_URL``
leads. Not for production: nobody is asked who they are.
"""

import json
import re
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3

from speech.errors import MediaError
from speech.media import LocalFile, MediaDecoder, read_flac

SERVE = Path(__file__).parents[1] / "sagemaker" / "serve.py"
READY_S = 120


class StandIn(ThreadingHTTPServer):
    """For ``AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME`` and ``AWS_ENDPOINT_URL_MEDIACONVERT``.

    SageMaker's answers go to ``bucket``; its endpoints are named with the port of their process. For tests:
    ``asked`` is what came in, so many requests are ``refused`` first, the next one that is accepted is told
    so ``late_s`` later, nothing is done before ``go`` is set.
    """

    daemon_threads = True

    def __init__(self, bucket: str, endpoints: dict[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket, self.endpoints = bucket, endpoints or {}
        self.s3 = boto3.client("s3")
        self.asked: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refused, self.late_s, self.go = 0, 0.0, threading.Event()
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

    def create_job(self, about: dict[str, Any]) -> dict[str, Any]:
        """Queue a job of MediaConvert's; the same token gives the same job."""
        token = about["clientRequestToken"]
        if token not in self.jobs:
            self.jobs[token] = {"id": token, "status": "SUBMITTED"}
            self.asked.append(about["settings"]["inputs"][0]["fileInput"])
            self.workers.submit(self._convert, self.jobs[token], about["settings"])
        return self.jobs[token]

    def _convert(self, job: dict[str, Any], settings: dict[str, Any]) -> None:
        self.go.wait()
        if job["status"] == "CANCELED":
            return
        job["status"] = "PROGRESSING"
        (group,), (media,) = settings["outputGroups"], settings["inputs"]
        to = group["outputGroupSettings"]["fileGroupSettings"]["destination"]
        wanted = group["outputs"][0]["audioDescriptions"][0]["codecSettings"]["wavSettings"]
        with TemporaryDirectory() as folder:
            video, flac, wav = (Path(folder) / name for name in ("video", "flac", "wav"))
            self.s3.download_file(*_place(media["fileInput"]), str(video))
            try:
                with MediaDecoder() as decoder, LocalFile(video) as data:
                    decoder.extract(data, "it", flac)
            except MediaError as error:
                job |= {"status": "ERROR", "errorCode": 1030, "errorMessage": str(error)}
                return
            samples = read_flac(flac)
            with wave.open(str(wav), "wb") as file:
                file.setparams((samples.ndim, 2, wanted["sampleRate"], 0, "NONE", ""))
                file.writeframes(samples.T.tobytes())
            self.s3.upload_file(str(wav), *_place(f"{to}.{group['outputs'][0]['extension']}"))
        job["status"] = "COMPLETE"

    def _listen(self, port: int, source: str, told: str, output: str, failure: str) -> None:
        self.go.wait()
        bucket, key = _place(source)
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with closing(HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("POST", "/invocations", body, {"X-Amzn-SageMaker-Custom-Attributes": told})
            answer = connection.getresponse()
            said = answer.read()
        self.s3.put_object(Bucket=self.bucket, Key=output if answer.status == 200 else failure, Body=said)


def _place(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


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
            late_s, self.server.late_s = self.server.late_s, 0.0
            time.sleep(late_s)
            places = {
                "X-Amzn-SageMaker-OutputLocation": output,
                "X-Amzn-SageMaker-FailureLocation": failure,
            }
            return self._answer(202, {"InferenceId": self.headers["X-Amzn-SageMaker-Inference-Id"]}, places)
        if self.path == "/2017-08-29/jobs":
            return self._answer(201, {"job": self.server.create_job(json.loads(body))})
        return self._answer(404, {"message": f"nobody here knows {self.path}"})

    def do_GET(self) -> None:
        job_id = self.path.removeprefix("/2017-08-29/jobs/")
        job = next((job for job in self.server.jobs.values() if job["id"] == job_id), None)
        if job:
            return self._answer(200, {"job": job})
        return self._answer(404, {"message": "no such job"}, {"x-amzn-ErrorType": "NotFoundException"})

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
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
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
