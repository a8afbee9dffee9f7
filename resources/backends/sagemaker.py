"""Transcription by SageMaker's asynchronous inference: whole recordings, each a request of its own.

Every model version has its endpoint, which runs this project's ``deploy/sagemaker/serve.py`` and may have no
instance while there is nothing to do. It reads the FLAC in the store, and writes what was heard, or why
nothing was, to S3. Each request under way is noted in the store, so that whoever is killed collects its
answer the next time and pays for no other; only one that was killed before its note was written is asked
again, for the same answer in the same place. What has been collected and kept is deleted there.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)

from resources import layout
from resources.aws import patience
from resources.backends import Job
from resources.published import JsonObject
from speech.errors import EngineError, ModelError
from speech.pipeline import Heard
from speech.reading import Memory, Recording
from speech.serving import Listened, Told
from speech.types import Seconds

AT_ONCE = 64
"""Requests under way, where nobody says how many."""
QUEUE_S, INVOCATION_S = 21_600, 3_600
"""A request may wait and be worked on for so long; SageMaker allows no more."""
SLACK = timedelta(minutes=5)  # between clocks, and for an answer on its way to S3
MAX_BYTES, MAX_TOLD = 1 << 30, 1024  # SageMaker's
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0
REFUSED_S: Seconds = 900.0
"""So long is asked again where SageMaker accepts nothing: it is busy, or its quota is used up."""

_NOT_NOW = {"ThrottlingException", "Throttling", "TooManyRequestsException", "ServiceUnavailable"}
_NOT_NOW |= {"InternalFailure", "InternalServerException", "InternalError", "SlowDown", "503", "500"}
_NOTHING = {"NoSuchKey", "404"}


class Request(JsonObject, frozen=True):
    """One that is under way; ``until`` is when nothing can come of it any more."""

    output: str
    failure: str
    until: datetime


@contextmanager
def load(job: Job) -> Iterator["Endpoint"]:
    """Raises :class:`~speech.errors.ModelError` for a store that SageMaker cannot read."""
    if not job.store.url.startswith("s3://"):
        raise ModelError(
            f"SageMaker reads S3 alone, and the store is {job.store.url}: set ASR_STORE_URL to s3://…"
        )
    try:
        yield Endpoint(job)
    except (BotoCoreError, ClientError) as error:
        raise ModelError(
            f"SageMaker, or the bucket of its answers, refuses: {_code(error)}; check the AWS_* variables, "
            "and allow s3:GetObject, s3:ListBucket and s3:DeleteObject there"
        ) from None


def describe(job: Job) -> str:
    """How the first champion's endpoint is."""
    with load(job) as endpoint:
        return endpoint.describe()


