"""The source: other people's bucket or folder, whose keys may be anything. Read only."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError
from dagster import ConfigurableResource, ResourceDependency
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from resources.ingest_log import Video
from resources.settings import local_path
from resources.source_local import LocalFolder
from resources.source_s3 import S3Bucket
from speech.errors import SourceUnavailable
from speech.media import ByteSource

MEDIA_SUFFIXES = (
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .flv .wmv .asf .3gp "
    ".wav .mp3 .m4a .aac .mka .flac .ogg .oga .opus .wma .aiff .aif .caf .amr .ac3"
)


class SourceBackend(Protocol):
    """What a kind of source can do."""

    def list(self) -> Iterator[Video]:
        """All objects as they are now. Raises SourceUnavailable rather than ending early."""

    def open(self, video: Video) -> AbstractContextManager[ByteSource]:
        """That version's bytes. Raises SourceObjectError when it is gone or another version now."""


class Source(ConfigurableResource[Any]):
    """The watched URL. What does not end like media (a read-me, a sidecar) is not a video."""

    url: str = Field(description="The watched bucket or folder: s3://bucket/prefix or file:///…")
    suffixes: str = Field(default=MEDIA_SUFFIXES, description="Which names are videos: endings, lower case")
    s3: ResourceDependency[S3Resource]
    _backend: SourceBackend | None = PrivateAttr(default=None)

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

    def list(self) -> Iterator[Video]:
        """All videos at the source, as they are now."""
        endings = tuple(self.suffixes.split())
        return (
            video
            for video in self.backend.list()
            # Hidden files are other programs' notes about a video ("._talk.mp4"), or its first half.
            if video.key.lower().endswith(endings) and not video.key.rpartition("/")[2].startswith(".")
        )

    def open(self, video: Video) -> AbstractContextManager[ByteSource]:
        """The bytes of one version of one video; never a mix of two versions."""
        return self.backend.open(video)
