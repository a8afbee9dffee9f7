"""``asr erase``: every trace of a video, out of the store, the warehouse and the readers' copies.

First the ingest log says what is being erased, so that nobody takes it in again, then the entries that
name it are rewritten, so that no new run has it, then all that was made of it. Then a load makes the
warehouse anew, and last the log says that it is done. Killed anywhere, the next erasure goes on with it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from resources import layout
from resources.ingest_log import CHECKPOINT_ENTRIES, IngestLog
from resources.observations import IngestEntry, Kind, batch_key
from resources.published import (
    AttemptsBatch,
    ExtractedBatch,
    JsonObject,
    ProbedBatch,
    PublishedTranscripts,
)
from resources.retries import Pending
from resources.store import Store
from speech.errors import AsrError

Rewriter: TypeAlias = Callable[[Store, str, frozenset[str]], None]
"""Takes videos out of one object of the store."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Where some videos are named: their ids, the numbers of the entries with them, and their keys."""

    video_ids: frozenset[str] = frozenset()
    entries: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, log: IngestLog, source: str, keys: Collection[str]) -> "Traces":
        """All versions of these keys of a source, and those of erasures that were cut off."""
        open_ids = set(log.being_erased())
        ids, entries, found = set(open_ids), set[int](), set[str]()
        for table in log.tables(0):
            erasing = table.filter(pc.is_in(table["video_id"], pa.array(list(open_ids), pa.string())))
            begun = erasing.filter(pc.equal(erasing["kind"], Kind.ERASING.value))
            for number in set(begun["number"].to_pylist()):
                entries.update(log.entry(number).named_in)
            named = table.filter(
                pc.and_(
                    pc.is_in(table["key"], pa.array(keys, pa.string())), pc.equal(table["source"], source)
                )
            )
            ids.update(named["video_id"].to_pylist())
            entries.update(named["number"].to_pylist())
            found.update(named["key"].to_pylist())
        return cls(frozenset(ids), frozenset(entries), frozenset(found))

    def __le__(self, other: "Traces") -> bool:
        return self.video_ids <= other.video_ids and self.entries <= other.entries

    def __or__(self, other: "Traces") -> "Traces":
        return Traces(self.video_ids | other.video_ids, self.entries | other.entries, self.keys | other.keys)

    @property
    def batches(self) -> list[str]:
        """The batches that these entries are."""
        return [batch_key(number) for number in sorted(self.entries)]

    def named_in(self, key: str) -> bool:
        """Whether an object of the store is about one of these batches."""
        return any(f"batch={batch}" in key for batch in self.batches)


def begin(store: Store, log: IngestLog, source: str, keys: Collection[str]) -> Traces:
    """Take the videos out of the ingest log for good; where else their traces are to be removed.

    Raises :class:`~speech.errors.AsrError` for a key that was never seen.
    """
    log.catch_up()
    traces, found = Traces(), Traces.of(log, source, keys)
    unknown = sorted(set(keys) - found.keys)
    if unknown and not log.being_erased():  # of what an erasure has begun with, no key is known
        raise AsrError(
            f"{unknown[0]!r} is the key of no video of {source} that was ever taken in; asr sql lists them"
        )
    # Once the log has said it nobody adds to these; whoever was faster is found the next time round.
    while not found <= traces:
        traces |= found
        log.erase(traces.video_ids, traces.entries, done=False)
        found = Traces.of(log, source, keys)
    for number in sorted(traces.entries):
        entry = _without(log.entry(number), traces.video_ids)
        store.put(layout.numbered(layout.INGEST, number), entry.model_dump_json().encode())
        store.delete(layout.checkpoint(-(-number // CHECKPOINT_ENTRIES) * CHECKPOINT_ENTRIES))
    return traces


def remove(store: Store, traces: Traces) -> None:
    """Remove from the store what was made of the videos; nobody may be at work on their batches."""
    for folder, rewrite in _REWRITERS.items():
        for key in [found.key for found in store.list(folder)]:
            if traces.named_in(key):
                rewrite(store, key, traces.video_ids)
    for video_id in traces.video_ids:
        store.delete(layout.audio(video_id))
    remove_verdicts(store, traces)
    store.delete_below(layout.DEAD_LETTERS)  # whose keys they hold cannot be told
    store.delete(layout.LISTING)


def remove_verdicts(store: Store, traces: Traces) -> None:
    """Remove what was judged of the videos; once more when no copy has them that somebody could judge by."""
    for key in [found.key for found in store.list(layout.VERDICTS)]:
        if any(f"video={video_id}/" in key for video_id in traces.video_ids):
            store.delete(key)


def remove_comparisons(store: Store, traces: Traces) -> None:
    """Remove how model versions differ in these batches, and what was summed up; nobody may be comparing."""
    for key in [found.key for found in store.list(layout.COMPARISONS)]:
        if traces.named_in(key):
            store.delete(key)
    store.delete_below(layout.SUMMARIES)  # by what sidecars say
    store.delete_below(layout.REPORTS)  # with what was said


def _without(entry: IngestEntry, ids: frozenset[str]) -> IngestEntry:
    kept = {
        name: tuple(video for video in getattr(entry, name) if video.video_id not in ids)
        for name in ("videos", "seen_again", "deleted")
    }
    return entry.model_copy(update=kept)


def _out_of_parquet(store: Store, key: str, ids: frozenset[str]) -> None:
    if published := PublishedTranscripts.read(store, key):
        kept = tuple(outcome for outcome in published.head.outcomes if outcome.video_id not in ids)
        gone = pc.is_in(published.words["video_id"], pa.array(list(ids), pa.string()))
        rest = PublishedTranscripts(
            published.head.model_copy(update={"outcomes": kept}), published.words.filter(pc.invert(gone))
        )
        store.put(key, rest.encode())


def _out_of_json(kind: type[JsonObject], name: str, id_of: Callable[[Any], str]) -> Rewriter:
    """A rewriter of objects whose field ``name`` has an item a video."""

    def rewrite(store: Store, key: str, ids: frozenset[str]) -> None:
        if found := kind.read(store, key):
            kept = tuple(item for item in getattr(found, name) if id_of(item) not in ids)
            store.put(key, found.model_copy(update={name: kept}).model_dump_json().encode())

    return rewrite


def _out_of_retries(store: Store, key: str, ids: frozenset[str]) -> None:
    if pending := Pending.read(store, key):
        kept = tuple(video_id for video_id in pending.video_ids if video_id not in ids)
        if kept:
            store.put(key, pending.model_copy(update={"video_ids": kept}).model_dump_json().encode())
        else:
            store.delete(key)


def _remove(store: Store, key: str, _: frozenset[str]) -> None:
    store.delete(key)


_of_video = attrgetter("video.video_id")
_REWRITERS: dict[str, Rewriter] = {
    layout.PROBED: _out_of_json(ProbedBatch, "videos", _of_video),
    layout.EXTRACTED: _out_of_json(ExtractedBatch, "videos", _of_video),
    layout.TRANSCRIPTS: _out_of_parquet,
    layout.ATTEMPTS: _out_of_json(AttemptsBatch, "attempts", attrgetter("video_id")),
    layout.RETRIES: _out_of_retries,
    layout.CONVERSIONS: _remove,  # these can be done again
    layout.UNFINISHED: _remove,
}
