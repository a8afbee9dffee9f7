"""Whether a file ends before its container says that it does: an upload that broke off, a disk that was full.

FFmpeg plays what is there and raises nothing, and a transcript of half a meeting looks like one of a short
meeting. Each container leaves another trace, and MPEG-TS only that its packets have one length; what is cut
off exactly between two of them cannot be told from what ended there.
"""

import struct
from collections.abc import Callable
from typing import Protocol

MP4_BOXES = 64
"""Looked at, at most; behind a box of media that is cut there is none."""
OGG_PAGE = 65_307
"""The longest there can be, RFC 3533."""
TS_PACKETS = (188, 192, 204)
"""With nothing, a time or a checksum at its end."""
_ALL_ONES = 0xFFFFFFFF
_ID3 = int.from_bytes(b"ID3")
_SEGMENT, _EBML = b"\x18\x53\x80\x67", b"\x1a\x45\xdf\xa3"


class Bytes(Protocol):
    """A file that can be read at any place."""

    def seek(self, offset: int, /) -> int:
        """See :class:`io.RawIOBase`."""

    def read(self, length: int, /) -> bytes:
        """See :class:`io.RawIOBase`."""


def ends_early(file: Bytes, size: int, container: str) -> bool:
    """Whether a file of ``size`` bytes is shorter than it says; ``container`` is FFmpeg's name of it."""
    rule = _RULES.get(container.split(",")[0])
    try:
        return rule is not None and rule(file, size)
    except struct.error:
        return True  # not even its header is whole


def _at(file: Bytes, place: int, form: str) -> tuple[int, ...]:
    file.seek(place)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _riff(file: Bytes, size: int) -> bool:
    (length,) = _at(file, 4, "<I")
    # A recorder that could not go back to fill it in leaves one of these; one of 64 bits, too.
    return 0 < length < _ALL_ONES and 8 + length > size


def _form(file: Bytes, size: int) -> bool:
    (length,) = _at(file, 4, ">I")
    return 8 + length > size


def _matroska(file: Bytes, size: int) -> bool:
    place = 0
    for _ in range(4):  # the header and the segment; there may be a void between them
        file.seek(place)
        head = file.read(12)
        if head[:4] == _SEGMENT:
            length, used = _ebml_size(head[4:])
            return length is not None and place + 4 + used + length > size
        width = 4 if head[:4] == _EBML else 1
        length, used = _ebml_size(head[width:])
        place += width + used + (length or 0)
    return False


def _ebml_size(data: bytes) -> tuple[int | None, int]:
    """A length as EBML writes it (RFC 8794, section 4), None where it is left open; and its own bytes."""
    if not data or not data[0]:
        raise struct.error("no length")
    width = 9 - data[0].bit_length()
    value = int.from_bytes(data[:width]) - (1 << 7 * width)
    return None if value == (1 << 7 * width) - 1 else value, width


def _mp4(file: Bytes, size: int) -> bool:
    place = 0
    for _ in range(MP4_BOXES):
        if place == size:
            return False
        length, _ = _at(file, place, ">I4s")
        if length == 1:
            (length,) = _at(file, place + 8, ">Q")
        if length == 0:  # to the end, wherever that is
            return False
        place += max(8, length)
        if place > size:
            return True
    return False


def _mpegts(_: Bytes, size: int) -> bool:
    return all(size % length for length in TS_PACKETS)


def _ogg(file: Bytes, size: int) -> bool:
    file.seek(max(0, size - OGG_PAGE))
    end = file.read(OGG_PAGE)
    last = end.rfind(b"OggS")
    # Its last page says that it is the last, and is whole: RFC 3533, section 6.
    if last < 0 or len(end) < last + 27 or not end[last + 5] & 4:
        return True
    lengths = end[last + 27 : last + 27 + end[last + 26]]
    return last + 27 + len(lengths) + sum(lengths) > len(end)


def _mp3(file: Bytes, size: int) -> bool:
    # A tag's length has seven bits in each byte, so that it never looks like sound.
    mark, *length = _at(file, 0, ">I2x4B")
    first = 10 + sum(byte << 7 * (3 - n) for n, byte in enumerate(length)) if mark >> 8 == _ID3 else 0
    file.seek(first)
    frame = file.read(200)
    # The first frame of most encoders is no sound but tells how many bytes follow it.
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + 16:
        return False
    told, _, follows = struct.unpack_from(">3I", frame, place + 4)
    return bool(told & 3 == 3 and first + follows > size)


_RULES: dict[str, Callable[[Bytes, int], bool]] = {
    "wav": _riff,
    "avi": _riff,
    "aiff": _form,
    "matroska": _matroska,
    "mov": _mp4,
    "mp3": _mp3,
    "mpegts": _mpegts,
    "ogg": _ogg,
}
