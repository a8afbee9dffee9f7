"""Notifications of a bucket, over a real queue: each is looked up, and recorded before it is deleted."""

import json
import sys
import time
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest

from resources import layout
from resources.aws import S3
from resources.event_queue import EventQueue, Message
from resources.ingest_log import IngestLog
from resources.source import Source
from resources.store import Store
from sensors.batches import BatchLimits
from sensors.events import BadEvent, DeadLetter, bury, changed_objects, take_events
from sensors.reconciling import reconcile
from speech.errors import SourceUnavailable

HOSTILE = 'in/it\'s "ö" 100%+|,\u202e🎬/../a b.mp4'


def s3_event(bucket: str, *keys: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": name,
                "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
            }
            for key in keys
        ]
    }


def in_sns(event: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(event)}


def from_event_bridge(bucket: str, key: str) -> dict[str, Any]:
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": bucket}, "object": {"key": key}},
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (s3_event("b", HOSTILE), [HOSTILE]),
        (s3_event("b", "a.mp4", "b.mp4"), ["a.mp4", "b.mp4"]),
        (in_sns(s3_event("b", HOSTILE)), [HOSTILE]),
        (from_event_bridge("b", HOSTILE), [HOSTILE]),
        (in_sns(from_event_bridge("b", HOSTILE)), [HOSTILE]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
        (in_sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}), []),
        ({"Records": []}, []),
    ],
)
def test_every_shape_of_event_gives_its_keys(event: dict[str, Any], expected: list[str]) -> None:
    assert [found[:2] for found in changed_objects(json.dumps(event))] == [("b", key) for key in expected]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "is not JSON"),
        ("hello", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "no event of S3"),
        ('{"Records": 3}', "no event of S3"),
        ('{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {}}}]}', "no event of S3"),
        ('{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": 3}}}]}', "are no text"),
        ('{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]}', "UnicodeDecodeError"),
        (json.dumps(from_event_bridge("b", "\ud800")), "UnicodeEncodeError"),
        (json.dumps(in_sns({"Records": None})), "no event of S3"),
    ],
)
def test_what_is_no_event_is_said_to_be_none(body: str, reason: str) -> None:
    with pytest.raises(BadEvent, match=reason):
        changed_objects(body)


class Inbox:
    """A bucket, its queue, and the log that events end in."""

    def __init__(self, bucket: str, store: Store) -> None:
        self.bucket, self.store = bucket, store
        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.queue = EventQueue(url=self.sqs.create_queue(QueueName=bucket)["QueueUrl"])
        self.source = Source(url=f"s3://{bucket}/in", s3=S3())
        self.log, self.limits = IngestLog(store), BatchLimits().at_once

    def put(self, key: str, data: bytes = b"x") -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def send(self, event: dict[str, Any] | str) -> None:
        body = event if isinstance(event, str) else json.dumps(event)
        self.sqs.send_message(QueueUrl=self.queue.url, MessageBody=body)

    def take(self) -> str:
        return take_events(self.queue, self.source, self.store, self.log, self.limits)

    @property
    def waiting(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue.url, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))

    def current(self) -> list[str]:
        keys = {v["key"] for table in self.log.tables(0) for v in table.to_pylist()}
        return sorted(key for key in keys if self.log.current(self.source.name, key))


@pytest.fixture
def inbox(bucket: str, store: Store) -> Inbox:
    return Inbox(bucket, store)


def test_events_become_one_batch_and_are_deleted(inbox: Inbox) -> None:
    keys = [f"in/{n}.mp4" for n in range(14)]
    for key in keys:
        inbox.put(key)
        inbox.send(s3_event(inbox.bucket, key))
    inbox.send({"Event": "s3:TestEvent"})
    assert inbox.take() == "15 messages"
    assert [video.key for video in inbox.log.batch("00000001").videos] == sorted(keys)
    assert inbox.waiting == 0


def test_an_event_about_what_is_known_asks_the_bucket_nothing(inbox: Inbox) -> None:
    inbox.put("in/a.mp4", b"first")
    etag = inbox.s3.head_object(Bucket=inbox.bucket, Key="in/a.mp4")["ETag"].strip('"')
    event = s3_event(inbox.bucket, "in/a.mp4")
    event["Records"][0]["s3"]["object"]["eTag"] = etag
    inbox.send(event)
    inbox.take()
    inbox.s3.delete_object(Bucket=inbox.bucket, Key="in/a.mp4")
    inbox.send(event)  # once more, too late
    inbox.take()
    assert inbox.current() == ["in/a.mp4"]  # nobody has looked
    event["Records"][0]["eventName"] = "ObjectRemoved:Delete"  # some give the ETag with it
    inbox.send(event)
    inbox.take()
    assert inbox.current() == []


@pytest.mark.case(24)
def test_duplicates_disorder_and_strangers_change_nothing(inbox: Inbox) -> None:
    inbox.put("in/a.mp4", b"new")
    for name in ("ObjectRemoved:Delete", "ObjectCreated:Put", "ObjectCreated:Put"):
        inbox.send(s3_event(inbox.bucket, "in/a.mp4", name=name))
    inbox.put("in/notes.txt")
    inbox.put("elsewhere/b.mp4")
    inbox.send(s3_event(inbox.bucket, "in/notes.txt", "in/never.mp4"))
    inbox.send(s3_event(inbox.bucket, "elsewhere/b.mp4"))
    inbox.send(s3_event("another-bucket", "in/a.mp4"))
    inbox.take()
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    inbox.take()
    assert inbox.current() == ["in/a.mp4"]
    assert inbox.log.batches == ["00000001"]
    assert inbox.waiting == 0


