"""A transcript as the library knows it, from the rows of the published copy."""

from itertools import groupby

import duckdb

from speech.types import Segment, Transcript, Word


def read_transcript(
    connection: duckdb.DuckDBPyConnection,
    video_id: str,
    model: str,
    language: str,
    duration_s: float,
    words: range | None = None,
) -> Transcript:
    """One model version's transcript of one video, from its rows; of some of its words alone, by number."""
    rows = connection.execute(
        """
        SELECT segment_index, word, start_s, end_s, probability, timing_source, channel
        FROM words WHERE video_id = $video AND model_version = $model
          AND ($first IS NULL OR word_index >= $first AND word_index < $end) ORDER BY word_index
        """,
        {"video": video_id, "model": model, "first": words and words.start, "end": words and words.stop},
    ).fetchall()
    segments = (
        Segment(tuple(Word(*row[1:]) for row in group)) for _, group in groupby(rows, key=lambda row: row[0])
    )
    return Transcript(language, duration_s, tuple(segments))
