"""The ingest log: the ledger of what was ingested, superseded and deleted."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

from resources import layout
from resources.numbered_log import Entry, NumberedLog
from resources.store import Store
from speech.errors import StoreError


class Video(BaseModel, frozen=True):
    """One object of the source in one version."""

    source: str
    key: str
    version: str
    size_bytes: int
    modified_at: datetime

    @property
    def video_id(self) -> str:
        """128 bits over source, key and version, as 32 hex digits.

        JSON keeps the three apart: no two different triples give the same text.
        """
        identity = json.dumps([self.source, self.key, self.version]).encode()
        return hashlib.blake2b(identity, digest_size=16).hexdigest()


class IngestEntry(Entry, frozen=True):
    """One entry: new videos make it a batch; ``seen_again`` are known ones that became current again.

    Current is the latest observation of a key.
    """

    observed_at: datetime
    videos: tuple[Video, ...] = ()
    seen_again: tuple[Video, ...] = ()

    @property
    def batch(self) -> str | None:
        """The partition key; None for an entry without new videos."""
        return f"{self.number:08d}" if self.videos else None


class IngestLog:
    """The log and what follows from it: which videos are known, and which are current."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = NumberedLog(store, layout.INGEST, IngestEntry)
        self._known: set[str] = set()
        self._current: dict[tuple[str, str], str] = {}
        self.batches: list[str] = []

    def catch_up(self) -> None:
        """Read to the tail."""
        for entry in self._log.read_on():
            for video in entry.videos + entry.seen_again:
                self._known.add(video.video_id)
                self._current[video.source, video.key] = video.video_id
            if entry.batch:
                self.batches.append(entry.batch)

    def is_known(self, video: Video) -> bool:
        """Whether this version of this object was ever ingested (as far as the log has been read)."""
        return video.video_id in self._known

    def is_current(self, video: Video) -> bool:
        """Whether this version is the latest one observed for its key."""
        return self._current.get((video.source, video.key)) == video.video_id

    def append(self, videos: Sequence[Video]) -> IngestEntry | None:
        """Record an observation of videos, as one entry; None when all of it is known already.

        However many writers offer the same videos, each is new in one entry only.
        """

        def decide(number: int) -> IngestEntry | None:
            news = [video for video in videos if not self.is_current(video)]
            if not news:
                return None
            return IngestEntry(
                number=number,
                observed_at=datetime.now(UTC),
                videos=tuple(video for video in news if not self.is_known(video)),
                seen_again=tuple(video for video in news if self.is_known(video)),
            )

        entry = self._log.append(decide, self.catch_up)
        self.catch_up()
        return entry

    def batch(self, batch: str) -> IngestEntry:
        """The entry behind a partition key. Raises :class:`~speech.errors.StoreError` if there is none."""
        data = self._store.get(layout.numbered(layout.INGEST, int(batch))) if batch.isdecimal() else None
        if data is None:
            raise StoreError(f"batch {batch!r} is not in the ingest log of {self._store.url}")
        return IngestEntry.model_validate_json(data)

    def entries(self, after: int) -> Iterable[IngestEntry]:
        """All entries with a higher number, in order."""
        log = NumberedLog(self._store, layout.INGEST, IngestEntry)
        log.tail = after
        return log.read_on()
