"""The store: everything the platform writes, under one root URL (a folder, S3, GCS or Azure)."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from dagster import ConfigurableResource
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url
from pydantic import Field, PrivateAttr
from typing_extensions import Buffer

from resources.settings import local_path
from speech.errors import StoreError, first_line


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
                    self._client = from_url(self.url, client_options={"allow_http": plain_http})
        return self._client

    def put(self, key: str, data: bytes | Path) -> str:
        """Write an object, replacing what was there; returns its ETag."""
        with self._told(key, "write"):
            return obstore.put(self.client, key, data)["e_tag"] or ""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False when there is one already."""
        with self._told(key, "write"):
            try:
                obstore.put(self.client, key, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def get(self, key: str) -> bytes | None:
        """An object's bytes; None when there is no such object."""
        with self._told(key, "read"):
            try:
                return bytes(obstore.get(self.client, key).bytes())
            except FileNotFoundError:
                return None

    def open(self, key: str) -> io.BufferedReader | None:
        """A seekable file that reads only the ranges asked for; None when there is no such object."""
        with self._told(key, "read"):
            try:
                size = obstore.head(self.client, key)["size"]
            except FileNotFoundError:
                return None
            return io.BufferedReader(_ObjectFile(self.client, key, size), 1 << 16)

    def head(self, key: str) -> StoredObject | None:
        """An object's size and ETag; None when there is no such object."""
        with self._told(key, "read"):
            try:
                meta = obstore.head(self.client, key)
            except FileNotFoundError:
                return None
            return StoredObject(meta["path"], meta["e_tag"] or "", meta["size"])

    def list(self, prefix: str, after: str | None = None) -> Iterator[StoredObject]:
        """All objects below a folder, from the one after ``after``; order as the store gives it."""
        with self._told(prefix, "list"):
            for page in obstore.list(self.client, prefix=prefix.rstrip("/"), offset=after):
                for meta in page:
                    yield StoredObject(meta["path"], meta["e_tag"] or "", meta["size"])

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        with self._told(key, "delete"):
            try:
                obstore.delete(self.client, key)
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
        with self._told(key, "read"):
            try:
                with path.open("wb") as file:
                    for chunk in obstore.get(self.client, key).stream():
                        file.write(chunk)
            except FileNotFoundError as error:
                raise StoreError(f"{self.url}: {key} is missing from the store") from error
        return path

    @contextmanager
    def _told(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            said = first_line(error)
            raise StoreError(
                f"cannot {what} {self.url}/{key}: {said}; check ASR_STORE_URL and its credentials"
            ) from error


class _ObjectFile(io.RawIOBase):
    """An object as a file, by ranges: what a Parquet reader needs to read a footer alone."""

    def __init__(self, client: ObjectStore, key: str, size: int) -> None:
        self._client, self._key, self._size, self._at = client, key, size, 0

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
            view[:length] = obstore.get_range(self._client, self._key, start=self._at, length=length)
            self._at += length
        return max(0, length)
