"""The real client of AWS, over HTTP, to a stand-in whose endpoints are real serving processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.local.stand_ins import StandIn, serving
from resources import aws, layout
from resources.backends import Job
from resources.backends.sagemaker import Endpoint, Request, describe, load
from resources.store import Store
from speech.engines import Hardware
from speech.errors import EngineError, ModelError
from speech.media import LocalFile, MediaDecoder
from speech.models import ModelVersion, read_models
from speech.pipeline import Heard, Transcriber
from speech.reading import Recording
from tests.asr_assets.daemon import wait_for
from tests.conftest import FAST_MODEL, SAMPLES
from tests.speech.test_pipeline import Kept

pytestmark = pytest.mark.long

NAMES = ("delayed_audio.mp4", "school.mp4", "station.webm")
ENDPOINT = "asr-pocketsphinx-fast"

# What a run does, in a process that can be killed.
WORK = """
import sys
from pathlib import Path
from tests.resources.backends.test_sagemaker import RECORDINGS, job_on
from resources.backends.sagemaker import load
with load(job_on(sys.argv[1], Path(sys.argv[2]))) as endpoint:
    list(endpoint.run(RECORDINGS))
"""


def nothing() -> AbstractContextManager[Path]:
    raise AssertionError("the audio is in S3, and read there")


RECORDINGS = [Recording(name, nothing) for name in NAMES]


def job_on(bucket: str, models: Path) -> Job:
    model = read_models(models)["pocketsphinx_fast"]
    return Job(model, Store(url=f"s3://{bucket}/platform"), "00000001", Hardware(), 0, "asr")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_text(FAST_MODEL)
    return path


@pytest.fixture(scope="module")
def port(models: Path) -> Iterator[int]:
    environment = {"PATH": os.environ["PATH"], "ASR_MODELS": str(models), "ASR_MODEL": "pocketsphinx_fast"}
    with serving(environment) as number:
        yield number


@pytest.fixture
def sagemaker(bucket: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = StandIn(bucket, {ENDPOINT: port})
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", stand_in.url)
    yield stand_in
    stand_in.end()


@pytest.fixture
def job(sagemaker: StandIn, models: Path, tmp_path: Path) -> Job:
    """What is to be heard lies in the store."""
    made = job_on(sagemaker.bucket, models)
    with MediaDecoder() as decoder:
        for name in NAMES:
            with LocalFile(SAMPLES / name) as video:
                decoder.extract(video, name, tmp_path / name)
            made.store.put(layout.audio(name), tmp_path / name)
    return made


def run(job: Job, recordings: list[Recording] | None = None) -> dict[str, Heard]:
    with load(job) as endpoint:
        heard = list(endpoint.run(recordings or RECORDINGS, memory=Kept()))
    assert len(heard) == len({one.id for one in heard})
    return {one.id: one for one in heard}


def here(model: ModelVersion, folder: Path) -> dict[str, object]:
    with Transcriber(model) as transcriber:
        return {one.id: one.outcome for one in transcriber.run(Recording(n, folder / n) for n in NAMES)}


def left_of(job: Job) -> list[str]:
    """What is there beside the audio: notes and answers."""
    bucket = job.store.url.removeprefix("s3://").partition("/")[0]
    found = boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return [one["Key"] for one in found if "/audio/" not in one["Key"]]


def test_the_words_are_those_of_here_though_it_is_refused_at_first(
    job: Job, sagemaker: StandIn, tmp_path: Path
) -> None:
    sagemaker.refused = 4  # more than the client tries by itself
    heard = run(job)
    assert {name: one.outcome for name, one in heard.items()} == here(job.model, tmp_path)
    assert all(one.seconds > 0 and one.usage for one in heard.values())
    assert sorted(sagemaker.asked) == sorted(f"{job.store.url}/{layout.audio(name)}" for name in NAMES)
    assert left_of(job) == []


def test_killed_after_it_has_asked_it_collects_and_pays_once(
    job: Job, sagemaker: StandIn, models: Path, tmp_path: Path
) -> None:
    sagemaker.go.clear()
    work = subprocess.Popen([sys.executable, "-c", WORK, sagemaker.bucket, str(models)])
    wait_for(lambda: len(left_of(job)) == len(NAMES), 60)
    work.send_signal(signal.SIGKILL)
    work.wait()
    sagemaker.go.set()
    heard = run(job)
    assert {name: one.outcome for name, one in heard.items()} == here(job.model, tmp_path)
    assert len(sagemaker.asked) == len(NAMES)
    assert left_of(job) == []


def test_what_fails_is_one_video_with_the_words_of_who_failed(job: Job, sagemaker: StandIn) -> None:
    job.store.put(layout.audio(NAMES[0]), b"this is no FLAC" * 100)
    long = Recording("long", nothing, prompt="name, " * 200)
    late = Recording("late", nothing)
    note = Request(
        output=f"s3://{sagemaker.bucket}/none",
        failure=f"s3://{sagemaker.bucket}/none",
        until=datetime.now(UTC),
    )
    job.store.put(Endpoint(job)._note(late), note.model_dump_json().encode())
    heard = run(job, [*RECORDINGS, long, late])
    failed = {name: str(one.outcome) for name, one in heard.items() if isinstance(one.outcome, EngineError)}
    assert failed.keys() == {NAMES[0], "long", "late"}
    assert "this audio is damaged" in failed[NAMES[0]]
    assert "hints are too long" in failed["long"]
    assert "has not answered in time" in failed["late"]
    assert left_of(job) == []


def test_a_request_whose_acceptance_is_not_heard_of_is_paid_once(
    job: Job, sagemaker: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "ANSWER_S", 3.0)
    sagemaker.late_s = 6.0
    heard = run(job)
    (lost,) = (one.outcome for one in heard.values() if isinstance(one.outcome, EngineError))
    assert "its answer is lost (ReadTimeoutError)" in str(lost)
    assert lost.reason.may_pass
    assert sorted(sagemaker.asked) == sorted(f"{job.store.url}/{layout.audio(name)}" for name in NAMES)


def test_an_endpoint_with_another_definition_is_not_believed(job: Job, sagemaker: StandIn) -> None:
    with pytest.raises(ModelError, match="serves another definition of model pocketsphinx_fast"):
        run(replace(job, model=replace(job.model, max_window_s=9.0)))
    assert [key for key in left_of(job) if key.startswith("platform")] == []


def in_service(endpoint: str) -> None:
    client = boto3.client("sagemaker")
    client.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/any")
    variant = {
        "VariantName": "all",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    client.create_endpoint(EndpointName=endpoint, EndpointConfigName="c")


def test_doctor_says_whether_the_endpoint_is_in_service(job: Job) -> None:
    with pytest.raises(ModelError, match=f"endpoint {ENDPOINT} is not in service"):
        describe(job)
    in_service(ENDPOINT)
    assert describe(job) == f"SageMaker: endpoint {ENDPOINT} is in service"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"store": Store(url="file:///folder")}, "the store is file:///folder: set ASR_STORE_URL to s3://"),
        ({"at": "other"}, "endpoint other-pocketsphinx-fast takes no requests: ValidationError; check"),
    ],
)
def test_what_cannot_be_is_a_sentence(job: Job, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=re.escape(sentence)):
        run(replace(job, **change))
