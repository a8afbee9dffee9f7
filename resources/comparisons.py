"""What the comparison of two model versions publishes in the store, and the form it has there.

A pair has one Parquet object a batch: a row a video, with a list of the places where the two differ. It is
made from three other objects, and its key says of which states of them: what was made of others is stale.
Over all videos there is one summary.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from resources import layout
from resources.published import JsonObject
from resources.store import Store
from speech.errors import StoreError

COMPARISON_VERSION = 2
"""Raise it when our own code compares otherwise."""

_METADATA_KEY = b"asr"
_WORDS = pa.int32()
_MILLISECONDS = pa.list_(pa.int32())
_BINS = pa.struct(
    [("words", pa.list_(_WORDS)), ("probability", pa.list_(pa.float64())), ("right", pa.list_(_WORDS))]
)

BY_VIDEO = pa.schema(
    [
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("conditions", pa.map_(pa.string(), pa.string())),
        ("reference_words", _WORDS),
        *(
            (f"{edits}_{side}", _WORDS)
            for side in "ab"
            for edits in ("substitutions", "deletions", "insertions")
        ),
        ("reference_characters", _WORDS),
        ("character_errors_a", _WORDS),
        ("character_errors_b", _WORDS),
        ("words_a", _WORDS),
        ("words_b", _WORDS),
        ("edits", _WORDS),
        ("start_differences_ms", _MILLISECONDS),
        ("start_errors_a_ms", _MILLISECONDS),
        ("start_errors_b_ms", _MILLISECONDS),
        ("confidence_a", _BINS),
        ("confidence_b", _BINS),
        ("log2_likelihood_a", pa.float64()),
        ("log2_likelihood_b", pa.float64()),
    ]
)
DIFF = pa.struct(
    [("word_a", pa.string()), ("word_b", pa.string()), ("start_s", pa.float64()), ("is_right", pa.string())]
)


class Pair(NamedTuple):
    """Two model versions; A is the one that B is measured against."""

    a: str
    b: str

    @property
    def is_turned(self) -> bool:
        """Whether B's name comes first: by it language and verdicts are chosen, whoever is champion."""
        return self.b < self.a


class ComparedHead(BaseModel, frozen=True):
    """The metadata of a batch's comparison."""

    model_a: str
    model_b: str
    fingerprint_a: str
    fingerprint_b: str
    normalizer: str
    batch: str


class ComparedBatch:
    """A batch's comparison: ``head``, and :data:`BY_VIDEO` with a column ``diff``, a list of :data:`DIFF`."""

    def __init__(self, head: ComparedHead, videos: pa.Table) -> None:
        self.head, self.videos = head, videos

    @classmethod
    def build(cls, head: ComparedHead, rows: Sequence[dict[str, Any]]) -> "ComparedBatch":
        """From rows by name of column."""
        return cls(head, pa.Table.from_pylist(list(rows), BY_VIDEO.append(pa.field("diff", pa.list_(DIFF)))))

    def encode(self) -> bytes:
        """The object's bytes: the same for the same content."""
        out = io.BytesIO()
        metadata = {_METADATA_KEY: self.head.model_dump_json().encode()}
        pq.write_table(self.videos.replace_schema_metadata(metadata), out, compression="zstd")
        return out.getvalue()

    @classmethod
    def read(cls, store: Store, key: str) -> "ComparedBatch | None":
        """None when there is no such object."""
        data = store.get(key)
        if data is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(data))
            return cls(ComparedHead.model_validate_json((table.schema.metadata or {})[_METADATA_KEY]), table)
        except (pa.ArrowException, KeyError, ValidationError) as error:
            raise StoreError(f"{store.url}/{key} is damaged: delete it and compare again") from error


class Summary(JsonObject, frozen=True):
    """All rows of the table ``comparison`` of a pair, by name of column."""

    model_a: str
    model_b: str
    rows: tuple[dict[str, Any], ...]


def made_from(states: Iterable[str]) -> str:
    """A short name of the states (ETags) of what a comparison was made from."""
    return hashlib.blake2b("|".join(states).encode(), digest_size=8).hexdigest()


def publish(store: Store, batch: ComparedBatch, states: str) -> None:
    """Publish a batch's comparison in place of a former one."""
    head = batch.head
    pair = Pair(head.model_a, head.model_b)
    # First: of two of a batch nobody could tell which is to be believed.
    store.delete_below(layout.compared_batch(*pair, head.batch))
    store.put(layout.compared(*pair, head.batch, states), batch.encode())
