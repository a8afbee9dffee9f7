"""What a queue says, and what stands beside a video."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resources.aws import S3
from resources.event_queue import Message
from resources.published import ExtractedVideo, Status
from resources.sidecars import MAX_BYTES, Sidecar, read_sidecars, spoken_text, timed_reference
from resources.source import Source
from resources.store import Store
from sensors.events import BadEvent, Changed, bury, changed_objects
from tests.faults.fuzzing import any_json, as_written, bounded, spliced
from tests.sensors.test_events import HOSTILE, from_event_bridge, in_sns, s3_event

EVENTS = [
    s3_event("b", HOSTILE),
    s3_event("b", "a.mp4", "b.mp4", name="ObjectRemoved:Delete"),
    in_sns(s3_event("b", "a.mp4")),
    from_event_bridge("b", "a.mp4"),
    in_sns(from_event_bridge("b", HOSTILE)),
    {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"},
]


def told(body: str, store: Store) -> list[Changed]:
    """The objects of a message, whose letter can be kept where it is bad."""
    try:
        changed = changed_objects(body)
    except BadEvent as error:
        bury(store, Message("receipt", body), str(error))
        changed = error.changed
    for bucket, key, version in changed:
        assert f"{bucket}{key}".encode(errors="surrogatepass")
        assert key.encode()
        assert version is None or isinstance(version, str)
    return changed


@bounded()
@given(body=as_written, data=st.data())
def test_a_message_of_any_text_is_read_or_put_aside(
    body: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(url=f"file://{tmp_path_factory.getbasetemp() / 'letters'}")
    told(body, store)
    event = json.dumps(data.draw(st.sampled_from(EVENTS)))
    for _ in range(3):
        event = spliced(event, data)
        told(event, store)


@bounded()
@given(
    junk=st.lists(as_written, max_size=3),
    place=st.sampled_from(["", '{"s3": %s}', '{"s3": {"bucket": %s, "object": {"key": "k"}}}'])
    | st.sampled_from(
        [
            '{"s3": {"bucket": {"name": "b"}, "object": %s}}',
            '{"s3": {"bucket": {"name": "b"}, "object": {"key": %s}}}',
            '{"eventName": %s, "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}',
        ]
    ),
)
def test_a_record_of_any_json_loses_none_that_stands_beside_it(
    junk: list[str], place: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(url=f"file://{tmp_path_factory.getbasetemp() / 'letters'}")
    good = [json.dumps(record) for record in s3_event("b", "a.mp4", HOSTILE)["Records"]]
    bad = [place % text if place else text for text in junk if is_json(text)]
    found = told(f'{{"Records": [{", ".join([good[0], *bad, good[1]])}]}}', store)
    assert {("b", "a.mp4", None), ("b", HOSTILE, None)} <= set(found)


def is_json(text: str) -> bool:
    """Also as a part of a message, where it lies a bit deeper."""
    try:
        json.loads(text)
        json.loads(f"[[[[[[[[{text}]]]]]]]]")
    except (ValueError, RecursionError):
        return False
    return True


SIDECARS = {
    ".json": ['{"language": "en", "hints": ["Ann", "Bob"], "metadata": {"tier": 1, "deep": [{"a": 0.5}]}}'],
    ".ctm": ["talk 1 0.50 0.25 good\ntalk 1 0.75 0.50 morning 0.98\n;; nothing\n"],
    ".srt": [
        "1\n00:00:01,000 --> 00:00:02,000\n<i>Good</i>\nmorning\n\n2\n00:00:02,000 --> 00:00:03,000\n{\\an8}"
    ],
    ".vtt": ["WEBVTT\n\nNOTE nothing\n\n00:01.000 --> 00:02.000 line:0\n<v A>Hello &amp; there\n"],
    ".txt": ["\ufeffgood morning\r\n\r\neverybody\n"],
}


class Beside:
    """A video in a folder, and the files that stand beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "talk.mp4").touch()
        self.source = Source(url=f"file://{folder}", s3=S3())
        found = self.source.find("talk.mp4")
        assert found
        self.video = found

    def read(self, suffix: str, data: bytes) -> Sidecar:
        """What is found there, which has to fit into the store and into DuckDB."""
        path = self.folder / f"talk{suffix}"
        path.write_bytes(data)
        found = read_sidecars(self.source, self.video)
        path.unlink()
        stored = ExtractedVideo(video=self.video, status=Status.OK, sidecar=found).model_dump_json()
        assert ExtractedVideo.model_validate_json(stored).sidecar == found
        starts, ends = found.reference_starts_s or (), found.reference_ends_s or ()
        if starts:
            assert found.reference
            assert len(starts) == len(ends) == len(found.reference.split())
        assert all(0 <= start <= end < 2e9 + 1 for start, end in zip(starts, ends, strict=True))
        assert list(starts) == sorted(starts)
        if found.metadata:
            assert duckdb.execute("SELECT json_valid(?)", [found.metadata]).fetchall() == [(True,)]
            assert found.said
        return found


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Beside:
    return Beside(tmp_path_factory.mktemp("beside"))


@bounded()
@given(suffix=st.sampled_from(sorted(SIDECARS)), text=as_written, raw=st.binary(max_size=200), data=st.data())
def test_a_sidecar_of_any_content_is_read_or_a_problem(
    beside: Beside, suffix: str, text: str, raw: bytes, data: st.DataObject
) -> None:
    beside.read(suffix, text.encode(errors="surrogatepass"))
    beside.read(suffix, raw)
    real = data.draw(st.sampled_from(SIDECARS[suffix]))
    for _ in range(3):
        real = spliced(real, data)
        beside.read(suffix, real.encode(errors="surrogatepass"))


@bounded()
@given(said=any_json)
@example(said=float("nan"))
@example(said=float("-inf"))
@example(said=10**400)
@example(said="\ud800")
def test_metadata_is_json_for_everybody_or_refused(beside: Beside, said: Any) -> None:
    beside.read(".json", json.dumps({"metadata": {"said": said}}).encode())


@bounded()
@given(start=st.floats() | as_written, length=st.floats() | as_written)
def test_times_are_numbers_within_bounds_or_refused(start: object, length: object) -> None:
    with suppress(ValueError):
        if said := timed_reference(f"talk 1 {start} {length} word\n"):
            assert all(0 <= time < 2e9 for time in said.starts_s + said.ends_s)


@pytest.mark.parametrize("piece", ["<", "{\\", "\n \n", "-->", "\n", " ", "<a", "--", "\r", "1\n", "\x0b"])
def test_the_largest_sidecar_is_read_in_no_time(piece: str) -> None:
    """No pattern takes the square of a text's length."""
    text = piece * (MAX_BYTES // len(piece))
    thread = threading.Thread(target=spoken_text, args=(text,), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
