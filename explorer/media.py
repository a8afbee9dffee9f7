"""A video's bytes for a browser: by range from a folder, by a link to a bucket."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from mimetypes import guess_type
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from resources import layout
from resources.observations import Video
from resources.source import Source
from resources.store import Store
from speech.errors import AsrError, StoreError, VideoError
from speech.media import ByteSource

PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class Range(NamedTuple):
    """Bytes from ``first`` up to, and without, ``end``."""

    first: int
    end: int

    @classmethod
    def of(cls, header: str | None, size: int) -> "Range | None":
        """What a Range header asks for, which may be nothing that is there; None where all is to be given.

        Source: RFC 9110, section 14: what cannot be read, and several ranges, may be ignored.

        >>> Range.of("bytes=2-", 5), Range.of("bytes=-2", 5), Range.of("bytes=5-2", 5)
        (Range(first=2, end=5), Range(first=3, end=5), None)
        """
        found = _RANGE.fullmatch(header or "")
        if not found:
            return None
        first, last, length = found.groups()
        if length:
            return cls(max(0, size - int(length)), size)
        if last and int(last) < int(first):
            return None
        return cls(int(first), min(int(last) + 1, size) if last else size)


def video_response(source: Source, video: Video, request: Request) -> Response:
    """A video as it was transcribed; where it is gone, or another now, an answer that says so."""
    kind = media_type(video.key)
    now = source.backend.find(video.key) if source.backend.covers(video) else None
    if now is None or now.version != video.version:
        return PlainTextResponse("this version of the video is not at the source any more", 410)
    if link := source.backend.link(video, kind):
        return RedirectResponse(link, 302, {"Cache-Control": "no-store"})
    try:
        return _ranged(source.open(video), kind, request)
    except VideoError as error:
        return PlainTextResponse(str(error), 410)


def audio_response(store: Store, video_id: str, request: Request) -> Response:
    """The sound that was transcribed, at 16 kHz: any browser plays it."""
    key = layout.audio(video_id)
    if (found := store.head(key)) is None:
        return PlainTextResponse("there is no sound of this video", 404)
    if link := store.link(key):
        return RedirectResponse(link, 302, {"Cache-Control": "no-store"})
    return _ranged(_Stored(store, key, found.size), "audio/flac", request)


def media_type(key: str) -> str:
    """By its ending; what is no media by that is nothing that a browser would open.

    >>> media_type("talk.mp4"), media_type("talk.html")
    ('video/mp4', 'application/octet-stream')
    """
    guessed = guess_type(key.rpartition("/")[2])[0] or ""
    return guessed if guessed.startswith(("video/", "audio/")) else "application/octet-stream"


def link_origins(source: Source, store: Store) -> list[str]:
    """Where links lead: a page has to allow media from there."""
    nothing = Video.model_validate(
        {"source": source.name, "key": "x", "version": "", "size_bytes": 0, "modified_at": 0}
    )
    links = (source.backend.link(nothing, "video/mp4"), store.link("x"))
    parts = (urlsplit(link) for link in links if link)
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts})


class _Stored(AbstractContextManager["_Stored"]):
    """An object of the store as a :class:`~speech.media.ByteSource`."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        self.size = size
        if (file := store.open(key)) is None:
            raise StoreError(f"{store.url}/{key} has just been removed")
        self._file = file

    def read_at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _ranged(opened: AbstractContextManager[ByteSource], kind: str, request: Request) -> Response:
    with ExitStack() as stack:
        data = stack.enter_context(opened)
        asked = Range.of(request.headers.get("range"), data.size)
        if asked and asked.first >= asked.end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{data.size}"})
        given = asked or Range(0, data.size)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(given.end - given.first)}
        if asked:
            headers["Content-Range"] = f"bytes {given.first}-{given.end - 1}/{data.size}"
        status = 206 if asked else 200
        if request.method == "HEAD":
            return Response(None, status, headers, kind)
        return StreamingResponse(_pieces(data, given, stack.pop_all()), status, headers, kind)


def _pieces(data: ByteSource, found: Range, stack: ExitStack) -> Iterator[bytes]:
    with stack:
        for offset in range(found.first, found.end, PIECE):
            try:
                yield data.read_at(offset, min(PIECE, found.end - offset))
            except AsrError:
                return  # shorter than was promised: the browser notices, and asks again
