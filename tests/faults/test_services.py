"""S3 and SQS that are busy, slow, break off, lose an answer or know the credentials no more."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from dagster import (
    DagsterInstance,
    build_sensor_context,
)

from resources import layout
from resources.event_queue import EventQueue
from resources.models import SpeechModels
from resources.retries import TRIES
from resources.source import Source
from resources.store import Store
from sensors.patience import patiently
from speech.errors import StoreError
from tests.faults.bench import ALWAYS, SILENT, SPOKEN, Bench, Bucket
from tests.faults.proxy import Fault, Trouble, proxy

FAULTS = [Fault.BUSY, Fault.EXPIRED, Fault.RESET, Fault.LOST, Fault.SLOW, Fault.SHORT]

SOURCE_WORK: dict[str, Callable[[Source], object]] = {
    "list": lambda source: [video.key for video in source.look()],
    "find": lambda source: source.find("in/a.mp4"),
    "read": lambda source: _read_through(source),
}

TOLD = {Fault.EXPIRED}
"""What boto does not ask again for: it is said, and whoever waits asks later."""


def _read_through(source: Source) -> bytes:
    video = next(iter(source.look()))
    with source.open(video) as data:
        return data.read_at(0, data.size)


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", SOURCE_WORK)
def test_a_source_that_fails_once_answers_in_the_end(
    work: str, fault: Fault, videos: Bucket, s3_server: str, hurried: None
) -> None:
    videos.put("in/a.mp4", bytes(range(256)) * 100)
    method = {"list": "GET", "find": "HEAD", "read": "GET"}[work]
    trouble = Trouble(fault, method, "prefix" if work == "list" else "a.mp4")
    answers: list[object] = []

    def ask() -> str:
        answers.append(SOURCE_WORK[work](source))
        return "answered"

    with proxy(s3_server) as undisturbed:
        expected = SOURCE_WORK[work](videos.source(undisturbed))
    with proxy(s3_server, trouble) as through:
        source = videos.source(through)
        context = build_sensor_context()
        first = patiently(context, ask)
        if fault in TOLD and not answers:
            assert "ExpiredToken" in str(first.skip_message)
            assert "no answer 1 times" in str(patiently(context, ask).skip_message)
            patiently(context, ask, datetime.now(UTC) + timedelta(seconds=16))
    assert (answers, trouble.struck) == ([expected], 1)


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_queue_that_fails_once_loses_no_message(
    fault: Fault, bucket: str, s3_server: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.event_queue.HIDDEN_S", 1)
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    with proxy(s3_server, Trouble(fault, "POST")) as through:
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        queue = EventQueue(url=url)
        received: list[str] = []

        def take() -> str:
            messages = queue.receive()
            queue.delete(messages)
            received.extend(message.body for message in messages)
            return "taken"

        context = build_sensor_context()
        for tick in range(10):
            patiently(context, take, datetime.now(UTC) + timedelta(minutes=tick))
            if received:
                break
            time.sleep(0.3)
        assert received == ["hello"]
        through.troubles.append(Trouble(fault, "POST"))
        patiently(context, take)
        time.sleep(1.1)
        assert queue.receive() == []


def _deleted(store: Store) -> bytes | None:
    store.delete("there")
    return store.get("there")


def _fetched(store: Store, folder: Path) -> bytes:
    return store.fetch("there", folder / "copy").read_bytes()


STORE_WORK: dict[str, Callable[[Store, Path], object]] = {
    "put": lambda store, _: bool(store.put("new", b"x")) and store.get("new"),
    "create": lambda store, _: (store.create("new", b"x"), store.get("new")),
    "get": lambda store, _: store.get("there"),
    "head": lambda store, _: store.head("there"),
    "list": lambda store, _: list(store.list("folder")),
    "delete": lambda store, _: _deleted(store),
    "fetch": _fetched,
    "open": lambda store, _: (file := store.open("there")) and file.read(),
}


@pytest.mark.case(31)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", STORE_WORK)
def test_a_store_that_fails_once_does_it_in_the_end(
    work: str,
    fault: Fault,
    bucket: str,
    s3_server: str,
    hurried: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = []
    for number, troubles in enumerate(([], [Trouble(fault), Trouble(fault, "GET", "there", {1})])):
        with proxy(s3_server) as through:
            monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
            store = Store(url=f"s3://{bucket}/{number}")
            store.put("there", bytes(range(256)) * 100)
            store.put("folder/a", b"a")
            store.put("folder/b", b"b")
            through.troubles += troubles
            expected.append(STORE_WORK[work](store, tmp_path))
    assert expected[0] == expected[1]
    assert troubles[0].struck == 1


@pytest.mark.case(31)
def test_a_store_that_never_answers_is_told_in_a_sentence(
    bucket: str, s3_server: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(s3_server, Trouble(Fault.EXPIRED, which=ALWAYS)) as through:
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        with pytest.raises(StoreError, match=r"ExpiredToken.*; check ASR_STORE_URL"):
            Store(url=f"s3://{bucket}").put("a", b"x")
        assert len(through.asked) == 4


@pytest.mark.case(27, 31)
@pytest.mark.long
@pytest.mark.parametrize("every", [3, 7])
def test_a_run_of_which_every_so_manieth_request_fails_publishes_the_same(
    every: int,
    videos: Bucket,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    hurried: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    videos.put("in/talk.txt", b"The picture starts first")
    cycle = every * len(FAULTS)
    troubles = [
        Trouble(fault, which=range(every * turn - 1, 10**9, cycle)) for turn, fault in enumerate(FAULTS, 1)
    ]
    published = []
    for name, disturbed in (("undisturbed", []), ("disturbed", troubles)):
        with proxy(s3_server) as through:
            monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
            store = Store(url=f"s3://{videos.name}/{name}")
            bench = Bench(videos.source(through), store, models, instance)
            (batch,) = bench.take_in()
            through.troubles += disturbed
            done = bench.process(batch)
            for _ in range(TRIES - 1 if disturbed else 0):  # as the sensor new_batches asks for
                done = done if done.success else bench.process(batch)
            assert done.success
            through.troubles.clear()
            assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "ok"}
            assert list(store.list(layout.UNFINISHED)) == []
            published.append(bench.published())
    assert published[0] == published[1]
    assert all(trouble.struck for trouble in troubles[: 2 if every == 7 else None])
