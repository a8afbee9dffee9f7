"""A watched bucket, through boto3, which returns keys as they are. A video's version is its ETag.

The ETag and not the version id: a listing of a bucket does not give version ids, events do, and the
same object must get the same video_id whichever way it was noticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from resources.aws import TRIES
from resources.observations import Video
from speech.errors import Reason, SourceObjectError, SourceUnavailable
from speech.media import ByteSource

LINK_S = 3600
"""Whoever has a link may read that object for so long."""
_READ_AHEAD = 8 << 20
_BUSY = {429, 502, 503, 504}
"""Statuses of a bucket that has too much to do, or of what stands in front of it."""

_UNSURE = {"400", "403", "404", "500"}
"""Answers to HEAD, which have no text, that may be about one object only."""

_NO_KEY = {"KeyTooLongError", "InvalidURI", "InvalidArgument"}
"""Answers to a key that no object can have."""


def _code(error: BotoCoreError | ClientError) -> str:
    """What went wrong, in a word: S3's own, else boto's."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


def _is_passing(error: ClientError) -> bool:
    """Whether the next request may have another answer: of this one's object it says nothing."""
    status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], _code(error)
    return status in _BUSY or code.startswith("Expired") or "Throttling" in code


class S3Bucket:
    """See :class:`resources.source.SourceBackend`."""

    def __init__(self, url: str, client: Any) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        # "videos" must not match "videos-private/".
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self._bucket, self._client = bucket, client
        self.name = f"s3://{bucket}"

    def list(self, after: str | None = None) -> Iterator[Video]:
        """Every object below the prefix, page by page, in the order of their keys' bytes."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, **({"StartAfter": after} if after else {})
        )
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    yield self._video(found["Key"], found["Size"], found)
        except (BotoCoreError, ClientError) as error:
            # From None, here and below: boto's own words have the keys that were asked for in them.
            raise SourceUnavailable(
                f"{self.name}/{self._prefix} cannot be listed: {_code(error)}; "
                "check ASR_SOURCE_URL, the credentials and s3:ListBucket"
            ) from None

    def find(self, key: str) -> Video | None:
        """One object as it is now."""
        try:
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=key)
                return self._video(key, found["ContentLength"], found)
            except ClientError as error:
                if _code(error) not in _UNSURE:
                    raise
            # To HEAD, an object that is gone, forbidden, broken or under a key of its customer's, and a
            # bucket that is gone may look alike. A listing tells them apart; it costs ten times as much.
            listed = self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _NO_KEY:
                return None
            raise SourceUnavailable(
                f"{self.name} does not say whether an object is there: {_code(error)}; "
                "check ASR_SOURCE_URL, the credentials, s3:GetObject and s3:ListBucket"
            ) from None
        same = (found for found in listed.get("Contents", ()) if found["Key"] == key)
        return next((self._video(key, found["Size"], found) for found in same), None)

    def covers(self, video: Video) -> bool:
        """Whether this bucket and prefix is where a video would be."""
        return video.source == self.name and video.key.startswith(self._prefix)

    def _video(self, key: str, size_bytes: int, found: Any) -> Video:
        return Video(
            source=self.name,
            key=key,
            version=found["ETag"].strip('"'),
            size_bytes=size_bytes,
            modified_at=found["LastModified"],
        )

    def link(self, video: Video, content_type: str) -> str | None:
        """A presigned URL; it gives whatever version is there."""
        asked = {"Bucket": self._bucket, "Key": video.key, "ResponseContentType": content_type}
        try:
            return str(self._client.generate_presigned_url("get_object", asked, LINK_S))
        except BotoCoreError as error:
            raise SourceUnavailable(
                f"{self.name}: no link to a video can be signed: {_code(error)}; check the credentials"
            ) from None

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
            data = self._answer(offset, last)
        except ClientError as error:
            code = _code(error)
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
            if not _is_passing(error) and self._bucket_answers():
                raise SourceObjectError(
                    Reason.UNREADABLE_OBJECT,
                    f"{self._video.key}: s3://{self._bucket} refuses to read it: {code}",
                ) from error
            raise SourceUnavailable(f"s3://{self._bucket} cannot be read: {code}") from None
        except BotoCoreError as error:
            raise SourceUnavailable(f"s3://{self._bucket} cannot be reached: {_code(error)}") from None
        if len(data) != last - offset + 1:
            raise SourceUnavailable(f"s3://{self._bucket} broke off in the middle of an answer")
        return data

    def _bucket_answers(self) -> bool:
        """Whether only this object is refused: archived, forbidden, its key or its disk lost."""
        try:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._video.key, MaxKeys=1)
        except (BotoCoreError, ClientError):
            return False
        return True

    def _answer(self, offset: int, last: int, tries: int = TRIES) -> bytes:
        answer = self._client.get_object(
            Bucket=self._bucket,
            Key=self._video.key,
            Range=f"bytes={offset}-{last}",
            IfMatch=f'"{self._video.version}"',
        )
        try:
            data: bytes = answer["Body"].read()
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            # boto asks again where there was no answer; not for the rest of one, for which all the videos of
            # the step would be read again.
            if tries == 1:
                raise
            return self._answer(offset, last, tries - 1)
        return data
