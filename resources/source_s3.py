"""A watched bucket, through boto3, which returns keys as they are. A video's version is its ETag.

The ETag and not the version id: a listing of a bucket does not give version ids, events do, and the
same object must get the same video_id whichever way it was noticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from resources.ingest_log import Video
from speech.errors import Reason, SourceObjectError, SourceUnavailable
from speech.media import ByteSource

_READ_AHEAD = 8 << 20
_THIS_OBJECT_ONLY = {"AccessDenied", "403", "InvalidObjectState", "KMS.DisabledException", "MethodNotAllowed"}
"""Answers about one object: archived, or under another policy or key than the bucket that was listed."""


class S3Bucket:
    """See :class:`resources.source.SourceBackend`."""

    def __init__(self, url: str, client: Any) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        # "videos" must not match "videos-private/".
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self._bucket, self._client = bucket, client
        self._name = f"s3://{bucket}"

    def list(self) -> Iterator[Video]:
        """Every object below the prefix, page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    yield Video(
                        source=self._name,
                        key=found["Key"],
                        version=found["ETag"].strip('"'),
                        size_bytes=found["Size"],
                        modified_at=found["LastModified"],
                    )
        except (BotoCoreError, ClientError) as error:
            raise SourceUnavailable(
                f"{self._name}/{self._prefix} cannot be listed: {error}; "
                "check ASR_SOURCE_URL, the credentials and s3:ListBucket"
            ) from error

    @contextmanager
    def open(self, video: Video) -> Iterator[ByteSource]:
        """The object by byte ranges, each on the condition that it is still that version."""
        yield _S3Object(self._client, self._bucket, video)


class _S3Object:
    """Reads ahead in blocks: a demuxer asks for a few kilobytes at a time, mostly in order."""

    def __init__(self, client: Any, bucket: str, video: Video) -> None:
        self._client, self._bucket, self._video = client, bucket, video
        self.size = video.size_bytes
        self._start, self._block = 0, b""
        # Even an object of which no byte is asked for must still be there.
        self.read_at(0, 1)

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if not self._start <= offset or offset + length > self._start + len(self._block):
            self._block = self._fetch(offset, max(length, _READ_AHEAD))
            self._start = offset
        return self._block[offset - self._start :][:length]

    def _fetch(self, offset: int, length: int) -> bytes:
        last = min(offset + length, self.size) - 1
        try:
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._video.key,
                Range=f"bytes={offset}-{last}",
                IfMatch=f'"{self._video.version}"',
            )
            data: bytes = answer["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404"):
                raise SourceObjectError(
                    Reason.MISSING,
                    f"{self._video.key}: gone from s3://{self._bucket} before it could be read",
                ) from error
            if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
                raise SourceObjectError(
                    Reason.SUPERSEDED,
                    f"{self._video.key}: changed since it was ingested; the new version is ingested apart",
                ) from error
            if code in _THIS_OBJECT_ONLY:
                raise SourceObjectError(
                    Reason.UNREADABLE_OBJECT,
                    f"{self._video.key}: s3://{self._bucket} refuses to read it: {error}",
                ) from error
            raise SourceUnavailable(f"s3://{self._bucket} cannot be read: {error}") from error
        except BotoCoreError as error:
            raise SourceUnavailable(f"s3://{self._bucket} cannot be reached: {error}") from error
        if len(data) != last - offset + 1:
            raise SourceUnavailable(
                f"{self._video.key}: s3://{self._bucket} broke off in the middle of an answer"
            )
        return data
