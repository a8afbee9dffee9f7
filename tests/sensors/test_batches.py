"""When a batch is due, and what is in it."""

from datetime import UTC, datetime, timedelta

import pytest

from resources.observations import Video
from sensors.batches import BatchLimits, plan_batches

NOW = datetime.now(UTC)
LIMITS = BatchLimits(videos=3, size_bytes=100, wait_s=60, min_age_s=5)


def video(key: str, age_s: float = 30, size: int = 1) -> Video:
    return Video(
        source="s3://b", key=key, version="1", size_bytes=size, modified_at=NOW - timedelta(seconds=age_s)
    )


@pytest.mark.parametrize(
    ("videos", "limits", "batches"),
    [
        pytest.param([], LIMITS, [], id="nothing"),
        pytest.param([video("a")], LIMITS, [], id="a trickle waits"),
        pytest.param([video("a", 61), video("b")], LIMITS, ["ab"], id="and goes as it is after a while"),
        pytest.param([video(k) for k in "abc"], LIMITS, ["abc"], id="a full batch goes at once"),
        pytest.param([video(k) for k in "abcde"], LIMITS, ["abc"], id="the rest of a backlog waits"),
        pytest.param(
            [video(k) for k in "abcde"], BatchLimits().at_once, ["abcde"], id="the command line does not wait"
        ),
        pytest.param(
            [video("a", 2), video("b", 99)], LIMITS, ["b"], id="what is being written is left alone"
        ),
        pytest.param([video(k, size=60) for k in "abc"], LIMITS, ["a", "b"], id="bytes bound a batch"),
        pytest.param([video("a", 99, 500)], LIMITS, ["a"], id="one video over the bound is a batch"),
        pytest.param([video("a", -10, 1)], LIMITS, [], id="a clock that is a little ahead is waited for"),
        pytest.param([video("a", -9999, 1)], LIMITS, ["a"], id="a clock that is ahead loses no video"),
        pytest.param([video("a", -10, 1)], BatchLimits().at_once, ["a"], id="nor on the command line"),
    ],
)
def test_plan(videos: list[Video], limits: BatchLimits, batches: list[str]) -> None:
    since = datetime.now(UTC) - NOW
    aged = [video.model_copy(update={"modified_at": video.modified_at + since}) for video in videos]
    planned = plan_batches(aged, limits)
    assert ["".join(v.key for v in batch) for batch in planned] == batches
