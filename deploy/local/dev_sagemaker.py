"""The demo's samples by way of SageMaker and, if asked for, MediaConvert, all of it on this machine.

Usage::

    python deploy/local/dev_sagemaker.py [FOLDER] [--mediaconvert]

Source and store are a bucket of moto's, which ends with this process; each model version is a real
``deploy/sagemaker/serve.py``, and what lies between is :mod:`deploy.local.stand_ins`. FOLDER keeps the rest.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import boto3
import typer
from moto.server import ThreadedMotoServer

HOME = Path(__file__).parents[2]
sys.path.insert(0, str(HOME))  # deploy is no package of the distribution

from deploy.local.stand_ins import StandIn, serving  # noqa: E402
from resources.models import SpeechModels  # noqa: E402
from resources.settings import Settings  # noqa: E402

BUCKET = "asr"
SAMPLES = HOME / "samples" / "videos"


def main(
    folder: Annotated[Path, typer.Argument(help="Where the platform keeps its state")] = Path(
        "data-sagemaker"
    ),
    mediaconvert: Annotated[bool, typer.Option(help="Take the sound out of videos by MediaConvert")] = False,
) -> None:
    """Start it all, run it once, end it all."""
    asr = str(Path(sys.executable).with_name("asr"))
    with ExitStack() as running:
        models = SpeechModels.of(Settings.from_env()).enabled
        ports = [running.enter_context(serving({**os.environ, "ASR_MODEL": model.name})) for model in models]
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        s3.start()
        running.callback(s3.stop)
        host, port = s3.get_host_and_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for sample in sorted(SAMPLES.iterdir()):
            client.upload_file(str(sample), BUCKET, f"videos/{sample.name}")
        names = [f"asr-{model.name.replace('_', '-')}" for model in models]
        aws = StandIn(BUCKET, dict(zip(names, ports, strict=True)))
        running.callback(aws.end)
        os.environ |= {
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": aws.url,
            "AWS_ENDPOINT_URL_MEDIACONVERT": aws.url,
            "ASR_BACKEND": "sagemaker",
            "ASR_EXTRACTOR": "mediaconvert" if mediaconvert else "here",
            "ASR_MEDIACONVERT_ROLE": "arn:aws:iam::000000000000:role/local",
            "ASR_SOURCE_URL": f"s3://{BUCKET}/videos",
            "ASR_STORE_URL": f"s3://{BUCKET}/platform",
            "ASR_WAREHOUSE": str(folder.absolute() / "warehouse.duckdb"),
            "DAGSTER_HOME": str(folder.absolute() / "dagster"),
        }
        # Of the samples one is damaged on purpose, and is a row that says so.
        subprocess.run([asr, "run"], check=True)
        subprocess.run([asr, "search", "right time"], check=True)
        typer.echo(f"{len(aws.asked)} requests and jobs were done", err=True)


if __name__ == "__main__":
    typer.run(main)
