"""Whatever a queue, a file beside a video, a decoder or a video says: it is read, or refused for a reason."""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resources.aws import S3
from resources.event_queue import Message
from resources.published import ExtractedVideo, Status
from resources.sidecars import MAX_BYTES, Sidecar, read_sidecars, spoken_text, timed_reference
from resources.source import Source
from resources.store import Store
from sensors.events import BadEvent, Changed, bury, changed_objects
from speech import media
from speech.errors import AsrError, MediaError, Reason
from speech.media import AudioInfo, MediaDecoder, MediaInfo
from speech.types import SAMPLE_RATE
from tests.faults.clips import clip
from tests.sensors.test_events import HOSTILE, from_event_bridge, in_sns, s3_event

EXAMPLES = int(os.environ.get("ASR_FUZZ_EXAMPLES", "200"))
bounded = partial(
    settings,
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

any_text = st.text(st.characters(), max_size=30)  # halves of characters, too
numbers = st.one_of(
    st.integers(),
    st.sampled_from([10**30, 10**400, -(10**400), 2**31, 2**63, 2**64]),
    st.floats(),
)
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
    max_leaves=12,
)
nested = st.integers(1, 1200).map(lambda depth: "[" * depth + "]" * depth)
as_written = st.one_of(any_json.map(json.dumps), nested, st.just("1e999"), st.just("9" * 5000), any_text)


def spliced(text: str, data: st.DataObject) -> str:
    """A text in which something is cut out, or put in the place of something else."""
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return (
        text[:first]
        + data.draw(st.one_of(as_written, st.just(""), st.just(text[first:last] * 2)))
        + text[last:]
    )


# (a) What a queue says.

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


# (b) What stands beside a video.


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


# (c) What a decoder answers.

MEDIA = MediaInfo("mp4", 1.5, "h264", "aac", 1, 0, 0.25, 48000, 2)
AUDIO = AudioInfo(1.5, 0, 0)


class Bytes:
    """A source in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Like pread(2), which takes no offset beyond 63 bits."""
        assert 0 <= offset < 1 << 63
        return self.data[offset : offset + length]


class Told(MediaDecoder):
    """A decoder whose child says what it is told to, takes what it is sent, and hangs up."""

    def __init__(self, says: list[bytes]) -> None:
        super().__init__()
        self._says = says

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        self._pipe = ours
        threading.Thread(target=self._say, args=(theirs,), daemon=True).start()
        return ours

    def _say(self, pipe: Connection) -> None:
        with pipe, suppress(EOFError, OSError):
            for said in self._says:
                pipe.send_bytes(said)
            while True:
                pipe.recv_bytes()


def answered(work: Callable[[MediaDecoder], MediaInfo | AudioInfo], says: list[bytes]) -> None:
    """A result of the right types and bounds, or one of the two errors that a decoder may end with."""
    with Told([*says, b"D{}"]) as decoder:
        try:
            info = work(decoder)
        except AsrError as error:
            str(error).encode()  # as it is stored
            return
    for value in asdict(info).values():
        assert value is None or isinstance(value, (str, int, float))
        assert not isinstance(value, int) or abs(value) < 1 << 31
    json.dumps(asdict(info), allow_nan=False, ensure_ascii=False).encode()
    fields = {"media": info} if isinstance(info, MediaInfo) else {"audio": info}
    assert ExtractedVideo.model_construct(status=Status.OK, **fields).model_dump_json()


def hostile(real: MediaInfo | AudioInfo) -> st.SearchStrategy[bytes]:
    """Results of which one thing is another, or that are none."""
    changed = st.builds(
        lambda field, value: asdict(real) | {field: value},
        st.sampled_from([*asdict(real), "unknown", "spent"]),
        any_json,
    )
    problems = st.fixed_dictionaries(
        {"reason": st.sampled_from([*Reason]) | any_json, "message": any_json}, optional={"spent": any_json}
    )
    lacking = st.sampled_from(sorted(asdict(real))).map(
        lambda field: {name: value for name, value in asdict(real).items() if name != field}
    )
    in_json = st.one_of(
        st.one_of(changed, lacking, any_json).map(json.dumps), nested, st.just('{"duration_s": 1e999}')
    )
    return st.one_of(
        in_json.map(lambda text: b"D" + text.encode()),
        problems.map(lambda said: b"E" + json.dumps(said).encode()),
        st.builds(
            lambda offset, length: b"R" + struct.pack("<QI", offset, length),
            st.sampled_from([0, 1, 10, 2**31, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1),
            st.sampled_from([0, 1, 2**24, 2**32 - 1]),
        ),
        st.builds(
            lambda kind, body: kind + body,
            st.sampled_from([b"R", b"P", b"D", b"E", b"W", b"", b"X"]),
            st.binary(),
        ),
    )


@bounded()
@given(says=st.lists(hostile(MEDIA), max_size=4))
def test_a_child_that_says_anything_about_media_is_believed_or_blamed(says: list[bytes]) -> None:
    answered(lambda decoder: decoder.probe(Bytes(b"0123456789"), "talk.mp4"), says)


@bounded()
@given(says=st.lists(hostile(AUDIO), max_size=4))
def test_a_child_that_says_anything_about_sound_is_believed_or_blamed(says: list[bytes]) -> None:
    answered(lambda decoder: decoder.extract(Bytes(b"0123456789"), "talk.mp4", Path("audio.flac")), says)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"D" + json.dumps(asdict(MEDIA) | {"duration_s": float("nan")}).encode(), "makes no sense"),
        (b"D" + json.dumps(asdict(MEDIA) | {"sample_rate": 2**31}).encode(), "makes no sense"),
        (b"D" + json.dumps(asdict(MEDIA) | {"container": "\ud800"}).encode(), "makes no sense"),
        (b"D" + json.dumps({"container": "mp4"}).encode(), "makes no sense"),
        (b"R" + struct.pack("<QI", 2**63, 1), "makes no sense"),
        (b"E" + json.dumps({"reason": ["x"], "message": "y"}).encode(), "makes no sense"),
        (b"D" + b"x" * (1 << 20), "died"),
    ],
)
def test_an_answer_that_cannot_be_is_the_decoders_fault(said: bytes, problem: str) -> None:
    with Told([said]) as decoder, pytest.raises(MediaError, match=problem) as raised:
        decoder.probe(Bytes(b"0123456789"), "talk.mp4")
    assert raised.value.reason is Reason.DECODER_DIED


