"""Each check fails for what it is there to find, and for nothing else."""

from datetime import UTC, datetime

import pytest
from dagster import AssetKey

from asr_assets.checks import TRANSCRIPT_CHECKS, check_transcripts
from resources.observations import Video
from resources.published import (
    ExtractedBatch,
    ExtractedVideo,
    FinishedVideo,
    Outcome,
    PublishedTranscripts,
    Status,
    TranscriptsHead,
)
from speech.errors import Reason
from speech.media import AudioInfo

VIDEO = Video(source="s3://b", key="a", version="1", size_bytes=1, modified_at=datetime.now(UTC))
OTHER = VIDEO.model_copy(update={"key": "b"})
ID = VIDEO.video_id
SPOKEN = Outcome(video_id=ID, status=Status.OK)
SILENT = Outcome(video_id=OTHER.video_id, status=Status.EMPTY, reason=Reason.NO_SPEECH)


def failed(
    words: list[tuple[float | None, float | None, float]], outcomes: tuple[Outcome, ...] = (SPOKEN, SILENT)
) -> set[str]:
    rows = tuple(
        (ID, 0, n, "w", "w", start, end, probability, "en", None, None, "test", *[None] * 5)
        for n, (start, end, probability) in enumerate(words)
    )
    videos = tuple(
        ExtractedVideo(video=video, status=Status.OK, audio=AudioInfo(10.0, 0, 0)) for video in (VIDEO, OTHER)
    )
    head = TranscriptsHead(model="m", fingerprint="f", batch="1", outcomes=outcomes)
    published = PublishedTranscripts.build(head, [FinishedVideo.model_construct(outcome=SPOKEN, rows=rows)])
    results = list(
        check_transcripts(published, ExtractedBatch(batch="1", videos=videos), AssetKey("transcripts"))
    )
    assert [result.check_name for result in results] == list(TRANSCRIPT_CHECKS)
    return {str(result.check_name) for result in results if not result.passed}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([(0.0, 1.0, 0.5), (1.0, 10.0, 1.0)], set()),
        ([(1.0, 2.0, 0.5), (0.5, 2.0, 0.5)], {"times_monotonic"}),
        ([(1.0, 0.5, 0.5)], {"times_monotonic"}),
        ([(9.0, 10.5, 0.5)], {"inside_the_video"}),
        ([(-0.1, 1.0, 0.5)], {"inside_the_video"}),
        ([(0.0, 1.0, 1.5)], {"probabilities_in_range"}),
        ([(0.0, 1.0, float("nan"))], {"probabilities_in_range"}),
        ([(None, 1.0, 0.5)], {"every_word_timed"}),
        ([], {"every_video_accounted_for"}),
    ],
)
def test_words(words: list[tuple[float | None, float | None, float]], expected: set[str]) -> None:
    assert failed(words) == expected


@pytest.mark.parametrize(
    "outcomes",
    [(SPOKEN,), (SPOKEN, SILENT, SILENT), (SPOKEN, SILENT.model_copy(update={"reason": None})), ()],
)
def test_every_video_has_one_outcome_and_a_reason(outcomes: tuple[Outcome, ...]) -> None:
    assert failed([(0.0, 1.0, 0.5)], outcomes) == {"every_video_accounted_for"}
