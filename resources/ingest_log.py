"""The ingest log: the ledger of what was ingested, superseded, deleted and erased."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby, islice
from math import inf
from threading import RLock
from typing import Any

import pyarrow as pa

from resources import layout
from resources.ingest_index import IngestIndex, Known
from resources.numbered_log import NumberedLog
from resources.observations import (
    IngestEntry,
    Kind,
    Video,
    as_table,
    batch_key,
    decode,
    encode,
    key_id,
    version_id,
)
from resources.store import Store
from speech.errors import StoreError
from speech.types import Seconds

CHECKPOINT_ENTRIES = 1000
"""Entries in one checkpoint: a fixed range each, so that any number of writers make the same ones."""

_NEEDED = ("kind", "source", "key", "video_id", "number")


class IngestLog:
    """The log and what follows from it: which videos are known, and which are current.

    ``batches`` are the partition keys of what was read so far, ``doubled`` the ids that were taken in
    as new more than once, which must not happen. May be shared by threads.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = NumberedLog(store, layout.INGEST, IngestEntry)
        self._index = IngestIndex()
        self._lock = RLock()
        self._looks = 0
        self.batches: list[str] = []
        self.doubled: list[str] = []

    @property
    def tail(self) -> int:
        """The number of the newest entry that was read."""
        return self._log.tail

    def catch_up(self, until: Seconds = inf) -> bool:
        """Read to the tail; False when ``time.monotonic()`` has passed ``until`` before that."""
        if not self._lock.acquire(timeout=-1 if until == inf else max(0, until - time.monotonic())):
            return False
        try:
            for number, table in self._checkpoints(self.tail):
                self._take_in(table.select(_NEEDED).to_pylist())
                self._log.tail = number
                if time.monotonic() > until:
                    return False
            for entry in self._log.read_on():
                self._take_in(entry.observations())
                if time.monotonic() > until:
                    return False
        finally:
            self._lock.release()
        return True

    def _checkpoints(self, after: int) -> Iterator[tuple[int, pa.Table]]:
        """Checkpoints of entries that come after number ``after``, and the last number each holds."""
        if after % CHECKPOINT_ENTRIES:
            return  # in the middle of one: entries are read one by one
        former = layout.checkpoint(after) if after else None
        for key in sorted(found.key for found in self._store.list(layout.CHECKPOINTS, former)):
            after += CHECKPOINT_ENTRIES
            if key != layout.checkpoint(after):
                return  # whoever lost one can do without the rest
            data = self._store.get(key)
            try:
                yield after, decode(data or b"")
            except pa.ArrowException as error:
                raise StoreError(
                    f"{self._store.url}/{key} is damaged: delete it, the entries are all there"
                ) from error

    def _take_in(self, observed: Iterable[dict[str, Any]]) -> None:
        """Rows of :data:`~resources.observations.OBSERVATIONS`, of which not all columns are needed."""
        for row in observed:
            kind, number, video_id = row["kind"], row["number"], row["video_id"]
            version = bytes.fromhex(video_id)
            if kind in (Kind.ERASING, Kind.ERASED):
                self._index.erase(version, done=kind == Kind.ERASED)
                continue
            source = row["source"]
            there = None if kind == Kind.DELETED else version
            known = self._index.put(source, key_id(source, row["key"]), there, number)
            if kind == Kind.NEW:
                if known:
                    self.doubled.append(video_id)
                if (batch := batch_key(number)) not in self.batches[-1:]:
                    self.batches.append(batch)

    def is_known(self, video: Video) -> bool:
        """Whether this version of this object was ever ingested (as far as the log has been read)."""
        return self.is_current(video) or self._index.is_former(video.ids.version)

    def is_current(self, video: Video) -> bool:
        """Whether this version is the latest one observed for its key."""
        return self._index.get(video.ids.key).video_id == video.ids.version

    def holds(self, source: str, key: str, version: str) -> bool:
        """Whether a key is current in this version."""
        return self._index.get(key_id(source, key)).video_id == version_id(source, key, version)

    def has_key(self, video: Video) -> bool:
        """Whether the key is there in some version, as far as the log knows."""
        return self._index.get(video.ids.key).video_id is not None

    def is_news(self, video: Video, as_of: int | None = None) -> bool:
        """Whether the log should know that this version is what its key holds now, or held ``as_of``."""
        known = self._index.get(video.ids.key)
        same = known.video_id == video.ids.version
        return not same and not self._is_stale(known, as_of) and not self._index.is_erased(video.ids.version)

    def is_gone(self, video: Video, as_of: int | None) -> bool:
        """Whether the log should know that this version is not there any more."""
        known = self._index.get(video.ids.key)
        same = known.video_id == video.ids.version
        return same and not self._is_stale(known, as_of) and not self._index.is_erased(video.ids.version)

    def unless_erased(self, found: Video | None) -> Video | None:
        """What was found at the source: where a version stands that was erased, nothing does."""
        return None if found is None or self._index.is_erased(found.ids.version) else found

    @staticmethod
    def _is_stale(known: Known, as_of: int | None) -> bool:
        return as_of is not None and known.number > as_of

    def current(self, source: str, key: str) -> Video | None:
        """The version of a key that is current, as far as the log has been read."""
        with self._lock:
            known = self._index.get(key_id(source, key))
        return next(self._videos([(known.number, known.video_id.hex())]), None) if known.video_id else None

    def append(
        self, videos: Sequence[Video], gone: Sequence[Video] = (), as_of: int | None = None
    ) -> IngestEntry | None:
        """Record an observation, as one entry: videos that are there, and videos that are not.

        None when all of it is known already. However many writers offer the same videos, each is new
        in one entry only. ``as_of`` is the log's tail when they were looked at (None: now): what others
        have said about a key since then may be newer, and stays.
        """

        def decide(number: int) -> IngestEntry | None:
            # A listing may name a key twice, when it is overwritten meanwhile: the last one counts.
            latest = {video.ids.key: video for video in videos}.values()
            news = [video for video in latest if self.is_news(video, as_of)]
            there = {video.ids.key for video in news}
            again = {video.ids.key for video in news if self._index.is_former(video.ids.version)}
            deleted = tuple(v for v in gone if v.ids.key not in there and self.is_gone(v, as_of))
            if not news and not deleted:
                return None
            return IngestEntry(
                number=number,
                observed_at=datetime.now(UTC),
                videos=tuple(video for video in news if video.ids.key not in again),
                seen_again=tuple(video for video in news if video.ids.key in again),
                deleted=deleted,
            )

        with self._lock:
            entry = self._log.append(decide, self.catch_up)
            self._take_in(entry.observations() if entry else ())
        return entry

    def seen_again(self, video_ids: Iterable[str]) -> int:
        """The newest entry by which one of these versions is current once more; 0 when none is."""
        with self._lock:
            return max((self._index.returned_in(bytes.fromhex(each)) for each in video_ids), default=0)

    def erase(self, video_ids: Collection[str], named_in: Collection[int], done: bool) -> None:
        """Record that every trace of these versions is being removed, or that this is ``done``.

        ``named_in`` are the numbers of the entries that name them.
        """

        def decide(number: int) -> IngestEntry:
            ids = tuple(sorted(video_ids))
            return IngestEntry(
                number=number,
                observed_at=datetime.now(UTC),
                erasing=() if done else ids,
                erased=ids if done else (),
                named_in=tuple(sorted(named_in)),
            )

        with self._lock:
            entry = self._log.append(decide, self.catch_up)
            self._take_in(entry.observations() if entry else ())

    def being_erased(self) -> list[str]:
        """Ids of versions of which an erasure has begun, as far as is known, and not ended."""
        with self._lock:
            return self._index.being_erased()

    def begin_look(self) -> int:
        """The number of a new look through the whole source, for :meth:`looked_at` and :meth:`overlooked`."""
        with self._lock:
            self._looks += 1
            return self._looks

    def looked_at(self, video: Video, look: int) -> None:
        """The look came upon this key."""
        with self._lock:
            self._index.look_at(video.ids.key, look)

    def overlooked(self, source: str, look: int, tail: int) -> Iterator[list[Video]]:
        """Current videos of a source, from entries up to ``tail``, whose keys the look did not come upon.

        In lists of 20 000 or so: each takes a pass over the whole index.
        """
        after = 0
        while True:
            with self._lock:
                missed = self._index.overlooked(source, look, after, tail, limit=20_000)
            if not missed:
                return
            yield list(self._videos(missed))
            after = missed[-1][0]

    def _videos(self, found: Iterable[tuple[int, str]]) -> Iterator[Video]:
        """The videos of numbers and ids, as the index gives them."""
        for number, ids in groupby(found, key=lambda numbered: numbered[0]):
            wanted = {video_id for _, video_id in ids}
            entry = self.entry(number)
            yield from (v for v in entry.videos + entry.seen_again if v.video_id in wanted)

    def entry(self, number: int) -> IngestEntry:
        """One entry. Raises :class:`~speech.errors.StoreError` if there is none."""
        if entry := self._log.entry(number):
            return entry
        raise StoreError(f"entry {number} is missing from the ingest log of {self._store.url}: restore it")

    def batch(self, batch: str) -> IngestEntry:
        """The entry behind a partition key. Raises :class:`~speech.errors.StoreError` if there is none."""
        entry = self._log.entry(int(batch)) if batch.isdecimal() else None
        if entry is None:
            raise StoreError(f"batch {batch!r} is not in the ingest log of {self._store.url}")
        return entry

    def tables(self, after: int) -> Iterator[pa.Table]:
        """All observations of entries with a higher number, in order, a bounded number of rows at a time."""
        for number, table in self._checkpoints(after):
            yield table
            after = number
        log = NumberedLog(self._store, layout.INGEST, IngestEntry)
        log.tail = after
        while entries := list(islice(log.read_on(), CHECKPOINT_ENTRIES)):
            yield as_table(entries)

    def write_checkpoints(self) -> int:
        """Make reading cheap: sum up every full thousand of entries as one object; how many were written."""
        written = 0
        known = {found.key for found in self._store.list(layout.CHECKPOINTS)}
        for last in range(CHECKPOINT_ENTRIES, self.tail + 1, CHECKPOINT_ENTRIES):
            key = layout.checkpoint(last)
            if key in known:
                continue
            erasures = self._index.erasures()
            # Read anew: an entry may have been rewritten since this process has seen it.
            entries = map(self.entry, range(last - CHECKPOINT_ENTRIES + 1, last + 1))
            written += self._store.create(key, encode(as_table(entries)))
            self.catch_up()
            if self._index.erasures() != erasures:
                self._store.delete(key)  # it may hold what was erased meanwhile; next time
        return written


@lru_cache(maxsize=1)
def shared_log(url: str) -> IngestLog:
    """The log of a store, read once for all ticks of a process; each tick only reads on."""
    return IngestLog(Store(url=url))
