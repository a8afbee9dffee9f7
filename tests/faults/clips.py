"""Small recordings, whole and otherwise, made when they are needed."""

import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np

from speech.timeline import LAYOUTS

TONE_HZ = 440


def tone(seconds: float, rate: int, silent_s: float = 0.0) -> np.ndarray:
    """A tone as 16-bit samples, ``(1, n)``, after so much silence."""
    sound = 8000 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * TONE_HZ / rate)
    sound[: int(silent_s * rate)] = 0
    return sound.astype(np.int16).reshape(1, -1)


def clip(
    container: str,
    codec: str,
    seconds: float = 4.0,
    rate: int = 48_000,
    silent_s: float = 0.0,
    starts_s: float = 0.0,
    channels: int = 1,
    tracks: Sequence[bool] = (True,),
    picture_s: Sequence[float] = (),
    metadata: Mapping[str, str] | None = None,
    **options: str,
) -> bytes:
    """A tone in a container; ``tracks`` says of each which is the default one, only that one has sound.

    ``picture_s`` are the times of frames of a picture.
    """
    with (
        NamedTemporaryFile() as file,  # by name: an MP4 that begins with its index is written twice
        av.open(file.name, "w", format=container, options=options) as output,
    ):
        output.metadata.update(metadata or {})
        streams = []
        for default in tracks:
            stream: Any = output.add_stream(codec, rate=rate, layout=LAYOUTS[channels])
            stream.disposition = av.stream.Disposition.default if default else 0
            streams.append(stream)
        if picture_s:
            picture: Any = output.add_stream("mpeg4", rate=Fraction(25), width=64, height=64)
            picture.codec_context.time_base = Fraction(1, 1000)
            for time_s in picture_s:
                shown = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                shown.pts, shown.time_base = round(time_s * 1000), Fraction(1, 1000)
                output.mux(picture.encode(shown))
            output.mux(picture.encode(None))
        for stream, default in zip(streams, tracks, strict=True):
            sound = np.repeat(tone(seconds, rate, silent_s) * default, channels, axis=1)
            for at in range(0, int(seconds * rate), 960):
                piece = sound[:, at * channels : (at + 960) * channels]
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=LAYOUTS[channels])
                frame.sample_rate, frame.pts = rate, round(starts_s * rate) + at
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        output.close()
        return Path(file.name).read_bytes()


WHOLE: dict[str, Callable[[], bytes]] = {
    "mp4": lambda: clip("mp4", "aac", movflags="faststart"),
    "mkv": lambda: clip("matroska", "aac"),
    "webm": lambda: clip("webm", "libopus"),
    "ts": lambda: clip("mpegts", "mp2"),
    "wav": lambda: clip("wav", "pcm_s16le"),
    "aiff": lambda: clip("aiff", "pcm_s16be"),
    "avi": lambda: clip("avi", "mp3"),
    "flv": lambda: clip("flv", "aac", rate=44_100),
    "mp3": lambda: clip("mp3", "mp3"),
    "flac": lambda: clip("flac", "flac"),
    "ogg": lambda: clip("ogg", "libopus"),
}
"""A few seconds in each container, by its suffix."""


def cut(data: bytes, share: float) -> bytes:
    """The first part of it; one byte less where that is a whole number of MPEG-TS packets."""
    size = int(len(data) * share)
    return data[: size - (size % 188 == 0)]


def noise(size: int) -> bytes:
    """Bytes that mean nothing, always the same."""
    return np.random.default_rng(7).bytes(size)


def damaged(data: bytes, first: float, last: float) -> bytes:
    """With noise from one part of it to another."""
    begin, end = int(len(data) * first), int(len(data) * last)
    return data[:begin] + noise(end - begin) + data[end:]


def playlist(address: str) -> bytes:
    """HLS that leads there."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n".encode()


def concat(name: str) -> bytes:
    """A script that has FFmpeg play another file."""
    return f"ffconcat version 1.0\nfile '{name}'\n".encode()


def session() -> bytes:
    """An SDP: FFmpeg would wait for somebody to send."""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0", "m=audio 9 RTP/AVP 0"]
    return "\r\n".join([*lines, ""]).encode()


def wav(channels: int = 1, bits: int = 16, rate: int = 16_000, sound: bytes = bytes(100_000)) -> bytes:
    """A WAV that says so of itself."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encrypted() -> bytes:
    """MP4 with Common Encryption."""
    return clip(
        "mp4",
        "aac",
        encryption_scheme="cenc-aes-ctr",
        encryption_key="0123456789abcdef" * 2,
        encryption_kid="0f" * 16,
    )


def edited(drops_s: float) -> bytes:
    """Two seconds of silence, then a tone; an edit list drops the first of it."""
    data = bytearray(clip("mov", "pcm_s16le", silent_s=2.0))
    place = data.index(b"elst") + 4 + 8  # behind its version and the number of its entries
    struct.pack_into(">i", data, place + 4, round(drops_s * 48_000))
    for name, at in ((b"elst", 12), (b"mvhd", 20), (b"tkhd", 24)):  # how long all is, in thousandths
        place = data.index(name) + at
        (length,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, length - round(drops_s * 1000))
    return bytes(data)


def indexed(sound: int, picture: int, there: int) -> bytes:
    """An MP4 whose index lists so many packets of silence and of a picture; it holds ``there`` of them."""
    data, silence = bytearray(clip("mp4", "aac", silent_s=4.0, picture_s=(0.0, 1.0))), b"\x01\x18 \x07"
    at = 0
    for count, lasts in ((sound, 1024), (picture, 267)):  # at 48 and 16 kHz
        # One edit for a day in thousandths, one duration, one size, and one chunk for all.
        for name, offset, fields in (
            (b"elst", 12, (86_400_000,)),
            (b"stts", 8, (1, count, lasts)),
            (b"stsc", 8, (1, 1, count)),
            (b"stsz", 8, (len(silence), count)),
            (b"stco", 8, (1, len(data))),
        ):
            at = data.index(name, at)
            struct.pack_into(f">{len(fields)}I", data, at + offset, *fields)
    return bytes(data) + silence * there


def latin1() -> bytes:
    """With a title that is no UTF-8."""
    return clip("matroska", "aac", metadata={"title": "Caf____"}).replace(b"Caf____", b"Caf\xe9\xff\xfe\xc3")


def silence_bomb(folder: Path, hours: float) -> Path:
    """Hours of FLAC in a few kilobytes: one frame, repeated by the encoder's own economy."""
    path = folder / "bomb.flac"
    with av.open(str(path), "w", format="flac") as output:
        stream: Any = output.add_stream("flac", rate=8000, layout="mono", format="s16")
        block = np.zeros((1, 65_535), np.int16)
        for number in range(int(hours * 3600 * 8000 / 65_535)):
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, number * 65_535
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
