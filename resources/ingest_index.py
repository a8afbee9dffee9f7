"""Which versions of which keys are known and which are current: tens of millions of them in one process.

Keys and versions are 128-bit hashes in an SQLite database in memory, at some 60 bytes a video. Python's
own containers take several times as much.
"""

import sqlite3
from typing import Any, NamedTuple


class Known(NamedTuple):
    """What is known of a key: the version that is there (None: it is gone, or was never seen), the number of
    the newest entry about it, and the batch in which that version was new (0: none).
    """

    video_id: bytes | None = None
    number: int = 0
    batch: int = 0


class IngestIndex:
    """What all observations so far add up to, by key_id and video_id (16 bytes each).

    ``current`` has a row a key that was ever seen: its version now (NULL: it is gone), the entry that said
    so, the batch in which that version was new.
    """

    def __init__(self) -> None:
        # Whoever uses it from several threads holds a lock of its own.
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        # One transaction that never ends: to commit, SQLite looks through all pages of a database in memory,
        # so that each insertion would cost the more the more there is.
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF;
            BEGIN;
            CREATE TABLE current (
                key_id BLOB PRIMARY KEY, video_id BLOB, number INTEGER NOT NULL, batch INTEGER NOT NULL,
                look INTEGER NOT NULL DEFAULT 0, source INTEGER NOT NULL
            ) WITHOUT ROWID;
            CREATE INDEX returned ON current (video_id) WHERE number > batch AND video_id IS NOT NULL;
            CREATE TABLE former (video_id BLOB PRIMARY KEY, batch INTEGER NOT NULL) WITHOUT ROWID;
            """
        )
        self._sources: dict[str, int] = {}
        self._erased: dict[bytes, bool] = {}  # few: each was asked for by somebody

    def put(self, source: str, key_id: bytes, video_id: bytes | None, number: int) -> bool:
        """Entry ``number`` of the log says that a key is there in this version; None: that it is gone.

        Whether the version was known before.
        """
        before = self.get(key_id)
        if before.video_id is not None and before.video_id != video_id:
            self._db.execute("INSERT OR IGNORE INTO former VALUES (?, ?)", (before.video_id, before.batch))
        known, batch = before.video_id == video_id, before.batch
        if video_id is not None and not known:
            former = self._one("SELECT batch FROM former WHERE video_id = ?", video_id)
            known = former is not None
            (batch,) = former or (number,)
        self._db.execute(
            "INSERT INTO current (key_id, video_id, number, batch, source) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET video_id = excluded.video_id, number = excluded.number, "
            "batch = excluded.batch",
            (key_id, video_id, number, batch, self._source(source)),
        )
        return known

    def _source(self, name: str) -> int:
        return self._sources.setdefault(name, len(self._sources))

    def get(self, key_id: bytes) -> Known:
        """What is known of a key."""
        row = self._one("SELECT video_id, number, batch FROM current WHERE key_id = ?", key_id)
        return Known(*row) if row else Known()

    def is_former(self, video_id: bytes) -> bool:
        """Whether a version was current once, and then was not."""
        return self._one("SELECT 1 FROM former WHERE video_id = ?", video_id) is not None

    def returned_in(self, video_id: bytes) -> int:
        """The entry by which a version that is current is there again; 0 when it never went away."""
        row = self._one("SELECT number FROM current WHERE video_id = ? AND number > batch", video_id)
        return row[0] if row else 0

    def erase(self, video_id: bytes, done: bool) -> None:
        """A version must never come back; ``done`` when nothing is left of it."""
        self._erased[video_id] = done

    def is_erased(self, video_id: bytes) -> bool:
        """Whether a version was erased, or is being erased."""
        return video_id in self._erased

    def erasures(self) -> int:
        """How many versions were erased, or are being erased."""
        return len(self._erased)

    def being_erased(self) -> list[str]:
        """Versions whose traces may not all be removed yet."""
        return [video_id.hex() for video_id, done in self._erased.items() if not done]

    def look_at(self, key_id: bytes, look: int) -> None:
        """Note that look number ``look`` through the source came upon a key, in whatever version."""
        self._db.execute("UPDATE current SET look = ? WHERE key_id = ?", (look, key_id))

    def overlooked(self, source: str, look: int, after: int, tail: int, limit: int) -> list[tuple[int, str]]:
        """Current versions that the look did not come upon: number and id, in the order of numbers.

        Of entries after number ``after`` and up to ``tail``; as many as ``limit``, and the rest of the last
        entry.
        """
        which = "FROM current WHERE source = ? AND look <> ? AND video_id IS NOT NULL AND number"
        key = (self._source(source), look)
        last = self._one(
            f"SELECT number {which} > ? AND number <= ? ORDER BY number LIMIT 1 OFFSET ?",
            *(*key, after, tail, limit),
        )
        found = self._db.execute(
            f"SELECT number, video_id {which} > ? AND number <= ? ORDER BY number",
            (*key, after, last[0] if last else tail),
        )
        return [(number, video_id.hex()) for number, video_id in found]

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return row
