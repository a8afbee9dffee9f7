"""What stands beside a video is told, or refused; it never breaks the batch that it came with."""

import pytest

from resources.sidecars import timed_reference


@pytest.mark.parametrize(
    "line",
    ["x 1 0.5 w", "x 1 -1 0.5 w", "x 1 nan 0.5 w", "x 1 0.5 inf w", "x 1 1e308 1e308 w", "x 1 a b w"],
)
def test_times_that_cannot_be_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not: recording, channel, start, length, word"):
        timed_reference(f"x 1 0.25 0.25 good\n{line}\n")
