"""From the store into DuckDB: what is published there and not loaded here yet.

Every step is one transaction with its ledger rows, so a kill leaves all of it or nothing, and the
next load goes on from what the ledger says. Loading an object again replaces what it brought.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from resources import layout
from resources.champions import champion_log
from resources.comparisons import ComparedBatch, Summary
from resources.ingest_log import IngestLog
from resources.published import (
    AttemptsBatch,
    ExtractedBatch,
    ExtractedVideo,
    PublishedTranscripts,
    TranscriptsHead,
)
from resources.spoken import segments_of, words_of
from resources.store import Store, StoredObject
from speech.errors import StoreError
from speech.media import AudioInfo, MediaInfo

POSTINGS_RUN = 4_000_000
"""Words in a sorted run of postings, at least. A search looks through the words that are in none yet (30 row
groups), and through a row group or two of each run: 25 runs for a hundred million words."""

READERS = 8
"""Objects read at once."""

T = TypeVar("T")


class Loader:
    """One load over one connection. ``objects`` counts what it has loaded so far."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self._db, self._store = connection, store
        self._steps: dict[str, Callable[[list[str]], None]] = {
            layout.EXTRACTED: self._load_extracted,
            layout.TRANSCRIPTS: self._load_transcripts,
            layout.ATTEMPTS: self._load_attempts,
            layout.COMPARISONS: self._load_comparisons,
            layout.SUMMARIES: self._load_summaries,
        }
        self.objects = 0

    def newest_load(self) -> int:
        """The number of the newest load that brought anything; 0 when there was none."""
        return self.number("SELECT coalesce(max(load), 0) FROM load_ledger")

    def ingested_through(self) -> int:
        """The number of the newest entry of the ingest log that is in here; 0 before the first."""
        newest = self._db.execute(
            "SELECT max(object) FROM load_ledger WHERE starts_with(object, ?)", [f"{layout.INGEST}/"]
        ).fetchone()
        return int(PurePath(newest[0]).stem) if newest and newest[0] else 0

    def holds_erased(self) -> bool:
        """Whether a video is in here of which no trace must be left."""
        return self.number("SELECT count(*) FROM videos SEMI JOIN erased USING (video_id)") > 0

    def identity(self) -> str:
        """Which DuckDB file this is."""
        (name,) = self._db.execute("SELECT warehouse FROM identity").fetchone() or ("",)
        return str(name)

    def not_loaded(self) -> list[StoredObject]:
        """Published objects that the ledger does not have in their present state."""
        ledger = dict(self._db.execute("SELECT object, etag FROM load_ledger").fetchall())
        return [
            found
            for folder in self._steps
            for found in sorted(self._store.list(folder), key=lambda found: found.key)
            if ledger.get(found.key) != found.etag
        ]

    def load_ingest_log(self) -> None:
        """New entries of the ingest log, as videos and observations."""
        for table in IngestLog(self._store).tables(self.ingested_through()):
            newest = table["number"][-1].as_py()
            with self._transaction({layout.numbered(layout.INGEST, newest): ""}):
                self._db.register("incoming", table)
                # A video that is seen again is known already, and keeps its batch.
                self._db.execute(
                    """
                    INSERT INTO videos BY NAME
                    SELECT video_id, source, key AS video_key, version AS content_version,
                           format('{:08d}', number) AS batch, size_bytes, modified_at, 'waiting' AS status
                    FROM incoming WHERE kind = 'new'
                    ON CONFLICT DO NOTHING
                    """
                )
                self._db.execute(
                    """
                    INSERT INTO observations BY NAME
                    SELECT number, kind, source, key AS video_key, video_id, observed_at FROM incoming
                    WHERE key IS NOT NULL
                    """
                )
                self._db.execute(
                    "INSERT OR IGNORE INTO erased SELECT video_id FROM incoming WHERE kind = 'erasing'"
                )

    def load_champions(self) -> None:
        """New entries of the champions' log."""
        log = champion_log(self._store)
        log.tail = self.number("SELECT coalesce(max(number), 0) FROM champions")
        champions = list(log.read_on())
        if champions:
            with self._transaction({layout.numbered(layout.CHAMPIONS, c.number): "" for c in champions}):
                self._incoming(
                    [
                        champion.model_dump()
                        | {"evidence": json.dumps(champion.evidence) if champion.evidence else None}
                        for champion in champions
                    ]
                )
                self._db.execute(
                    """
                    INSERT INTO champions BY NAME
                    SELECT number, model AS model_version, since, why, who, fingerprint, evidence
                    FROM incoming
                    """
                )

    def load_objects(self, objects: Sequence[StoredObject]) -> None:
        """A number of published objects, of any kind, in one transaction."""
        with self._transaction({found.key: found.etag for found in objects}):
            for folder, step in self._steps.items():
                keys = [found.key for found in objects if found.key.startswith(f"{folder}/")]
                if keys:
                    step(keys)
        self.objects += len(objects)

    def _load_extracted(self, keys: list[str]) -> None:
        batches = self._all_present(keys, ExtractedBatch.read)
        rows = [_video_columns(video) for batch in batches for video in batch.videos]
        if not rows:
            return  # all of them were erased
        self._incoming(rows)
        # Column by column, from the table itself: a new column is written the day it is added.
        columns = [column for column in self._db.table("incoming").columns if column != "video_id"]
        self._db.execute(
            f"UPDATE videos SET {', '.join(f'{column} = incoming.{column}' for column in columns)} "  # noqa: S608
            "FROM incoming WHERE videos.video_id = incoming.video_id"
        )

    def _load_transcripts(self, keys: list[str]) -> None:
        published = self._all_present(keys, PublishedTranscripts.read)
        for transcripts in published:
            self._sweep(transcripts.head)
        newest = self.number("SELECT coalesce(max(transcript_id), 0) FROM transcripts")
        rows: list[dict[str, Any]] = []
        words: list[pa.Table] = []
        for transcripts in published:
            first, head = newest + len(rows) + 1, transcripts.head
            words.append(words_of(transcripts, first))
            rows += [
                outcome.model_dump(exclude={"told"})
                | {
                    "transcript_id": number,
                    "model_version": head.model,
                    "model_fingerprint": head.fingerprint,
                    "batch": head.batch,
                }
                for number, outcome in enumerate(head.outcomes, first)
            ]
        if not rows:
            return
        self._incoming(rows)
        self._delete_replaced()
        self._db.execute("INSERT INTO transcripts BY NAME SELECT * FROM incoming")
        self._db.execute("INSERT INTO not_in_postings SELECT transcript_id FROM incoming")
        # A batch of an earlier release has fewer columns.
        spoken = pa.concat_tables(words, promote_options="default")
        for table, content in (("spoken_words", spoken), ("spoken_segments", segments_of(spoken))):
            self._db.register("incoming", content)
            self._db.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608
        self._sort_postings()

    def _delete_replaced(self) -> None:
        """Delete all that hangs on former transcripts of the same videos by the same model versions."""
        former = self._db.execute(
            "SELECT transcript_id FROM transcripts SEMI JOIN incoming USING (video_id, model_version)"
        ).fetchall()
        if not former:
            return
        numbers = pa.array([number for (number,) in former], pa.int32())
        self._db.register("former", pa.table({"transcript_id": numbers}))
        for table in ("spoken_words", "spoken_segments", "postings", "not_in_postings", "transcripts"):
            self._db.execute(
                f"DELETE FROM {table} USING former WHERE {table}.transcript_id = former.transcript_id"  # noqa: S608
            )

    def _sort_postings(self) -> None:
        """Begin a new run of postings when enough words are in none."""
        waiting = self.number(
            "SELECT coalesce(sum(words), 0) FROM transcripts SEMI JOIN not_in_postings USING (transcript_id)"
        )
        if waiting >= POSTINGS_RUN:
            self._db.execute(
                """
                INSERT INTO postings SELECT word_normalized, transcript_id, word_index
                FROM spoken_words SEMI JOIN not_in_postings USING (transcript_id) ORDER BY ALL
                """
            )
            self._db.execute("DELETE FROM not_in_postings")

    def _sweep(self, head: TranscriptsHead) -> None:
        """Delete what a step leaves that is killed between publishing its batch and tidying up."""
        folder = layout.unfinished(head.model, head.batch)
        self._store.delete_below(f"{folder}/{head.fingerprint}")

    def _load_attempts(self, keys: list[str]) -> None:
        batches = self._all_present(keys, AttemptsBatch.read)
        rows = [
            attempt.model_dump() | {"model_version": batch.model}
            for batch in batches
            for attempt in batch.attempts
        ]
        if not rows:
            return
        self._incoming(rows)
        self._db.execute(
            """
            INSERT INTO attempts BY NAME
            SELECT DISTINCT * FROM incoming ANTI JOIN attempts USING (video_id, model_version, run_id)
            """
        )

    def _load_comparisons(self, keys: list[str]) -> None:
        # One that is gone was replaced by another, which the next load finds.
        batches = [batch for key in keys if (batch := ComparedBatch.read(self._store, key))]
        if not batches:
            return
        self._incoming([batch.head.model_dump() for batch in batches])
        known = self.number(
            "SELECT count(*) FROM comparison_by_video JOIN videos USING (video_id) "
            "SEMI JOIN incoming USING (batch)"
        )
        for table in ("comparison_by_video", "word_diff") if known else ():
            self._db.execute(
                f"DELETE FROM {table} USING incoming JOIN videos USING (batch) "  # noqa: S608
                f"WHERE {table}.video_id = videos.video_id "
                f"AND {table}.model_a = incoming.model_a AND {table}.model_b = incoming.model_b"
            )
        self._db.register("incoming", pa.concat_tables([_with_head(batch) for batch in batches]))
        self._db.execute("INSERT INTO comparison_by_video BY NAME SELECT * EXCLUDE (diff) FROM incoming")
        self._db.execute(
            """
            INSERT INTO word_diff BY NAME
            SELECT model_a, model_b, video_id, generate_subscripts(diff, 1) AS place,
                   unnest(diff, recursive := true)
            FROM incoming
            """
        )

    def _load_summaries(self, keys: list[str]) -> None:
        for summary in self._all_present(keys, Summary.read):
            self._db.execute(
                "DELETE FROM comparison WHERE model_a = ? AND model_b = ?", [summary.model_a, summary.model_b]
            )
            if summary.rows:
                self._incoming(list(summary.rows))
                self._db.execute("INSERT INTO comparison BY NAME SELECT * FROM incoming")

    def _all_present(self, keys: Sequence[str], read: Callable[[Store, str], T | None]) -> list[T]:
        """The objects, in order; read side by side, since a bucket answers each after a while."""
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda key: read(self._store, key), keys))
        for key, one in zip(keys, found, strict=True):
            if one is None:
                raise StoreError(f"{self._store.url}/{key} vanished while it was being loaded; load again")
        return [one for one in found if one is not None]

    def _incoming(self, rows: list[dict[str, Any]]) -> None:
        """Make rows readable as the table ``incoming``; never build SQL from what they hold."""
        self._db.register("incoming", pa.Table.from_pylist(rows))

    def number(self, sql: str) -> int:
        """The one number that a query of ours gives."""
        ((value,),) = self._db.execute(sql).fetchall()  # to its end: a table cannot be registered before
        return int(value)

    @contextmanager
    def _transaction(self, objects: dict[str, str]) -> Iterator[None]:
        """A transaction that also writes the ledger rows of ``objects`` (key to ETag)."""
        self._db.begin()
        try:
            yield
            self._db.execute(
                "CREATE OR REPLACE TABLE transcripts_current AS "
                "FROM transcripts_chosen ORDER BY transcript_id"
            )
            load = self.newest_load() + 1
            self._incoming([{"object": key, "etag": etag} for key, etag in objects.items()])
            self._db.execute(
                "INSERT OR REPLACE INTO load_ledger SELECT object, etag, ?, ? FROM incoming",
                [load, datetime.now(UTC)],
            )
            self._db.commit()
        except BaseException:
            with suppress(duckdb.Error):  # on a full disk DuckDB has done so itself, and has said why
                self._db.rollback()
            raise


