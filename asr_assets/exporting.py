"""``asr export``: the current words as files, one a video."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from resources.heard import read_transcript
from speech.errors import AsrError
from speech.formats import Format


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, and the video whose words it holds."""

    video_key: str
    path: Path
    words: int


def export(
    connection: duckdb.DuckDBPyConnection, folder: Path, form: Format, model: str | None, phrase: str | None
) -> Iterator[Exported]:
    """Write the transcripts of current videos, by the champion or ``model``; of keys with ``phrase`` in them.

    Raises :class:`~speech.errors.AsrError` when there is nothing to write, or nowhere to write it.
    """
    found = connection.execute(
        """
        SELECT video_id, video_key, t.model_version, t.language, t.duration_s
        FROM transcripts AS t JOIN videos_current USING (video_id)
        WHERE t.status = 'ok' AND contains(video_key, coalesce($phrase, ''))
          AND CASE WHEN $model IS NULL
              THEN (video_id, t.model_version) IN (SELECT video_id, model_version FROM transcripts_current)
              ELSE t.model_version = $model END
        ORDER BY video_key, source
        """,
        {"phrase": phrase, "model": model},
    ).fetchall()
    if not found:
        raise AsrError(
            "no current video with words is asked for; "
            "asr sql 'select video_key, status, message from videos_current' says what there is"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for video_id, key, version, language, duration_s in found:
            transcript = read_transcript(connection, video_id, version, language, duration_s)
            path = folder / f"{file_name(key)}-{video_id[:16]}{form.suffix}"
            path.write_bytes(form.write(transcript, key))
            yield Exported(key, path, len(transcript.words))
    except OSError as error:
        raise AsrError(f"{folder}: cannot be written: {error.strerror}") from error


def file_name(key: str) -> str:
    """Something readable: a key may hold anything, and is no name for a file.

    >>> file_name("calls/../2026 é/Anna's call.mp4")
    'Anna-s-call'
    """
    last = key.rpartition("/")[2]
    stem = last.rpartition(".")[0] or last
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:60] or "video"
