"""``asr dump``: the tables as folders of Parquet, for engines that are not DuckDB.

No format of ``asr export``: that writes a file for each current video by one model version, and none of its
options would mean anything here.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from speech.errors import AsrError, first_line

_HEARD = """
CREATE TEMP TABLE seen AS
SELECT video_id, min(observed_at)::DATE AS taken_in FROM observations GROUP BY ALL;
CREATE TEMP TABLE heard AS
SELECT transcripts.*, transcript_id IN (SELECT transcript_id FROM transcripts_current) AS is_current, taken_in
FROM transcripts LEFT JOIN seen USING (video_id)
"""
_WHOLE = {
    "transcripts": "SELECT * EXCLUDE (transcript_id) FROM heard",
    "videos": """
        SELECT videos.*, video_id IN (SELECT video_id FROM videos_current) AS is_current, taken_in
        FROM videos LEFT JOIN seen USING (video_id)
    """,
}
_BY_TRANSCRIPT = {"words": "spoken_words", "segments": "spoken_segments"}


@dataclass(frozen=True, slots=True)
class Dumped:
    """A table, and what its files hold."""

    table: str
    files: int
    rows: int


def dump(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Dumped]:
    """Write words, segments, transcripts and videos, current or not, into a folder that is not there yet.

    Call with a snapshot that may write files. Column ``is_current`` says what stands in the ``_current``
    views, ``taken_in`` on which day (UTC) the video was taken in; words and segments are partitioned by
    ``model_version`` and ``taken_in``, as Hive does it. Killed half-way, it leaves no ``folder``. Raises
    :class:`~speech.errors.AsrError` when something is in the folder, or it cannot be written.
    """
    folder = folder.resolve()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise AsrError(f"{folder} is not empty: give a folder that is empty, or not there yet")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.unfinished-", dir=folder.parent) as own:
            # A folder in it, since what is made as temporary is nobody else's to read.
            unfinished = Path(own) / folder.name
            connection.execute(_HEARD)
            for path, rows in _parts(connection):
                (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                rows.write_parquet(str(unfinished / path), compression="zstd")
            dumped = [_what_is_in(unfinished / table) for table in (*_BY_TRANSCRIPT, *_WHOLE)]
            unfinished.replace(folder)
    except (OSError, duckdb.Error) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise AsrError(f"{folder}: cannot be written: {why}") from error
    return dumped


def _parts(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, duckdb.DuckDBPyRelation]]:
    """Each file's path, and its rows.

    One query for each partition: they lie together in the snapshot, so it reads little else, and holds a few
    row groups in memory. DuckDB's own PARTITION_BY holds the whole table, at 250 bytes a word.
    """
    partitions = connection.execute(
        "SELECT DISTINCT model_version, taken_in FROM heard WHERE words > 0 ORDER BY ALL"
    ).fetchall()
    for model, day in partitions:
        for name, table in _BY_TRANSCRIPT.items():
            rows = f"""
                SELECT video_id, {table}.* EXCLUDE (transcript_id), is_current
                FROM {table}
                JOIN (FROM heard WHERE model_version = $1 AND taken_in IS NOT DISTINCT FROM $2)
                    USING (transcript_id)
            """  # noqa: S608 - names of ours
            where = f"model_version={model}/taken_in={day or '__HIVE_DEFAULT_PARTITION__'}"
            yield f"{name}/{where}/part-0.parquet", connection.sql(rows, params=[model, day])
    for name, rows in _WHOLE.items():
        yield f"{name}/part-0.parquet", connection.sql(rows)


def _what_is_in(folder: Path) -> Dumped:
    files = list(folder.rglob("*.parquet"))
    return Dumped(folder.name, len(files), sum(pq.read_metadata(file).num_rows for file in files))
