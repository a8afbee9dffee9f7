"""What is observed at the source, one by one and as a table."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from resources.numbered_log import Entry


class Kind(StrEnum):
    """What was observed. Current is the latest observation of a key."""

    NEW = "new"
    """A version that was never seen before."""
    AGAIN = "again"
    """A version that is known, and had been superseded or deleted since."""
    DELETED = "deleted"
    """The key is gone; the version is the one that was there."""
    ERASING = "erasing"
    """Every trace of this version is being removed; it must not be taken in again."""
    ERASED = "erased"
    """Every trace of this version is removed, but for its id."""


class Video(BaseModel, frozen=True):
    """One object of the source in one version."""

    source: str
    key: str
    version: str
    size_bytes: int
    modified_at: datetime

    @property
    def video_id(self) -> str:
        """128 bits over source, key and version, as 32 hex digits."""
        return self.ids.version.hex()

    @cached_property
    def ids(self) -> "Ids":
        """What the index knows it by; asked for many times."""
        return Ids(key_id(self.source, self.key), version_id(self.source, self.key, self.version))


class Ids(NamedTuple):
    """128 bits each: over source and key, and over source, key and version."""

    key: bytes
    version: bytes


def key_id(source: str, key: str) -> bytes:
    """128 bits that stand for a key in its source."""
    return _hash(source, key)


def version_id(source: str, key: str, version: str) -> bytes:
    """128 bits that stand for one version of a key."""
    return _hash(source, key, version)


def _hash(*parts: str) -> bytes:
    # Their lengths keep the parts apart: no two different ones give the same text. A file's name may hold
    # bytes that are no text.
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def batch_key(number: int) -> str:
    """The partition key of the batch that an entry of the ingest log is."""
    return f"{number:08d}"


class IngestEntry(Entry, frozen=True):
    """One entry of the ingest log; its new videos are a batch."""

    observed_at: datetime
    videos: tuple[Video, ...] = ()
    seen_again: tuple[Video, ...] = ()
    deleted: tuple[Video, ...] = ()
    erasing: tuple[str, ...] = ()
    erased: tuple[str, ...] = ()
    named_in: tuple[int, ...] = ()
    """The entries that named what is being erased, for whoever has to go on with it."""

    @property
    def batch(self) -> str | None:
        """The partition key; None for an entry without new videos."""
        return batch_key(self.number) if self.videos else None

    def observations(self) -> Iterator[dict[str, Any]]:
        """As rows of :data:`OBSERVATIONS`."""
        about = {"number": self.number, "observed_at": self.observed_at}
        for kind, videos in (
            (Kind.NEW, self.videos),
            (Kind.AGAIN, self.seen_again),
            (Kind.DELETED, self.deleted),
        ):
            for video in videos:
                yield about | {"kind": kind, "video_id": video.video_id} | video.model_dump()
        for kind, ids in ((Kind.ERASING, self.erasing), (Kind.ERASED, self.erased)):
            yield from (about | {"kind": kind, "video_id": video_id} for video_id in ids)


OBSERVATIONS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("observed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        # Of what was erased nothing but the id is left.
        pa.field("source", pa.string()),
        pa.field("key", pa.string()),
        pa.field("version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""A row an observation, in the order of the log. An entry without any has no row."""


def as_table(entries: Iterable[IngestEntry]) -> pa.Table:
    """Entries as a table in :data:`OBSERVATIONS`."""
    return pa.Table.from_pylist([row for entry in entries for row in entry.observations()], OBSERVATIONS)


def encode(table: pa.Table) -> bytes:
    """The Parquet file of a table: the same bytes for the same rows."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def decode(data: bytes) -> pa.Table:
    """What :func:`encode` made. Raises ``pyarrow.ArrowException`` for anything else."""
    return pq.read_table(io.BytesIO(data), schema=OBSERVATIONS)
