"""make dev-s3: a bucket that tells of its changes, a queue, a daemon."""

import re
import signal
import sys
from pathlib import Path

import boto3
import pytest

from tests.asr_assets.daemon import Dev, spoken, wait_for
from tests.conftest import ROOT, SAMPLES, Platform

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("dev")]

SCRIPT = ROOT / "deploy" / "local" / "dev_s3.py"
CREDENTIALS = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
KEY = 'told/by "the" bucket, it\'s 100%.mp4'


def test_what_the_bucket_tells_comes_and_goes(tmp_path: Path) -> None:
    """No listing: the video is noticed by its event, its words are there, and gone when it is deleted."""
    platform = Platform(tmp_path)
    state = platform.root / "data"
    dev = Dev(platform, [sys.executable, str(SCRIPT), str(state), "--no-samples", "--s3-port", "0"])
    try:
        wait_for(dev.up, 90)
        dev.stop("new_videos")
        (endpoint,) = re.findall(r"export AWS_ENDPOINT_URL=(\S+)", dev.said())
        s3 = boto3.client("s3", endpoint_url=endpoint, **CREDENTIALS)
        s3.upload_file(str(SAMPLES / "school.mp4"), "videos", KEY)
        wait_for(lambda: spoken(platform, KEY, "pocketsphinx"), 180)
        s3.delete_object(Bucket="videos", Key=KEY)
        wait_for(lambda: platform.sql("SELECT count(*) FROM videos_current") == ["0"], 180)
        assert platform.sql("SELECT count(*) > 0 FROM words") == ["True"]
    finally:
        dev.end(signal.SIGTERM)
