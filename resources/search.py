"""Find a phrase in the current words."""

from dataclasses import dataclass

import duckdb

from speech.errors import QueryError
from speech.types import Seconds, normalize_word


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the phrase is spoken; ``probability`` is that of its least certain word."""

    video_key: str
    start_s: Seconds
    end_s: Seconds
    probability: float
    context: str
    video_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """The first places by when their videos were taken in, of ``count`` in all."""

    count: int
    hits: list[Hit]


def search(connection: duckdb.DuckDBPyConnection, phrase: str, limit: int) -> Found:
    """At most ``limit`` places. Raises QueryError for a phrase without words."""
    words = " ".join(word for word in map(normalize_word, phrase.split()) if word)
    if not words:
        raise QueryError("there is no word in what you search for; give one word or a phrase")
    try:
        (count,) = connection.execute("SELECT count(*) FROM said(?)", [words]).fetchone() or (0,)
    except duckdb.CatalogException as error:
        raise QueryError(
            "the published copy was made by another version of this program; run asr run, or asr rebuild"
        ) from error
    hits = connection.execute("FROM phrase(?, at_most := ?)", [words, limit]).fetchall() if count else []
    return Found(count, [Hit(*row) for row in hits])
