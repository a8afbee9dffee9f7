"""What the pages ask of the published copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from resources.heard import read_transcript
from resources.observations import Video
from resources.snapshot import rows
from speech.types import Seconds, Transcript

WORDS = 4000  # of a transcript on one page: half an hour of somebody who speaks fast
FAILURES = 200
VIDEOS = 50

_VIDEO = "FROM videos WHERE video_id = ?"
# Not by videos_current, which goes through all videos that there ever were.
_NEWEST = """
SELECT arg_max(video_id, number) = $video AND arg_max(kind, number) <> 'deleted'
FROM observations WHERE source = $source AND video_key = $key
"""
_HEARD = """
SELECT t.model_version, t.model_fingerprint, t.language, t.status, t.words, t.duration_s,
       current.video_id IS NOT NULL AS is_current
FROM transcripts AS t
LEFT JOIN transcripts_current AS current USING (video_id, model_version)
WHERE video_id = ? AND t.status IN ('ok', 'empty') ORDER BY is_current DESC, t.model_version
"""
_PAGES = f"""
SELECT start_s FROM words WHERE video_id = $video AND model_version = $model AND word_index % {WORDS} = 0
ORDER BY word_index
"""  # noqa: S608 all of it is ours
_VIDEOS = """
SELECT video_id, video_key, v.status, v.duration_s, modified_at, t.words, t.model_version
FROM videos_current AS v LEFT JOIN transcripts_current AS t USING (video_id, video_key)
WHERE contains(video_key, coalesce($video, '')) AND ($language IS NULL OR t.language = $language)
ORDER BY modified_at DESC, video_key LIMIT $limit
"""
_STANDING = "SELECT status, count(*) AS videos FROM videos_current GROUP BY ALL ORDER BY ALL"
_MODELS = """
SELECT t.model_version, count(*) FILTER (t.status = 'ok') AS ok,
       count(*) FILTER (t.status = 'empty') AS empty, count(*) FILTER (t.status = 'failed') AS failed,
       sum(t.words)::BIGINT AS words, sum(t.duration_s) / 3600 AS hours,
       t.model_version = (SELECT model_version FROM champion_current) AS is_champion
FROM transcripts AS t SEMI JOIN videos_current USING (video_id)
WHERE t.status <> 'left' GROUP BY t.model_version ORDER BY is_champion DESC, t.model_version
"""
_FAILED = "FROM failures ORDER BY ended_at DESC NULLS LAST, video_key, model_version LIMIT $limit"
_LOADED = "SELECT max(loaded_at) AS loaded_at FROM load_ledger"


@dataclass(frozen=True, slots=True)
class Heard:
    """One model version's transcript of a video."""

    model_version: str
    model_fingerprint: str
    language: str | None
    status: str
    words: int
    duration_s: Seconds | None
    is_current: bool


def video(connection: duckdb.DuckDBPyConnection, video_id: str) -> dict[str, Any] | None:
    """One version of one video; None when there is no such one."""
    return next(iter(rows(connection, _VIDEO, [video_id])), None)


def is_current(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> bool:
    """Whether no later version of a video is there, and it is not deleted."""
    asked = {"video": row["video_id"], "source": row["source"], "key": row["video_key"]}
    (found,) = connection.execute(_NEWEST, asked).fetchone() or (False,)
    return bool(found)


def as_video(row: dict[str, Any]) -> Video:
    """As the source knows it."""
    return Video(
        source=row["source"],
        key=row["video_key"],
        version=row["content_version"],
        size_bytes=row["size_bytes"],
        modified_at=row["modified_at"],
    )


def heard(connection: duckdb.DuckDBPyConnection, video_id: str) -> list[Heard]:
    """Who has heard a video, the one whose words are current first."""
    return [Heard(**row) for row in rows(connection, _HEARD, [video_id])]


def transcript(
    connection: duckdb.DuckDBPyConnection, video_id: str, one: Heard, around_s: Seconds
) -> tuple[Transcript, Seconds | None, Seconds | None]:
    """The words on the page with this time, and where the pages before and after it begin."""
    found = connection.execute(_PAGES, {"video": video_id, "model": one.model_version}).fetchall()
    pages = [start for (start,) in found]
    page = max((n for n, start in enumerate(pages) if start <= around_s), default=0)
    before = pages[page - 1] if page else None
    after = pages[page + 1] if page + 1 < len(pages) else None
    ends_s = after or one.duration_s or 0.0
    words = range(page * WORDS, (page + 1) * WORDS)
    shown = read_transcript(connection, video_id, one.model_version, one.language or "", ends_s, words)
    return shown, before, after


def videos(
    connection: duckdb.DuckDBPyConnection, key: str | None, language: str | None
) -> list[dict[str, Any]]:
    """The newest current videos."""
    return rows(connection, _VIDEOS, {"video": key, "language": language, "limit": VIDEOS})


def standing(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """How far everything has come."""
    return {
        "videos": rows(connection, _STANDING),
        "models": rows(connection, _MODELS),
        "most": FAILURES,
        "failures": rows(connection, _FAILED, {"limit": FAILURES}),
        "loaded_at": rows(connection, _LOADED)[0]["loaded_at"],
    }


def other_than(model: str, models: Sequence[Heard]) -> str | None:
    """Another one that has heard the same video."""
    return next((one.model_version for one in models if one.model_version != model), None)
