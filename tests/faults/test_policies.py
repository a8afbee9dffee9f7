"""Policies: what the platform really asks of AWS, and nothing besides."""

import json
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from tests.conftest import FAST_MODEL, SAMPLES, Platform
from tests.faults.gate import ADDED, DEPLOY, ROLES, Gate, allows, gated, nobody_may_more, set_up, statements


@pytest.fixture
def gate() -> Iterator[tuple[Gate, str]]:
    with gated() as made:
        yield made


AS_A_ROLE = """
from asr_assets.running import *
from resources.event_queue import EventQueue
from sensors.events import take_events
from sensors.listing import Position, look_on
from speech.models import replace
settings = Settings.from_env()
runner, queue = Runner(settings), EventQueue(url=settings.queue_url)
source, store, log = runner.source, runner.store, IngestLog(runner.store)
limits = BatchLimits.of(settings).at_once
batches = ("00000001", "00000002")
audio, words = [raw_videos.key, extracted_audio.key], [transcripts_key(m.name) for m in runner.models.enabled]
"""

INGEST = """
queue.describe()
queue.postpone(queue.receive(), 0)
take_events(queue, source, store, log, limits)
store.put(layout.LISTING, Position(source=source.name, after="").model_dump_json().encode())
look_on(source, store, log, limits)
runner.ingest()
"""

EXPLORE = """
import sys
from pathlib import Path
import requests
from explorer import asking
from explorer.media import audio_response, video_response
from resources import snapshot
from resources.comparisons import Pair
from resources.verdicts import Verdict, judge, verdicts_of
with snapshot.read(store, Path(sys.argv[1])) as published:
    (heard,) = published.execute("SELECT video_id FROM videos_current WHERE status = 'ok'").fetchone()
    video = asking.as_video(asking.video(published, heard))
for answer in (video_response(source, video, None), audio_response(store, video.video_id, None)):
    requests.get(answer.headers["location"], timeout=30).raise_for_status()
pair = Pair(*sorted(model.name for model in runner.models.enabled))
heard_there = dict(zip(pair, "ab"))
judge(store, batches[0], Verdict(video_id=heard, start_s=1, heard=heard_there, said="a", who="x"))
assert verdicts_of(store, pair, batches[0], video.video_id)
assert source.backend.find("in/nothing.mp4") is None
"""


