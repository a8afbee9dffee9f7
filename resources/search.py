"""Find a phrase in the current words."""

from dataclasses import dataclass

import duckdb

from speech.errors import QueryError
from speech.types import Seconds, normalize_word

CONTEXT_WORDS = 6

# A phrase stands where its n-th word is n words behind its first, for every n.
_SEARCH = """
WITH phrase AS (
    SELECT unnest($words) AS word_normalized, unnest(range(len($words))) AS place
), hits AS (
    SELECT video_id, word_index - place AS first, min(start_s) AS start_s, max(end_s) AS end_s,
           min(probability) AS probability
    FROM words_current JOIN phrase USING (word_normalized)
    GROUP BY video_id, first
    HAVING count(*) = len($words)
)
SELECT videos.video_key, hits.start_s, hits.end_s, hits.probability,
       string_agg(words.word, ' ' ORDER BY words.word_index) AS context
FROM hits
JOIN videos USING (video_id)
JOIN words_current AS words
  ON words.video_id = hits.video_id
 AND words.word_index BETWEEN first - $context AND first + len($words) - 1 + $context
GROUP BY hits.video_id, first, videos.video_key, hits.start_s, hits.end_s, hits.probability
ORDER BY videos.video_key, hits.start_s
LIMIT $limit
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the phrase is spoken; ``probability`` is that of its least certain word."""

    video_key: str
    start_s: Seconds
    end_s: Seconds
    probability: float
    context: str


def search(connection: duckdb.DuckDBPyConnection, phrase: str, limit: int) -> list[Hit]:
    """The first ``limit`` places, by video and time. Raises QueryError for a phrase without words."""
    words = [word for word in map(normalize_word, phrase.split()) if word]
    if not words:
        raise QueryError("there is no word in what you search for; give one word or a phrase")
    found = connection.execute(_SEARCH, {"words": words, "context": CONTEXT_WORDS, "limit": limit}).fetchall()
    return [Hit(*row) for row in found]
