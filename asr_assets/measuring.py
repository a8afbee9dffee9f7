"""The warehouse in figures, taken after each load for whoever watches: no sensor may open it."""

from pathlib import Path

import duckdb

from resources.figures import Ended, Figures, Heard

_WAITING = """
SELECT count(*), min(seen_at) FROM (
    SELECT arg_max(video_id, number) AS video_id, arg_max(observed_at, number) AS seen_at
    FROM observations GROUP BY source, video_key HAVING arg_max(kind, number) <> 'deleted'
) ANTI JOIN transcripts_current USING (video_id)
"""
_HEARD = """
SELECT model_version, sum(duration_s), sum(seconds)
FROM attempts JOIN transcripts USING (video_id, model_version)
WHERE outcome IN ('ok', 'no_speech') GROUP BY ALL ORDER BY ALL
"""
_ENDED = """
SELECT model_version, coalesce(reason, status) AS outcome, count(*)
FROM transcripts SEMI JOIN videos_current USING (video_id) GROUP BY ALL ORDER BY ALL
"""


def measure(warehouse: Path) -> Figures:
    """The figures of a DuckDB file that nobody has open; call with it held exclusively."""
    with duckdb.connect(warehouse, read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        waiting, since = db.execute(_WAITING).fetchone() or (0, None)
        return Figures(
            waiting=waiting,
            waiting_since=since,
            heard=tuple(
                Heard(model=model, audio_s=audio_s or 0, engine_s=engine_s)
                for model, audio_s, engine_s in db.execute(_HEARD).fetchall()
            ),
            ended=tuple(
                Ended(model=model, outcome=outcome, videos=videos)
                for model, outcome, videos in db.execute(_ENDED).fetchall()
            ),
        )
