"""Find a phrase in the words of the published copy."""

from dataclasses import asdict, dataclass
from datetime import datetime

import duckdb

from speech.errors import QueryError
from speech.types import Seconds, normalize_word


@dataclass(frozen=True, slots=True)
class Filters:
    """Where to look: in the current words, or in those of one model version; None is no matter.

    ``video`` is a part of a key, ``at_least`` the least probability of the least certain word.
    """

    video: str | None = None
    language: str | None = None
    model: str | None = None
    at_least: float | None = None


ANYWHERE = Filters()


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the phrase is spoken; ``probability`` is that of its least certain word."""

    video_key: str
    start_s: Seconds
    end_s: Seconds
    probability: float
    video_id: str
    before: str
    said: str
    after: str

    @property
    def context(self) -> str:
        """The phrase and what is said around it."""
        return " ".join(filter(None, (self.before, self.said, self.after)))


@dataclass(frozen=True, slots=True)
class Found:
    """The first places by when their videos were taken in, of ``count`` in all.

    ``over_time`` counts them by when their videos were made, as far as their source tells: by hours, days or
    months, as ``step`` says, without those in which there are none.
    """

    count: int
    hits: list[Hit]
    step: str
    over_time: list[tuple[datetime, int]]


_SAID = """
WITH asked AS (
    SELECT unnest($words) AS word_normalized, generate_subscripts($words, 1) - 1 AS place
), looked_in AS (
    SELECT transcript_id, video_id, v.video_key, t.batch, modified_at
    FROM {transcripts} AS t JOIN videos AS v USING (video_id)
    WHERE contains(v.video_key, coalesce($video, '')) AND ($language IS NULL OR t.language = $language)
      AND ($model IS NULL OR model_version = $model)
), said AS (
    SELECT transcript_id, word_index - place AS first
    FROM places JOIN asked USING (word_normalized) SEMI JOIN looked_in USING (transcript_id)
    GROUP BY ALL HAVING count(*) = len($words)
), sure AS (
    {sure}
)
"""
_OF_ANY_MODEL = "(FROM transcripts SEMI JOIN videos_current USING (video_id))"
_ANY = "FROM said"
_SURE = """
    SELECT transcript_id, first
    FROM said JOIN spoken_words USING (transcript_id)
    WHERE word_index BETWEEN first AND first + len($words) - 1
    GROUP BY ALL HAVING min(probability) >= $at_least
"""
_OVER_TIME = """
, seen AS MATERIALIZED (
    SELECT modified_at, count(*) AS times FROM sure JOIN looked_in USING (transcript_id) GROUP BY ALL
), scale AS (
    SELECT CASE WHEN span < INTERVAL 2 DAYS THEN 'hour' WHEN span < INTERVAL 90 DAYS THEN 'day'
                ELSE 'month' END AS step
    FROM (SELECT max(modified_at) - min(modified_at) AS span FROM seen)
)
SELECT step, date_trunc(step, modified_at), sum(times)::BIGINT FROM seen, scale GROUP BY ALL ORDER BY ALL
"""
_HITS = """
, hits AS MATERIALIZED (
    SELECT transcript_id, first, first + len($words) - 1 AS last, video_id, video_key, batch
    FROM sure JOIN looked_in USING (transcript_id)
    ORDER BY batch, video_key, video_id, first LIMIT $limit OFFSET $offset
)
SELECT video_key, min(start_s) FILTER (word_index BETWEEN first AND last) AS start_s,
       max(end_s) FILTER (word_index BETWEEN first AND last) AS end_s,
       min(probability) FILTER (word_index BETWEEN first AND last) AS probability,
       video_id,
       coalesce(string_agg(word, ' ' ORDER BY word_index) FILTER (word_index < first), '') AS before,
       string_agg(word, ' ' ORDER BY word_index) FILTER (word_index BETWEEN first AND last) AS said,
       coalesce(string_agg(word, ' ' ORDER BY word_index) FILTER (word_index > last), '') AS after
FROM hits JOIN spoken_words USING (transcript_id)
WHERE word_index BETWEEN first - 6 AND last + 6
GROUP BY batch, video_key, video_id, first
ORDER BY batch, video_key, video_id, first
"""


def words_of(phrase: str) -> list[str]:
    """The words of a phrase as they are searched. Raises QueryError for one without any."""
    words = [word for word in map(normalize_word, phrase.split()) if word]
    if not words:
        raise QueryError("there is no word in what you search for; give one word or a phrase")
    return words


def search(
    connection: duckdb.DuckDBPyConnection,
    phrase: str,
    limit: int,
    filters: Filters = ANYWHERE,
    offset: int = 0,
) -> Found:
    """At most ``limit`` places, from number ``offset`` on. Raises QueryError for a phrase without words."""
    asked = asdict(filters) | {"words": words_of(phrase)}
    said = _SAID.format(
        transcripts=_OF_ANY_MODEL if filters.model else "transcripts_current",
        sure=_ANY if filters.at_least is None else _SURE,
    )
    if filters.at_least is None:
        del asked["at_least"]
    try:
        times = connection.execute(said + _OVER_TIME, asked).fetchall()
        count = sum(row[2] for row in times)
        asked |= {"limit": limit, "offset": offset}
        hits = connection.execute(said + _HITS, asked).fetchall() if count > offset else []
    except duckdb.CatalogException as error:
        raise QueryError(
            "the published copy was made by another version of this program; run asr run, or asr rebuild"
        ) from error
    step = times[0][0] if times else "day"
    return Found(count, [Hit(*row) for row in hits], step, [(when, n) for _, when, n in times])


def languages_and_models(connection: duckdb.DuckDBPyConnection) -> tuple[list[str], list[str]]:
    """What there is to choose from."""
    languages, models = (
        [name for (name,) in connection.execute(f"SELECT DISTINCT {what} ORDER BY ALL").fetchall()]
        for what in (
            "language FROM transcripts WHERE language IS NOT NULL",
            "model_version FROM transcripts WHERE status <> 'left'",
        )
    )
    return languages, models