@pytest.mark.case(24)
def test_an_event_that_never_came_is_made_good_by_a_reconciliation(inbox: Inbox) -> None:
    inbox.put("in/a.mp4")
    inbox.put("in/lost.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    inbox.take()
    assert inbox.current() == ["in/a.mp4"]
    found = reconcile(inbox.source, inbox.log, inbox.limits)
    assert (found.listed, found.lost, found.doubled) == (2, 1, 0)
    assert inbox.current() == ["in/a.mp4", "in/lost.mp4"]
    inbox.send(s3_event(inbox.bucket, "in/lost.mp4"))  # late, after all
    inbox.take()
    assert inbox.log.batches == ["00000001", "00000002"]


def test_deleted_and_uploaded_again(inbox: Inbox) -> None:
    inbox.put("in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    inbox.take()
    inbox.s3.delete_object(Bucket=inbox.bucket, Key="in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4", name="ObjectRemoved:Delete"))
    inbox.take()
    assert inbox.current() == []
    inbox.put("in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    inbox.take()
    assert inbox.current() == ["in/a.mp4"]
    assert inbox.log.batches == ["00000001"]  # known bytes are no new work


def test_poison_is_put_aside_with_its_reason(inbox: Inbox) -> None:
    inbox.put("in/a.mp4")
    inbox.send("<xml/>")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    assert inbox.take().startswith("2 messages, 1 unreadable")
    (letter,) = inbox.store.list(layout.DEAD_LETTERS)
    read = DeadLetter.read(inbox.store, letter.key)
    assert read
    assert (read.body, read.reason[:11]) == ("<xml/>", "is not JSON")
    assert inbox.current() == ["in/a.mp4"]
    assert inbox.waiting == 0


def test_half_a_character_can_be_put_aside_too(inbox: Inbox) -> None:
    bury(inbox.store, Message("receipt", "half a \ud83c"), "is not JSON")
    (letter,) = inbox.store.list(layout.DEAD_LETTERS)
    read = DeadLetter.read(inbox.store, letter.key)
    assert read
    assert read.body == "half a \\ud83c"


def test_a_bucket_that_is_gone_leaves_the_messages_where_they_are(inbox: Inbox) -> None:
    inbox.put("in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    inbox.take()
    inbox.s3.delete_object(Bucket=inbox.bucket, Key="in/a.mp4")
    inbox.s3.delete_bucket(Bucket=inbox.bucket)
    inbox.send(s3_event(inbox.bucket, "in/a.mp4", name="ObjectRemoved:Delete"))
    with pytest.raises(SourceUnavailable, match="does not say whether"):
        inbox.take()
    assert inbox.current() == ["in/a.mp4"]
    assert inbox.waiting == 1


def test_a_trickle_waits_for_more_and_its_messages_come_back(inbox: Inbox) -> None:
    inbox.limits = BatchLimits(videos=2, wait_s=30)
    inbox.put("in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    assert inbox.take() == "1 messages, 1 wait"
    assert (inbox.current(), inbox.waiting) == ([], 1)
    assert inbox.take() == "0 messages"  # hidden, until it has waited
    inbox.limits = BatchLimits(videos=2, wait_s=4)
    inbox.put("in/b.mp4")
    inbox.send(s3_event(inbox.bucket, "in/b.mp4"))
    assert inbox.take() == "1 messages, 1 wait"
    time.sleep(5)
    assert inbox.take() == "1 messages"
    assert (inbox.current(), inbox.waiting) == (["in/b.mp4"], 1)


@pytest.mark.case(24)
def test_killed_between_record_and_delete_the_messages_come_back_and_change_nothing(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.put("in/a.mp4")
    inbox.send(s3_event(inbox.bucket, "in/a.mp4"))
    monkeypatch.setattr("resources.event_queue.HIDDEN_S", 1)
    with monkeypatch.context() as killed:
        killed.setattr(EventQueue, "delete", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            inbox.take()
    assert (inbox.current(), inbox.waiting) == (["in/a.mp4"], 1)
    time.sleep(1.5)
    inbox.take()
    assert (inbox.log.batches, inbox.waiting) == (["00000001"], 0)


def test_one_bad_record_does_not_lose_the_good_ones_beside_it(inbox: Inbox) -> None:
    inbox.put("in/a.mp4")
    event = s3_event(inbox.bucket, "in/a.mp4")
    event["Records"].insert(0, {"s3": 7})
    inbox.send(event)
    assert inbox.take().startswith("1 messages, 1 unreadable")
    assert (inbox.current(), inbox.waiting) == (["in/a.mp4"], 0)


def test_what_somebody_else_has_seen_since_stays(inbox: Inbox) -> None:
    """A look-up that is older than what another sensor has recorded meanwhile does not overrule it."""
    inbox.put("in/a.mp4", b"old")
    old = inbox.source.find("in/a.mp4")
    assert old
    as_of = inbox.log.tail
    inbox.put("in/a.mp4", b"new")
    new = inbox.source.find("in/a.mp4")
    assert new
    inbox.log.append([new])
    assert inbox.log.append([old], as_of=as_of) is None
    inbox.log.append([], [new])
    assert inbox.log.append([new], as_of=as_of) is None
    assert inbox.current() == []
    assert inbox.log.append([new], as_of=inbox.log.tail)
    assert inbox.current() == ["in/a.mp4"]
