"""A bucket that is missing, forbidden, slow, busy or breaks off: said in a sentence, asked later, and
nothing is taken for deleted."""

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from dagster import SkipReason, build_sensor_context
from dagster._utils.error import serializable_error_info_from_exc_info

from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.source import Source
from resources.store import Store
from sensors.batches import BatchLimits
from sensors.listing import look_on
from sensors.patience import LONGEST_WAIT, patiently
from sensors.reconciling import reconcile
from speech.errors import SourceUnavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERROR = "<Error><Code>{code}</Code><Message>{code}, says the bucket</Message></Error>"
FIRST_PAGE = """<ListBucketResult><IsTruncated>true</IsTruncated>
<NextContinuationToken>more</NextContinuationToken><Contents><Key>a.mp4</Key><Size>1</Size>
<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"9dd4e461268c8034f5c8564e155c67a6"</ETag>
</Contents></ListBucketResult>"""

KEYS = ("a.mp4", "jane-doe.mp4")
MANNERS = {
    "missing": [(404, "NoSuchBucket")],
    "forbidden": [(403, "AccessDenied")],
    "expired": [(400, "ExpiredToken")],
    "busy": [(503, "SlowDown")],
    "broken": [(500, "InternalError")],
    "slow": [(0, "")],
    "busy on its second page": [(200, FIRST_PAGE), (503, "SlowDown")],
    "slow on its second page": [(200, FIRST_PAGE), (0, "")],
}
"""What it answers, one request after another; the last for ever. 0 is no answer at all."""


class Unwilling(ThreadingHTTPServer):
    """Speaks S3, and has its manners."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, manners: list[tuple[int, str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manners, self.asked, self.ended = manners, 0, threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Unwilling

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        status, what = self.server.manners[min(self.server.asked, len(self.server.manners) - 1)]
        self.server.asked += 1
        if status == 0:
            self.server.ended.wait(30)
            return
        body = (what if status == 200 else ERROR.format(code=what)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=list(MANNERS))
def unwilling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unwilling]:
    monkeypatch.setattr("resources.aws.ANSWER_S", 0.3)
    server = Unwilling(MANNERS[request.param])
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.case(31)
def test_nothing_is_taken_for_deleted(unwilling: Unwilling, bucket: str, store: Store) -> None:
    for key in KEYS:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x")
    willing = Source(url=f"s3://{bucket}", s3=S3())
    log = IngestLog(store)
    reconcile(willing, log, BatchLimits().at_once)
    source = Source(url=f"s3://{bucket}", s3=S3(endpoint_url=unwilling.url, max_attempts=2))
    with pytest.raises(SourceUnavailable, match="ASR_SOURCE_URL"):
        reconcile(source, log, BatchLimits().at_once)
    with pytest.raises(SourceUnavailable, match="cannot be listed") as raised:
        look_on(source, store, log, BatchLimits())
    with pytest.raises(SourceUnavailable, match="does not say") as unsure:
        list(map(source.find, KEYS))
    for error in (raised.value, unsure.value):
        # Dagster keeps what fails a tick or a step, and what caused that.
        assert error.__traceback__
        kept = str(serializable_error_info_from_exc_info((type(error), error, error.__traceback__)))
        assert not any(key in kept for key in KEYS)
    assert all(log.current(source.name, key) for key in KEYS)
    found = reconcile(willing, log, BatchLimits().at_once)
    assert (found.listed, found.lost, found.superseded, found.deleted) == (2, 0, 0, 0)


@pytest.mark.case(31)
def test_who_does_not_answer_is_asked_later_and_later() -> None:
    asked: list[datetime] = []

    def work() -> str:
        asked.append(now)
        if now < NOW + timedelta(hours=2):
            raise SourceUnavailable("s3://videos cannot be listed: SlowDown")
        return "nothing new"

    cursor = ""
    said: list[str | None] = []
    for tick in range(4 * 60 * 3):
        now = NOW + timedelta(seconds=15 * tick)
        context = build_sensor_context(cursor=cursor)
        skip = patiently(context, work, now)
        assert isinstance(skip, SkipReason)
        cursor = context.cursor or ""
        said.append(skip.skip_message)
    assert said[0] == "s3://videos cannot be listed: SlowDown; asked again after 00:00:15 UTC"
    assert said[2] == "no answer 2 times in a row; asked again after 00:00:45 UTC"
    assert said[-1] == "nothing new"
    waits = [after - before for before, after in itertools.pairwise(asked)]
    failing = waits[: waits.index(LONGEST_WAIT)]
    assert [wait.total_seconds() for wait in failing] == [15, 30, 60, 120, 240, 480]
    assert waits[-1] == timedelta(seconds=15)
