"""Policies of what MediaConvert, SageMaker and the logs of steps need beside those of the platform."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import boto3
import pytest
import requests

from deploy.local.stand_ins import StandIn, serving
from tests.conftest import FAST_MODEL, SAMPLES, Platform
from tests.faults.gate import gated, nobody_may_more, set_up
from tests.faults.test_policies import AS_A_ROLE
from tests.resources.backends.test_sagemaker import in_service

ENDPOINT = "asr-pocketsphinx-fast"

AUDIO = "for batch in runner.ingest(): runner.process(batch, audio)"
WORDS = """
runner.models.describe(runner.models.get("pocketsphinx_fast"), store)
runner.process("00000001", words)
"""
LOGS = """
import sys
from dagster_aws.s3 import S3ComputeLogManager
from dagster._core.storage.compute_log_manager import ComputeIOType
manager = S3ComputeLogManager(bucket="words-bucket", local_dir=sys.argv[1])
key = ["run", "compute_logs", "step"]
"""
PRINT = """
with manager.capture_logs(key):
    print("said by a step")
"""
SHOW = """
assert manager.get_log_keys_for_log_key_prefix(key[:-1], ComputeIOType.STDOUT) == [key]
assert manager.get_log_data(key).stdout == b"said by a step\\n"
"""

App = Callable[..., Iterable[bytes]]


def also(moto: App, stand_in: str) -> App:
    """What moto does not stand in for goes to our own."""

    def ask(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(("/endpoints/", "/2017-08-29/")):
            return moto(environ, start)
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        body = environ["wsgi.input"].read()
        answer = requests.request(
            environ["REQUEST_METHOD"], stand_in + path, data=body, headers=headers, timeout=60
        )
        start(f"{answer.status_code} {answer.reason}", list(answer.headers.items()))
        return [answer.content]

    return ask


@pytest.mark.long
def test_who_works_elsewhere_may_do_what_that_takes_and_nothing_besides(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    (platform.root / "models.toml").write_text(FAST_MODEL)
    heard_by = {
        "PATH": os.environ["PATH"],
        "ASR_MODELS": str(platform.root / "models.toml"),
        "ASR_MODEL": "pocketsphinx_fast",
    }
    with gated() as (gate, url), serving(heard_by) as port:
        aws = set_up(url, monkeypatch)
        s3 = boto3.client("s3")
        for bucket in ("videos-bucket", "words-bucket", "answers-bucket"):
            s3.create_bucket(Bucket=bucket)
        s3.upload_file(str(SAMPLES / "school.mp4"), "videos-bucket", "in/school.mp4")
        in_service(ENDPOINT)
        stand_in = StandIn("answers-bucket", {ENDPOINT: port})
        gate.behind = also(gate.behind, stand_in.url)
        platform.env |= aws | {
            "ASR_SOURCE_URL": "s3://videos-bucket/in",
            "ASR_STORE_URL": "s3://words-bucket/platform",
            "ASR_WAREHOUSE": str(platform.root / "warehouse.duckdb"),
            "ASR_EXTRACTOR": "mediaconvert",
            "ASR_MEDIACONVERT_ROLE": "arn:aws:iam::111122223333:role/asr-mediaconvert",
            "ASR_BACKEND": "sagemaker",
            "DAGSTER_HOME": str(platform.root / "dagster"),
        }

        def work(role: str, code: str) -> str:
            """What it said where it failed."""
            done = subprocess.run(
                [sys.executable, "-c", AS_A_ROLE + code, str(platform.root / role)],
                env=platform.environment | {"AWS_ACCESS_KEY_ID": role},
                cwd=platform.root,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
            return done.stderr if done.returncode or gate.refused else ""

        # Who may not note a job buys none.
        gate.withheld = ("s3:PutObject", "arn:aws:s3:::words-bucket/platform/conversions/*")
        assert work("mediaconvert", AUDIO)
        assert {call for _, (call, _) in gate.refused} == {"s3:PutObject"}
        assert stand_in.asked == []
        gate.withheld = None
        gate.refused.clear()
        assert work("mediaconvert", 'runner.process("00000001", audio)') == ""
        assert work("sagemaker", WORDS) == ""
        assert work("logs", LOGS + PRINT) == ""
        assert work("webserver", LOGS + SHOW) == ""
        assert len(stand_in.asked) == 2
        stand_in.end()
    nobody_may_more(gate, "mediaconvert", "sagemaker", "logs", "webserver")
