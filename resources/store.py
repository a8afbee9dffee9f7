"""The store: everything the platform writes, under one root URL (a folder, S3, GCS or Azure)."""

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore
from dagster import ConfigurableResource
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url
from pydantic import Field, PrivateAttr
from typing_extensions import Buffer

from resources.settings import local_path
from speech.errors import StoreError, first_line
from speech.types import Seconds

ANSWER_S: Seconds = 30.0
"""How long an answer may take, all of its bytes included."""

WAITS_S: tuple[Seconds, ...] = (0.2, 0.8, 2.0)
PATIENCE_S: Seconds = 20.0
"""Who has been asked for so long, as obstore does of its own, is not asked again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object; ``size`` in bytes."""

    key: str
    etag: str
    size: int


class Store(ConfigurableResource[Any]):
    """Objects by key below ``url``. A PUT is atomic: readers see all of it or nothing.

    Every method raises :class:`~speech.errors.StoreError` when the store cannot be reached.
    """

    url: str = Field(description="Root of all that the platform writes: file:///…, s3://bucket/prefix, …")
    _client: ObjectStore | None = PrivateAttr(default=None)

    @property
    def client(self) -> ObjectStore:
        """The obstore client; S3 settings come from the usual ``AWS_*`` variables."""
        if self._client is None:
            with self._told("", "open"):
                if folder := local_path(self.url):
                    # Not by URL: "#" and "%" are plain characters in a folder's name.
                    self._client = LocalStore(folder, mkdir=True)
                else:
                    plain_http = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
                    timeout = timedelta(seconds=ANSWER_S)
                    self._client = from_url(
                        self.url, client_options={"allow_http": plain_http, "timeout": timeout}
                    )
        return self._client

    def put(self, key: str, data: bytes | Path) -> str:
        """Write an object, replacing what was there; returns its ETag."""
        with self._told(key, "write"):
            return _again(lambda: obstore.put(self.client, key, data))["e_tag"] or ""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False when there is another one already.

        Where these very bytes are there they are ours: the answer was lost after they were written. Should
        two have written the same at once, then what either wanted is there, once, and both are told so.
        """

        def created() -> bool:
            try:
                obstore.put(self.client, key, data, mode="create")
            except AlreadyExistsError as error:
                there = self.get(key)
                if there is None:  # S3 says so, too, while another writer is at it, who may yet fail
                    raise GenericError(first_line(error)) from error
                return there == data
            return True

        with self._told(key, "write"):
            return _again(created)

    def get(self, key: str) -> bytes | None:
        """An object's bytes; None when there is no such object."""
        with self._told(key, "read"):
            try:
                return _again(lambda: bytes(obstore.get(self.client, key).bytes()))
            except FileNotFoundError:
                return None

    def open(self, key: str) -> io.BufferedReader | None:
        """A seekable file that reads only the ranges asked for; None when there is no such object."""
        with self._told(key, "read"):
            try:
                size = _again(lambda: obstore.head(self.client, key))["size"]
            except FileNotFoundError:
                return None
            return io.BufferedReader(_ObjectFile(partial(self._range, key), size), 1 << 16)

    def _range(self, key: str, start: int, length: int) -> Buffer:
        with self._told(key, "read"):
            return _again(lambda: obstore.get_range(self.client, key, start=start, length=length))

    def link(self, key: str) -> str | None:
        """A URL under which a browser finds the object for an hour; None for a folder, which has none."""
        if not isinstance(self.client, S3Store | GCSStore | AzureStore):
            return None
        with self._told(key, "sign a link to"):
            return str(obstore.sign(self.client, "GET", key, timedelta(hours=1)))

    def head(self, key: str) -> StoredObject | None:
        """An object's size and ETag; None when there is no such object."""
        with self._told(key, "read"):
            try:
                meta = _again(lambda: obstore.head(self.client, key))
            except FileNotFoundError:
                return None
            return StoredObject(meta["path"], meta["e_tag"] or "", meta["size"])

    def list(self, prefix: str, after: str | None = None) -> Iterator[StoredObject]:
        """All objects below a folder, from the one after ``after``; order as the store gives it."""

        def listed() -> list[StoredObject]:  # all of them: a listing that broke off is begun anew
            pages = obstore.list(self.client, prefix=prefix.rstrip("/"), offset=after)
            return [StoredObject(m["path"], m["e_tag"] or "", m["size"]) for page in pages for m in page]

        with self._told(prefix, "list"):
            yield from _again(listed)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        with self._told(key, "delete"):
            try:
                _again(lambda: obstore.delete(self.client, key))
            except FileNotFoundError:
                return

    def delete_below(self, folder: str) -> None:
        """Remove every object below a folder."""
        for found in list(self.list(folder)):
            self.delete(found.key)

    @contextmanager
    def as_local_file(self, key: str) -> Iterator[Path]:
        """The object as a local file: itself in a folder store, else a temporary copy.

        Raises :class:`~speech.errors.StoreError` when there is no such object.
        """
        folder = local_path(self.url)
        if folder and (folder / key).is_file():
            yield folder / key
            return
        with tempfile.TemporaryDirectory(prefix="asr-") as scratch:
            yield self.fetch(key, Path(scratch) / "object")

    def fetch(self, key: str, path: Path) -> Path:
        """Copy an object to a local file, in pieces; returns the path."""

        def fetched() -> None:
            with path.open("wb") as file:
                for chunk in obstore.get(self.client, key).stream():
                    file.write(chunk)

        with self._told(key, "read"):
            try:
                _again(fetched)
            except FileNotFoundError as error:
                raise StoreError(f"{self.url}: {key} is missing from the store") from error
        return path

    @contextmanager
    def _told(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # From None: S3's answer is in the error, and repeats a token that has expired.
            raise StoreError(
                f"cannot {what} {self.url}/{key}: {_said(error)}; check ASR_STORE_URL and its credentials"
            ) from None


def _said(error: BaseException) -> str:
    """An error in a line; of an answer of S3's in it no more than the code."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return first_line(error).partition("<")[0] + (code[1] if code else "")


def _again(ask: Callable[[], T]) -> T:
    """The answer of what may be asked twice.

    obstore asks again by itself where a read or a PUT was refused or broke off; not where a listing did, nor
    for what it takes to be done once: to create, to delete.
    """
    until = time.monotonic() + PATIENCE_S
    for wait_s in WAITS_S:
        try:
            return ask()
        except GenericError:
            if time.monotonic() > until:
                raise
            time.sleep(wait_s)
    return ask()


class _ObjectFile(io.RawIOBase):
    """An object as a file, by ranges: what a Parquet reader needs to read a footer alone."""

    def __init__(self, read: Callable[[int, int], Buffer], size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        length = min(len(view), self._size - self._at)
        if length > 0:
            view[:length] = self._read(self._at, length)
            self._at += length
        return max(0, length)
