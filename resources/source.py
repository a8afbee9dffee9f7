"""The source: other people's bucket or folder, whose keys may be anything. Read only."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from math import inf
from typing import Any, Protocol, TypeVar

from botocore.exceptions import BotoCoreError
from dagster import ConfigurableResource, ResourceDependency
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from resources.aws import S3
from resources.backends import HERE
from resources.backends.mediaconvert import MediaConvert
from resources.observations import Video
from resources.settings import MEDIA_SUFFIXES, Settings, local_path
from resources.source_local import LocalFolder
from resources.source_s3 import S3Bucket
from resources.store import Store
from speech.errors import SourceUnavailable
from speech.media import ByteSource
from speech.types import Seconds

LOOK_UPS = 16  # at a time

A = TypeVar("A")
B = TypeVar("B")


def ask_each(ask: Callable[[A], B], about: Sequence[A]) -> list[B]:
    """Ask whatever takes its time to answer about each of these, many at a time."""
    with ThreadPoolExecutor(LOOK_UPS) as threads:
        return list(threads.map(ask, about))


@cache
def _endings(suffixes: str) -> tuple[str, ...]:
    return tuple(suffixes.split())


class SourceBackend(Protocol):
    """What a kind of source can do; ``name`` is its videos' :attr:`~resources.observations.Video.source`."""

    name: str

    def list(self, after: str | None = None) -> Iterator[Video]:
        """Objects as they are now, in an order of this kind's own, from the one after key ``after``.

        Raises SourceUnavailable rather than ending early.
        """

    def find(self, key: str) -> Video | None:
        """One object as it is now; None when it is not there. SourceUnavailable when unsure."""

    def covers(self, video: Video) -> bool:
        """Whether a video belongs to what is listed here, be it there or not."""

    def open(self, video: Video) -> AbstractContextManager[ByteSource]:
        """That version's bytes. Raises SourceObjectError when it is gone or another version now."""

    def link(self, video: Video, content_type: str) -> str | None:
        """A URL under which a browser finds the object for a while, as this type; None: there is none."""


class Source(ConfigurableResource[Any]):
    """The watched URL. What does not end like media (a read-me, a sidecar) is not a video."""

    url: str = Field(description="The watched bucket or folder: s3://bucket/prefix or file:///…")
    suffixes: str = Field(default=MEDIA_SUFFIXES, description="Which names are videos: endings, lower case")
    min_bytes: int = Field(default=0, ge=0, description="Smaller objects are no videos")
    max_bytes: int = Field(default=5 << 40, description="Larger objects are no videos")
    extractor: str = Field(default=HERE, description="What takes sound out of videos: here, mediaconvert")
    mediaconvert_role: str = Field(default="", description="The role under which MediaConvert works")
    mediaconvert_queue: str = Field(default="", description="Its queue; empty: the account's default")
    s3: ResourceDependency[S3Resource]
    _backend: SourceBackend | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "Source":
        """The source that the environment names."""
        return cls(
            url=settings.source_url,
            suffixes=settings.suffixes,
            min_bytes=settings.min_bytes,
            max_bytes=settings.max_bytes,
            extractor=settings.extractor,
            mediaconvert_role=settings.mediaconvert_role,
            mediaconvert_queue=settings.mediaconvert_queue,
            s3=S3(),
        )

    @property
    def backend(self) -> SourceBackend:
        """Raises :class:`~speech.errors.SourceUnavailable` for a URL that no backend reads."""
        if self._backend is None:
            self._backend = self._connect()
        return self._backend

    def _connect(self) -> SourceBackend:
        if folder := local_path(self.url):
            return LocalFolder(folder)
        if self.url.startswith("s3://"):
            try:
                return S3Bucket(self.url, self.s3.get_client())
            except (BotoCoreError, ValueError) as error:
                raise SourceUnavailable(f"{self.url}: {error}; check the AWS_* variables") from error
        raise SourceUnavailable(f"{self.url}: a source is a folder or s3://bucket/prefix; set ASR_SOURCE_URL")

    def look(self, after: str | None = None, until: Seconds = inf) -> "Look":
        """A look through the videos at the source, from the one after key ``after``."""
        return Look(self, after, until)

    def find(self, key: str) -> Video | None:
        """The video of a key as it is now; None when there is none, or it is no video of this source."""
        found = self.backend.find(key)
        return found if found and self.covers(found) else None

    def covers(self, video: Video) -> bool:
        """Whether a look through the source would come upon this key, if it were there."""
        return self.backend.covers(video) and self.wants(video)

    @property
    def name(self) -> str:
        """What :attr:`Video.source` is of everything listed here: the bucket without a prefix, the folder."""
        return self.backend.name

    def wants(self, video: Video) -> bool:
        """Whether an object is a video by its name and size."""
        name = video.key.rpartition("/")[2].lower()
        # Hidden files are other programs' notes about a video ("._talk.mp4"), or its first half.
        named = name.endswith(_endings(self.suffixes)) and not name.startswith(".")
        return named and self.min_bytes <= video.size_bytes <= self.max_bytes

    def open(self, video: Video) -> AbstractContextManager[ByteSource]:
        """The bytes of one version of one video; never a mix of two versions."""
        return self.backend.open(video)

    def sounds(self, store: Store, batch: str, videos: Sequence[Video]) -> "Sounds":
        """Where the sound of these videos is: in themselves, or in what MediaConvert makes of them."""
        if self.extractor == HERE or not videos:
            return self
        return MediaConvert(
            self.open, store, batch, videos, role=self.mediaconvert_role, queue=self.mediaconvert_queue
        )


class Sounds(Protocol):
    """Media from which the decoder takes sound."""

    def open(self, video: Video) -> AbstractContextManager[ByteSource]:
        """A video's, of its very version. Raises VideoError."""


class Look:
    """Videos one by one, until the source has no more or the time is over.

    ``position`` is the key of the last object looked at, video or not; None once all were.
    """

    def __init__(self, source: Source, after: str | None, until: Seconds) -> None:
        self._source, self._until = source, until
        self.position = after

    def __iter__(self) -> Iterator[Video]:
        for found in self._source.backend.list(self.position):
            if self._source.wants(found):
                yield found
            self.position = found.key
            if time.monotonic() > self._until:
                return
        self.position = None
