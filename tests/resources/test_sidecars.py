"""What stands beside a video is told, or refused; it never breaks the batch that it came with."""

from pathlib import Path

import pytest

from resources.aws import S3
from resources.sidecars import read_sidecars, timed_reference
from resources.source import Source


@pytest.mark.parametrize(
    "line",
    ["x 1 0.5 w", "x 1 -1 0.5 w", "x 1 nan 0.5 w", "x 1 0.5 inf w", "x 1 1e308 1e308 w", "x 1 a b w"],
)
def test_times_that_cannot_be_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not: recording, channel, start, length, word"):
        timed_reference(f"x 1 0.25 0.25 good\n{line}\n")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 400])
def test_metadata_that_duckdb_could_not_read_is_a_problem_of_the_sidecar(number: str, tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "talk.json").write_text(f'{{"language": "en", "metadata": {{"tier": [{number}]}}}}')
    source = Source(url=f"file://{tmp_path}", s3=S3())
    video = source.find("talk.mp4")
    assert video
    said = read_sidecars(source, video)
    assert (said.metadata, said.language) == (None, None)
    assert said.problem
    assert "holds a number that is none in JSON" in said.problem
