"""``make bench-comparison``: intervals that hold the truth as often as they say, and no false alarms.

Then pocketsphinx against micro_whisper on the samples and their degraded twins, end to end through Dagster.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.report import RESULTS, Check, publish
from speech.degrading import CONDITIONS
from speech.evidence import Counts, Difference, wer_difference

VIDEOS = 200
WER_A = 0.10
GAP = 0.85  # B makes so many of A's errors


class Heard(NamedTuple):
    """What two models made of as many videos: errors of each, and the words that were said."""

    errors_a: Counts
    errors_b: Counts
    words: Counts


def simulated(rng: np.random.Generator, ratio: float) -> Heard:
    """Videos of unlike length and difficulty, on which B errs ``ratio`` times as often as A on the average.

    Some suit A and some B, and most of what is hard for one is hard for the other: the truth is
    ``WER_A * (ratio - 1)``, whatever the videos' lengths, of which nothing else depends.
    """
    words = np.maximum(5, rng.lognormal(np.log(120), 0.7, VIDEOS)).astype(int)
    error_a = rng.beta(2, 2 / WER_A - 2, VIDEOS)
    error_b = np.minimum(1.0, error_a * ratio * rng.lognormal(-(0.3**2) / 2, 0.3, VIDEOS))
    video = np.repeat(np.arange(VIDEOS), words)
    chance_a = rng.random(len(video))
    # A word that is misheard by one is often misheard by the other.
    chance_b = np.where(rng.random(len(video)) < 0.6, chance_a, rng.random(len(video)))
    wrong_a, wrong_b = chance_a < error_a[video], chance_b < error_b[video]
    errors = (np.bincount(video, wrong, VIDEOS) for wrong in (wrong_a, wrong_b))
    return Heard(*errors, words.astype(float))


def found(seed: int, sets: int, ratio: float, replications: int) -> Iterator[Difference]:
    """What the comparison says of each of so many sets of videos."""
    for number in range(sets):
        heard = simulated(np.random.default_rng([seed, round(ratio * 100), number]), ratio)
        yield wer_difference(*heard, replications=replications, seed=number)


def honesty(seed: int, sets: int, replications: int) -> Iterator[Check]:
    """How often the truth lies in the interval, and how often a difference is seen where there is none."""
    truth = WER_A * (GAP - 1)
    planted = list(found(seed, sets, GAP, replications))
    covered = [d.low is not None and d.high is not None and d.low <= truth <= d.high for d in planted]
    seen = np.mean([d.high is not None and d.high < 0 for d in planted])
    typer.echo(f"of a gap of {truth:.3f}, {seen:.0%} of the sets show that B is better", err=True)
    yield Check.at_least("interval_coverage", float(np.mean(covered)), "", 0.935)
    none = list(found(seed, sets, 1.0, replications))
    by_interval = np.mean(
        [d.low is not None and d.high is not None and not d.low <= 0 <= d.high for d in none]
    )
    by_test = np.mean([d.p_value is not None and d.p_value < 0.05 for d in none])
    typer.echo(f"false alarms: {by_interval:.3f} by the interval, {by_test:.3f} by the test", err=True)
    yield Check("false_alarms", float(max(by_interval, by_test)), "", 0.065)


def twins() -> Iterator[Check]:
    """The demo, its twins, the comparison, as a user types it; the page is ``results/comparison.html``."""
    page = RESULTS / "comparison.html"
    with tempfile.TemporaryDirectory() as folder:
        place = {"ASR_SOURCE_URL": f"{folder}/videos", "ASR_STORE_URL": f"{folder}/data"}
        env = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")} | place

        def asr(*arguments: str) -> str:
            command = [str(Path(sys.executable).with_name("asr")), *arguments]
            return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

        asr("demo")
        asr("degrade")
        asr("run")
        typer.echo(asr("compare", "pocketsphinx", "micro_whisper", "--html", str(page)), err=True)
        found = asr(
            "sql",
            "--format",
            "csv",
            "SELECT count(*) FROM comparison WHERE condition = 'condition' AND referenced = 7",
        )
    yield Check.at_least("conditions_compared", float(found.split()[-1]), "", 1 + len(CONDITIONS))


def main(
    seed: Annotated[int, typer.Option(help="Other videos")] = 1,
    sets: Annotated[int, typer.Option(help="Of 200 videos each, twice")] = 1000,
    replications: Annotated[int, typer.Option(help="Of the bootstrap")] = 10_000,
    degraded: Annotated[bool, typer.Option(help="Also the samples and their twins, some minutes")] = True,
) -> None:
    """Measure, print, write ``results/comparison.json``."""
    checks = [*honesty(seed, sets, replications), *(twins() if degraded else ())]
    all_hold = publish("comparison", checks, seed=seed, sets=sets, replications=replications)
    raise typer.Exit(0 if all_hold else 1)


if __name__ == "__main__":
    typer.run(main)