class Scripted(MediaDecoder):
    """A decoder whose child is a program of ours."""

    def __init__(self, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        real = subprocess.Popen

        def instead(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
            return real(
                [sys.executable, "-c", f"import os, sys, time\nfd = int(sys.argv[1])\n{script}", command[-1]],
                **options,
            )

        monkeypatch.setattr(subprocess, "Popen", instead)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("os.close(fd); time.sleep(60)", "died"),
        ("os.write(fd, b'\\x00\\x20\\x00\\x00'); time.sleep(60)", "died"),  # a message that is too long
        ("os.write(fd, b'\\x00\\x00\\x00\\x09D'); time.sleep(60)", "died"),  # and one that does not end
        (
            "os.write(fd, b'\\x00\\x00\\x00\\x0dR' + bytes(8) + b'\\0\\0\\0\\1'); time.sleep(60)",
            "died",
        ),  # deaf
        ("time.sleep(60)", "no headway"),
    ],
)
def test_a_child_that_lives_on_and_says_no_more_is_waited_for_a_while(
    script: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "STALL_S", 1.0)
    monkeypatch.setattr(media, "DYING_S", 0.5)
    with Scripted(script, monkeypatch) as decoder, pytest.raises(MediaError, match=problem):
        decoder.probe(Bytes(bytes(1 << 24)), "talk.mp4")


# (d) What a video holds.

CONTAINERS = {
    "mp4": "aac",
    "matroska": "libopus",
    "webm": "libopus",
    "mpegts": "mp2",
    "wav": "pcm_s16le",
    "mp3": "libmp3lame",
    "flac": "flac",
    "ogg": "libopus",
}


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    """A second and a half of a tone, with a picture where there is room for one."""
    shown = {"mp4", "matroska", "mpegts"}
    return {
        container: clip(
            container,
            codec,
            seconds=1.5,
            channels=2,
            picture_s=[n / 10 for n in range(15)] if container in shown else (),
        )
        for container, codec in CONTAINERS.items()
    }


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as decoder:
        yield decoder


def damaged(data: bytes, other: bytes, draw: st.DataObject) -> bytes:
    """Bits turned over, an end cut off, a block taken out, repeated, or replaced by one of another clip."""
    first = draw.draw(st.integers(0, min(len(data), 4000)) | st.integers(0, len(data)))
    last = first + draw.draw(st.integers(1, 16) | st.integers(1, max(1, len(data))))
    kind = draw.draw(st.sampled_from(["bits", "cut", "out", "repeat", "splice", "bytes", "number"]))
    block = {
        "bits": bytes(byte ^ draw.draw(st.sampled_from([1, 0x80, 0xFF])) for byte in data[first : first + 3]),
        "out": b"",
        "repeat": data[first:last] * draw.draw(st.integers(2, 20)),
        "splice": other[first:last],
        "bytes": draw.draw(st.binary(min_size=1, max_size=64)),
        "number": draw.draw(
            st.sampled_from([b"\xff" * 4, b"\x7f" + b"\xff" * 3, bytes(8), b"\x80" + bytes(7)])
        ),
    }
    if kind == "cut":
        return data[:first]
    until = last if kind in ("out", "repeat", "splice") else first + len(block[kind])
    return data[:first] + block[kind] + data[until:]


@bounded(max_examples=int(os.environ.get("ASR_FUZZ_MEDIA_EXAMPLES", "60")))
@given(
    container=st.sampled_from(sorted(CONTAINERS)), other=st.sampled_from(sorted(CONTAINERS)), data=st.data()
)
def test_damaged_media_ends_as_sound_or_with_a_reason(
    corpus: dict[str, bytes],
    decoder: MediaDecoder,
    tmp_path_factory: pytest.TempPathFactory,
    container: str,
    other: str,
    data: st.DataObject,
) -> None:
    flac = tmp_path_factory.getbasetemp() / "fuzz.flac"
    mutant = corpus[container]
    for _ in range(data.draw(st.integers(1, 3))):
        mutant = damaged(mutant, corpus[other], data)
    with suppress(MediaError):
        assert isinstance(decoder.probe(Bytes(mutant), container), MediaInfo)
    with suppress(MediaError):
        audio = decoder.extract(Bytes(mutant), container, flac)
        assert flac.stat().st_size
        samples = sum(piece.shape[-1] for piece in media.flac_pieces(flac))
        assert audio.duration_s == pytest.approx(samples / SAMPLE_RATE, abs=0.001)


@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_undamaged_media_of_the_corpus_is_heard(
    corpus: dict[str, bytes], decoder: MediaDecoder, tmp_path: Path, container: str
) -> None:
    assert decoder.probe(Bytes(corpus[container]), container).audio_stream is not None
    audio = decoder.extract(Bytes(corpus[container]), container, tmp_path / "audio.flac")
    assert audio.duration_s == pytest.approx(1.5, abs=0.1)
