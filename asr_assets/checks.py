"""What must be true of every published batch and of every load. Each check is emitted each time."""

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa
from dagster import AssetCheckResult, AssetCheckSeverity, AssetCheckSpec, AssetKey

from resources.published import ExtractedBatch, PublishedTranscripts
from resources.warehouse import LoadReport

WARN, ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR
TRANSCRIPT_CHECKS = {
    "times_monotonic": "No word of a channel starts before the word before it, or ends before it starts.",
    "inside_the_video": "No word starts before its video does or ends after it.",
    "probabilities_in_range": "Every probability is a number in [0, 1].",
    "every_word_timed": "Every word has a start and an end.",
    "every_video_accounted_for": "Each video of the batch has one outcome; one without words has a reason.",
}
LOAD_CHECKS = {
    "words_match_transcripts": "The warehouse holds as many words as its transcripts say they have.",
    "videos_known": "Every transcript belongs to a video of the ingest log.",
    "champion_as_crowned": "The champion's words come from the definition that became champion.",
}

# A millisecond of slack: times are rounded to it, and so is a video's length.
_OFFENDING = """
WITH ordered AS (
    SELECT *, lag(start_s) OVER (PARTITION BY video_id, channel ORDER BY word_index) AS start_before
    FROM words
)
SELECT
    count(*) FILTER (end_s < start_s OR start_s < start_before) AS times_monotonic,
    count(*) FILTER (
        start_s < 0 OR end_s > 0.001 + coalesce((SELECT duration_s FROM batch WHERE id = video_id), 0)
    ) AS inside_the_video,
    count(*) FILTER (NOT coalesce(probability BETWEEN 0 AND 1, false)) AS probabilities_in_range,
    count(*) FILTER (start_s IS NULL OR end_s IS NULL) AS every_word_timed,
    (SELECT count(*) FROM batch FULL JOIN outcomes ON id = video_id WHERE id IS NULL OR video_id IS NULL)
      + (SELECT count(*) - count(DISTINCT video_id) FROM outcomes)
      + (
        SELECT count(*) FROM outcomes
        WHERE (video_id IN (SELECT video_id FROM words)) = (reason IS NOT NULL)
    ) AS every_video_accounted_for
FROM ordered
"""


def specs(checks: Mapping[str, str], asset: AssetKey) -> list[AssetCheckSpec]:
    """The checks as an asset declares them."""
    return [
        AssetCheckSpec(name, asset=asset, description=description) for name, description in checks.items()
    ]


def check_transcripts(
    published: PublishedTranscripts, extracted: ExtractedBatch, asset: AssetKey
) -> Iterator[AssetCheckResult]:
    """One result per entry of :data:`TRANSCRIPT_CHECKS`, with the number of offending words or videos."""
    batch = [(video.video.video_id, video.duration_s) for video in extracted.videos]
    outcomes = [(outcome.video_id, outcome.reason) for outcome in published.head.outcomes]
    with duckdb.connect() as db:
        db.register("words", published.words)
        db.register("batch", _table(batch, id=pa.string(), duration_s=pa.float64()))
        db.register("outcomes", _table(outcomes, video_id=pa.string(), reason=pa.string()))
        found = db.execute(_OFFENDING).fetchone()
    assert found is not None
    for name, offending in zip(TRANSCRIPT_CHECKS, found, strict=True):
        yield AssetCheckResult(
            asset_key=asset, check_name=name, passed=offending == 0, metadata={"offending": offending}
        )


def check_load(report: LoadReport, asset: AssetKey) -> Iterator[AssetCheckResult]:
    """One result per entry of :data:`LOAD_CHECKS`."""
    for name, offending in {
        "words_match_transcripts": abs(report.words - report.words_promised),
        "videos_known": report.videos_unknown,
        "champion_as_crowned": report.champion_changed,
    }.items():
        yield AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=offending == 0,
            # What was decided by evidence has changed without: nothing is lost, and somebody has to know.
            severity=WARN if name == "champion_as_crowned" else ERROR,
            metadata={"offending": offending},
        )


def _table(rows: Sequence[tuple[str, object]], **types: pa.DataType) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), ()]
    return pa.table(
        {name: pa.array(column, kind) for (name, kind), column in zip(types.items(), columns, strict=True)}
    )