def _with_head(batch: ComparedBatch) -> pa.Table:
    """The videos of a comparison, each with what is known of its batch."""
    videos = batch.videos.replace_schema_metadata(None)
    for name, value in batch.head.model_dump(exclude={"batch"}).items():
        videos = videos.append_column(name, pa.array([value] * len(videos), pa.string()))
    return videos


def _video_columns(video: ExtractedVideo) -> dict[str, Any]:
    """Every column in every row: a table takes its columns from the first."""
    return {
        **_known(MediaInfo, video.media),
        **_known(AudioInfo, video.audio),
        "video_id": video.video.video_id,
        "status": video.status,
        "reason": video.reason,
        "message": video.message,
        "language_hint": video.sidecar.language,
        "hints": list(video.sidecar.hints) or None,
        "reference": video.sidecar.reference,
        "reference_starts_s": video.sidecar.reference_starts_s,
        "reference_ends_s": video.sidecar.reference_ends_s,
        "metadata": video.sidecar.metadata,
        "sidecar_problem": video.sidecar.problem,
        "duration_s": video.duration_s,
    }


def _known(kind: type[MediaInfo | AudioInfo], found: MediaInfo | AudioInfo | None) -> dict[str, Any]:
    return asdict(found) if found else {field.name: None for field in fields(kind)}