class Endpoint:
    """See :class:`resources.backends.Transcribing`."""

    def __init__(self, job: Job) -> None:
        self._job, self._fingerprint = job, job.model.fingerprint
        self.name = f"{job.at}-{job.model.name.replace('_', '-')}"
        # To ask twice is to pay twice: only we know when nothing was accepted.
        self._runtime = boto3.client("sagemaker-runtime", config=patience(tries=0))
        self._s3 = boto3.client("s3", config=patience())

    def run(
        self,
        recordings: Iterable[Recording],
        memory: Memory | None = None,  # noqa: ARG002  # of windows; here a recording is heard as a whole
    ) -> Iterator[Heard]:
        """Ask for a number of them at once, and collect what is done, until all are."""
        waiting, under_way = deque(recordings), dict[str, tuple[Recording, Request]]()
        wait_s, refused_at = FIRST_WAIT_S, None
        while waiting or under_way:
            while waiting and len(under_way) < (self._job.workers or AT_ONCE):
                try:
                    request = self._under_way(waiting[0]) or self._ask(waiting[0])
                except EngineError as error:
                    yield Heard(waiting.popleft().id, error, 0.0)
                    continue
                if request is None:
                    refused_at = refused_at or time.monotonic()
                    break
                refused_at, recording = None, waiting.popleft()
                under_way[recording.id] = recording, request
            if refused_at and not under_way and time.monotonic() - refused_at > REFUSED_S:
                raise ModelError(
                    f"endpoint {self.name} has accepted nothing for {REFUSED_S:.0f} s: try again later"
                )
            try:
                done = [(*pair, heard) for pair in under_way.values() if (heard := self._collect(*pair))]
            except ModelError:  # what the others will say is worth as little
                for pair in under_way.values():
                    self._forget(*pair)
                raise
            for recording, request, heard in done:
                yield heard
                self._forget(recording, request)  # whoever asked has kept it
                del under_way[recording.id]
            wait_s = FIRST_WAIT_S if done else min(wait_s * 1.5, LONGEST_WAIT_S)
            if not done and (waiting or under_way):
                time.sleep(wait_s)

    def describe(self) -> str:
        """Raises ModelError where it is not in service."""
        try:
            found = boto3.client("sagemaker", config=patience()).describe_endpoint(EndpointName=self.name)
            state = found["EndpointStatus"]
        except ClientError as error:
            state = _code(error)
        if state != "InService":
            raise ModelError(
                f"endpoint {self.name} is not in service ({state}): see deploy/sagemaker/endpoint.yaml"
            )
        return f"SageMaker: endpoint {self.name} is in service"

    def _told(self, recording: Recording) -> str:
        told = Told(self._fingerprint, recording.language, recording.prompt).encode()
        if len(told) > MAX_TOLD:
            raise EngineError(
                f"its hints are too long for SageMaker, by {len(told) - MAX_TOLD} characters: shorten them"
            )
        return told

    def _id(self, recording: Recording) -> str:
        """Of all that decides on the words."""
        return hashlib.blake2b(f"{recording.id} {self._told(recording)}".encode(), digest_size=16).hexdigest()

    def _note(self, recording: Recording) -> str:
        return layout.asked(self._job.model.name, self._job.batch, self._fingerprint, self._id(recording))

    def _under_way(self, recording: Recording) -> Request | None:
        """What a run that was killed has asked for."""
        return Request.read(self._job.store, self._note(recording))

    def _ask(self, recording: Recording) -> Request | None:
        """None: not now. Raises EngineError where nobody knows whether it was accepted."""
        key = layout.audio(recording.id)
        audio = self._job.store.head(key)
        if audio and audio.size > MAX_BYTES:
            raise EngineError(
                "its audio is larger than the 1 GB that SageMaker takes: transcribe it elsewhere"
            )
        try:
            answer = self._runtime.invoke_endpoint_async(
                EndpointName=self.name,
                InputLocation=f"{self._job.store.url}/{key}",
                ContentType="audio/flac",
                CustomAttributes=self._told(recording),
                InferenceId=self._id(recording),
                S3OutputPathExtension=f"{self._job.model.name}/{self._fingerprint}",
                Filename=self._id(recording),
                RequestTTLSeconds=QUEUE_S,
                InvocationTimeoutSeconds=INVOCATION_S,
            )
        except (ConnectTimeoutError, EndpointConnectionError):
            return None
        except HTTPClientError as error:
            raise EngineError(
                f"endpoint {self.name} was asked, and its answer is lost ({_code(error)}): it may be "
                "at work, and is not asked again at once"
            ) from None
        except ClientError as error:
            if (code := _code(error)) in _NOT_NOW:
                return None
            raise ModelError(
                f"endpoint {self.name} takes no requests: {code}; check ASR_SAGEMAKER_ENDPOINT, that it is "
                "in service, and sagemaker:InvokeEndpointAsync"
            ) from None
        request = Request(
            output=answer["OutputLocation"],
            failure=answer["FailureLocation"],
            until=datetime.now(UTC) + timedelta(seconds=QUEUE_S + INVOCATION_S) + SLACK,
        )
        self._job.store.put(self._note(recording), request.model_dump_json().encode())
        return request

    def _collect(self, recording: Recording, request: Request) -> Heard | None:
        """What became of a recording, as soon as that is known."""
        if (output := self._object(request.output)) is not None:
            return self._heard(recording, output)
        if (failure := self._object(request.failure)) is not None:
            said = " ".join(failure.decode(errors="replace").split())[:500]
            return Heard(recording.id, EngineError(f"endpoint {self.name} failed: {said}"), 0.0)
        if datetime.now(UTC) > request.until:
            late = f"endpoint {self.name} has not answered in time: see its log, and whether it has instances"
            return Heard(recording.id, EngineError(late), 0.0)
        return None

    def _heard(self, recording: Recording, output: bytes) -> Heard:
        try:
            listened = Listened.decode(output)
        except ValueError:
            return Heard(recording.id, EngineError(f"endpoint {self.name} gave an answer that is none"), 0.0)
        if listened.transcript is None or listened.fingerprint != self._fingerprint:
            raise ModelError(
                f"endpoint {self.name} serves another definition of model {self._job.model.name}, or other "
                "weights or packages: give it the image and the models.toml that are in use here"
            )
        return Heard(recording.id, listened.transcript, listened.seconds, listened.usage)

    def _object(self, url: str) -> bytes | None:
        """None: not yet, or nobody can say now."""
        try:
            data: bytes = self._s3.get_object(**_place(url))["Body"].read()
        except (ClientError, HTTPClientError) as error:
            if _code(error) in _NOTHING | _NOT_NOW or isinstance(error, HTTPClientError):
                return None
            raise
        return data

    def _forget(self, recording: Recording, request: Request) -> None:
        for url in (request.output, request.failure):
            self._s3.delete_object(**_place(url))
        self._job.store.delete(self._note(recording))


def _code(error: BotoCoreError | ClientError) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


def _place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}
