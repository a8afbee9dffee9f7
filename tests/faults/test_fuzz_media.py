"""What a decoder answers, and what a video holds."""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.published import ExtractedVideo, Status
from speech import media
from speech.errors import AsrError, MediaError, Reason
from speech.media import AudioInfo, MediaDecoder, MediaInfo
from speech.types import SAMPLE_RATE
from tests.faults.clips import clip
from tests.faults.fuzzing import any_json, bounded, nested

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
        ("os.write(fd, b'\\x00\\x00\\x00\\x09D'); time.sleep(60)", "no headway"),  # and one that does not end
        (
            "os.write(fd, b'\\x00\\x00\\x00\\x0dR' + bytes(8) + b'\\0\\0\\0\\1'); time.sleep(60)",
            "no headway",
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