@pytest.mark.long
@pytest.mark.xdist_group("postgres")
def test_each_role_may_do_what_it_does_and_nothing_besides(
    platform: Platform, gate: tuple[Gate, str], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the platform's work, by four roles and an operator, each stopped where its policies end."""
    gatekeeper, endpoint = gate
    aws = set_up(endpoint, monkeypatch)
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("videos-bucket", "words-bucket"):
        s3.create_bucket(Bucket=bucket)
    queue = sqs.create_queue(QueueName="video-events")["QueueUrl"]

    def upload(name: str) -> None:
        s3.upload_file(str(SAMPLES / name), "videos-bucket", f"in/{name}")

    second = (
        FAST_MODEL.replace("champion = true\n", "").replace("_fast", "_second").replace("ds = 2", "ds = 3")
    )
    (platform.root / "models.toml").write_text(FAST_MODEL + second)
    platform.env |= aws | {
        "ASR_SOURCE_URL": "s3://videos-bucket/in",
        "ASR_QUEUE_URL": queue,
        "ASR_POSTGRES_URL": postgres,
        "ASR_STORE_URL": "s3://words-bucket/platform",
        "ASR_WAREHOUSE": str(platform.root / "warehouse.duckdb"),
        "DAGSTER_HOME": str(platform.root / "dagster"),
        "XDG_CACHE_HOME": str(platform.root / "cache"),
    }

    def work(role: str, code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", AS_A_ROLE + code, str(platform.root / "cache")],
            env=platform.environment | {"AWS_ACCESS_KEY_ID": role},
            cwd=platform.root,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, gatekeeper.refused) == (0, []), done.stderr

    def command(role: str, *arguments: str) -> None:
        platform.env["AWS_ACCESS_KEY_ID"] = role
        platform.must(*arguments)
        assert gatekeeper.refused == []

    for name in ("delayed_audio.mp4", "silent.mp4"):
        upload(name)
    event = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "videos-bucket"}}}
    event["s3"]["object"] = {"key": "in/delayed_audio.mp4"}  # type: ignore[index]
    for body in (json.dumps({"Records": [event]}), "nonsense"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    work("ingest", INGEST)
    s3.delete_object(Bucket="videos-bucket", Key="in/silent.mp4")  # noticed, and gone before it was read
    for _ in range(2):  # the second time it is there again, and what was to be tried again is forgotten
        work("ingest", "for batch in batches: runner.process(batch, audio)")
        work("transcripts", "for batch in batches: runner.process(batch, words)")
        work("loader", "runner.load(); runner.compare(); runner.copy()")
        upload("silent.mp4")
    work("explorer", EXPLORE)
    work("loader", "runner.compare()")  # takes the verdict in
    newest = json.dumps({"number": 7, "warehouse": "another", "load": 1}).encode()
    s3.put_object(Bucket="words-bucket", Key="platform/snapshots/latest.json", Body=newest)
    work("loader", "runner.load()")
    for arguments in (["sql", "from words_current limit 1"], ["search", "picture"], ["models"]):
        command("analyst", *arguments)
    for arguments in (["doctor"], ["verify"], ["erase", "--yes", "in/delayed_audio.mp4"]):
        command("operator", *arguments)

    nobody_may_more(gatekeeper, "ingest", "transcripts", "loader", "analyst", "explorer", "operator")


@pytest.mark.parametrize(
    ("policy", "action", "resource"),
    [
        ("transcripts", "s3:GetObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("transcripts", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/champions/00000001.json"),
        ("loader", "s3:GetObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("loader", "s3:GetObject", "arn:aws:s3:::words-bucket/platform/audio/a.flac"),
        ("loader", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/transcripts/model=m/batch=1.parquet"),
        ("ingest", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/transcripts/model=m/batch=1.parquet"),
        ("ingest", "s3:PutObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("ingest", "s3:DeleteObject", "arn:aws:s3:::words-bucket/platform/ingest/00000001.json"),
        ("analyst", "s3:GetObject", "arn:aws:s3:::words-bucket/platform/audio/a.flac"),
        ("explorer", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/snapshots/latest.json"),
        ("analyst", "s3:PutObject", "arn:aws:s3:::words-bucket/platform/snapshots/latest.json"),
        ("operator", "s3:DeleteObject", "arn:aws:s3:::videos-bucket/in/a.mp4"),
        ("mediaconvert", "iam:PassRole", "arn:aws:iam::111122223333:role/admin"),
        ("sagemaker", "s3:PutObject", "arn:aws:s3:::answers-bucket/sagemaker/out/a"),
        ("logs", "s3:GetObject", "arn:aws:s3:::words-bucket/dagster/storage/a.err"),
        ("webserver", "s3:GetObject", "arn:aws:s3:::words-bucket/platform/snapshots/latest.json"),
    ],
)
def test_a_role_may_not(policy: str, action: str, resource: str) -> None:
    assert not any(allows(each, (action, resource)) for each in ROLES[policy])


def test_policies_name_no_more_than_they_must() -> None:
    assert {file.stem for file in DEPLOY.glob("*.json")} == ROLES.keys()
    for policy in ROLES:
        actions = {action for said in statements(policy) for action in said["Action"]}
        assert not any("*" in action for action in actions)
        encrypts = {"s3:PutObject"} & actions and policy not in ADDED
        decrypts = {"s3:GetObject"} & actions and policy not in ADDED
        assert ("kms:GenerateDataKey" in actions, "kms:Decrypt" in actions) == (
            bool(encrypts),
            bool(decrypts),
        )
