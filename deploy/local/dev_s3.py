"""The platform on S3, all of it on this machine: a bucket, the queue of its notifications, asr dev on both.

Usage (``make dev-s3``)::

    python deploy/local/dev_s3.py [FOLDER] [--port P]

The bucket is moto's, on loopback: it begins with the samples and ends with this process. Its endpoint is
printed; any credentials will do. FOLDER keeps the platform's own state from one start to the next.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import boto3
import typer
from moto.server import ThreadedMotoServer

BUCKET, QUEUE = "videos", "video-events"
SAMPLES = Path(__file__).parents[2] / "samples" / "videos"
SHOWN = (
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    *("ASR_SOURCE_URL", "ASR_STORE_URL"),
)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the platform keeps its state")] = Path("data-s3"),
    port: Annotated[int, typer.Option(help="Port of the UI, on this machine only")] = 3000,
    samples: Annotated[bool, typer.Option(help="Begin with the sample videos in the bucket")] = True,
    s3_port: Annotated[int, typer.Option(help="Port of the bucket, on this machine only; 0: any")] = 5555,
) -> None:
    """Start it all; Ctrl-C ends it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=s3_port)
    server.start()
    host, bound = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{bound}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ |= {
        "ASR_SOURCE_URL": f"s3://{BUCKET}",
        "ASR_QUEUE_URL": wire(),
        "ASR_STORE_URL": str(folder.absolute()),
        "ASR_BATCH_WAIT_S": "5",  # somebody is waiting to see what happens
    }
    s3 = boto3.client("s3")
    for sample in sorted(SAMPLES.iterdir()) if samples else ():
        s3.upload_file(str(sample), BUCKET, f"samples/{sample.name}")
    typer.echo(f"bucket s3://{BUCKET}; in another shell, to work with it:", err=True)
    for name in SHOWN:
        typer.echo(f"export {name}={os.environ[name]}", err=True)
    try:
        asr = str(Path(sys.executable).with_name("asr"))
        raise typer.Exit(subprocess.run([asr, "dev", "--port", str(port)], check=False).returncode)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        server.stop()


def wire() -> str:
    """Make the bucket and the queue that hears of its changes; the queue's URL."""
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    s3.create_bucket(Bucket=BUCKET)
    url: str = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    told = {"QueueArn": about["QueueArn"], "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [told]}
    )
    return url


if __name__ == "__main__":
    typer.run(main)
