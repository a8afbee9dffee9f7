"""A bucket of any size in a process of its own: moto's server, filled without a request for each object."""

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

BUCKET, QUEUE = "bench", "bench-events"
ACCOUNT, REGION = "123456789012", "us-east-1"
SAME_SECOND = 1200
"""Objects that share one LastModified second."""
IN_THE_QUEUE = 100
RECORDS = 10
"""In one message, as S3 may send them: the queue of moto costs more than all that reads it."""


class Plan(NamedTuple):
    """What happens in the bucket; ``named`` are there from the beginning, and hold their keys."""

    objects: int = 0
    named: tuple[str, ...] = ()
    overwritten: float = 0.01
    deleted: float = 0.01
    doubled: float = 0.1
    lost: float = 0.02


def _put(backend: Any, number: int, body: bytes, when: datetime) -> tuple[str, str, str]:
    """An upload, and what an event says about it: key, name, ETag."""
    key = f"in/{number:07d}.mp4"
    found = backend.put_object(BUCKET, key, body)
    found.last_modified = when
    return key, "ObjectCreated:Put", found.etag.strip('"')


def _serve(pipe: Connection, plan: Plan, seed: int) -> None:
    import boto3
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer
    from moto.sqs.models import SQSBackend, sqs_backends

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # It counts all messages 30 times for each ten that are received, to find none that is too old.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": REGION}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket=BUCKET)
    queue_url = boto3.client("sqs", endpoint_url=url, **keys).create_queue(QueueName=QUEUE)["QueueUrl"]
    s3, sqs = s3_backends[ACCOUNT]["aws"], sqs_backends[ACCOUNT][REGION]
    rng = random.Random(seed)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    events: list[dict[str, Any]] = []

    def tell(key: str, name: str, etag: str | None = None) -> None:
        changed = {"key": key} | ({"eTag": etag} if etag else {})
        about = {"s3": {"bucket": {"name": BUCKET}, "object": changed}, "eventName": name}
        if rng.random() >= plan.lost:
            copies = 2 if rng.random() < plan.doubled else 1
            events.extend([about] * copies)

    for key in plan.named:  # not by a request: over HTTP moto takes no newline in a key
        s3.put_object(BUCKET, key, key.encode())
    for number in range(plan.objects):
        when = began + timedelta(seconds=number // SAME_SECOND)
        tell(*_put(s3, number, b"first", when))
    chosen = rng.sample(range(plan.objects), round(plan.objects * (plan.overwritten + plan.deleted)))
    half = round(plan.objects * plan.overwritten)
    pipe.send((url, queue_url))
    pipe.recv()  # the first half is noticed by listing meanwhile
    for number in chosen[:half]:
        tell(*_put(s3, number, b"second", began))
    for number in chosen[half:]:
        key = f"in/{number:07d}.mp4"
        s3.delete_object(BUCKET, key)
        tell(key, "ObjectRemoved:Delete")
    rng.shuffle(events)
    pipe.send({key: found.etag.strip('"') for key, found in s3.head_bucket(BUCKET).keys.items()})
    messages = [json.dumps({"Records": events[n : n + RECORDS]}) for n in range(0, len(events), RECORDS)]
    # A queue of moto's is slow when it is long.
    for first in range(0, len(messages), IN_THE_QUEUE):
        pipe.recv()
        for message in messages[first : first + IN_THE_QUEUE]:
            sqs.send_message(QUEUE, message)
        pipe.send(len(messages) - first)
    pipe.recv()
    pipe.send(0)
    pipe.recv()  # until it is ended


@contextmanager
def bucket(plan: Plan, seed: int) -> Iterator[Connection]:
    """A pipe to the server, which answers whatever is sent with the next of these: its URL and the queue's
    (without being asked), the final truth, and again and again, when there are more events in the queue, how
    many there were.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, plan, seed), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join(10)
