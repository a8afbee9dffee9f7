"""Evidence: is one model version better than another, or did it only come out so?

All of it is about pairs: both have heard the same recordings, so what is hard for both cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from operator import add, sub
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.float64]
"""A number for each recording, ``(n,)``."""

REPLICATIONS = 10_000
CONFIDENCE = 0.95
DRAWN_AT_ONCE = 2_000_000  # recordings: some 100 MB
NOTHING = 1e-12  # of a rate: what is smaller comes from rounding


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two word error rates, B's less A's: below 0, B is better.

    With ``confidence`` the difference over all recordings of this kind lies between ``low`` and ``high``;
    ``p_value`` is how likely one at least as large would come out if there were none. All None where so few
    recordings are no evidence: for an interval of 95 % it takes six.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    confidence: float = CONFIDENCE


def wer_difference(
    errors_a: Sequence[float],
    errors_b: Sequence[float],
    words: Sequence[float],
    confidence: float = CONFIDENCE,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> Difference:
    """From the errors of both in each recording, and the words that are said in it.

    The interval comes from drawing recordings anew, with both models' errors in them: as many times its
    standard error to both sides as ``confidence`` of what was drawn lies away. Source: paired bootstrap,
    Bisani and Ney 2004, whose rates are over all words drawn, too; in its symmetric, studentized form (Hall
    1988), which of six kinds that were tried is the one that holds the truth as often as it says.

    Raises ValueError when nothing is said in any of them.

    >>> wer_difference([1, 0, 2, 1], [0, 0, 1, 0], [10, 10, 10, 10], replications=100).value
    -0.075
    """
    a, b, said = (np.asarray(one, np.float64) for one in (errors_a, errors_b, words))
    if said.sum() <= 0:
        raise ValueError("no words are said in any of these recordings")
    value = float((b - a).sum() / said.sum())
    # Though all of them speak for the same model, chance does that once in 2^(n - 1).
    if 0.5 ** (len(said) - 1) > 1 - confidence:
        return Difference(value, None, None, None, confidence)
    error = float(_rate(b - a, said)[1])
    away = error * _reach(b - a, said, value, confidence, replications, seed) if error > NOTHING else 0.0
    return Difference(value, value - away, value + away, matched_pairs(b - a), confidence)


def _rate(more: Counts, said: Counts) -> tuple[Counts, Counts]:
    """Errors for each word, and its standard error, over the last axis (a ratio; Cochran 1977, 2.11)."""
    n, words = said.shape[-1], said.sum(axis=-1)
    rate = more.sum(axis=-1) / words
    residuals = more - rate[..., None] * said
    return rate, np.sqrt((residuals**2).sum(axis=-1) * n / (n - 1)) / words


def _reach(
    more: Counts, said: Counts, value: float, confidence: float, replications: int, seed: int
) -> float:
    """Within how many standard errors ``confidence`` of the draws lie."""
    n, rng = len(said), np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // n)
    whole = _rate(more, said)[1]
    drawn = []
    for first in range(0, replications, at_once):
        chosen = rng.integers(0, n, (min(at_once, replications - first), n))
        with np.errstate(divide="ignore", invalid="ignore"):  # draws in which nothing is said
            rate, error = _rate(more[chosen], said[chosen])
        # A draw without a spread of its own, of videos that are equal for both, say, has that of all of them.
        away = np.abs(rate - value) / np.where(error > NOTHING, error, whole)
        drawn.append(away[np.isfinite(away)])
    return float(np.quantile(np.concatenate(drawn), confidence, method="higher"))


def matched_pairs(more: npt.ArrayLike) -> float:
    """The p-value of B's errors less A's, segment by segment, if they were no more on the average.

    Source: the matched-pairs sentence-segment word error test of NIST (Gillick and Cox 1989), with
    Student's distribution, which is the honest one for few segments.

    >>> matched_pairs([0, 0, 0])
    1.0
    """
    from scipy.stats import ttest_1samp

    differences = np.asarray(more, np.float64)
    if not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return float(0.5 ** (len(differences) - 1))  # no spread to go by: the chance of as many equal signs
    return float(ttest_1samp(differences, 0.0).pvalue)


BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a word's probability is how often such words are right.

    By ten equal ranges of probability: words, the sum of their probabilities, and how many of them are right.
    ``log2_likelihood`` is that of what came true, had the probabilities been right. Calibrations add up.
    """

    words: tuple[int, ...] = (0,) * BINS
    probability: tuple[float, ...] = (0.0,) * BINS
    right: tuple[int, ...] = (0,) * BINS
    log2_likelihood: float = 0.0

    @classmethod
    def of(cls, judged: Sequence[tuple[float, bool]]) -> "Calibration":
        """Of words with these probabilities, and whether each is right.

        >>> round(Calibration.of([(0.95, True)] * 19 + [(0.95, False)]).expected_error, 9)
        0.0
        """
        words, sums, right, likelihood = [0] * BINS, [0.0] * BINS, [0] * BINS, 0.0
        for sure, is_right in judged:
            number = min(int(sure * BINS), BINS - 1)
            words[number] += 1
            sums[number] += sure
            right[number] += is_right
            # One that is wholly sure and wrong would outweigh all others together.
            likelihood += log2(max(sure if is_right else 1 - sure, 1e-6))
        return cls(tuple(words), tuple(sums), tuple(right), likelihood)

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            tuple(map(add, self.words, other.words)),
            tuple(map(add, self.probability, other.probability)),
            tuple(map(add, self.right, other.right)),
            self.log2_likelihood + other.log2_likelihood,
        )

    @property
    def expected_error(self) -> float | None:
        """Mean distance between probability and share right, weighted by words; None for no words.

        Source: ECE, Naeini et al. 2015.
        """
        total = sum(self.words)
        return sum(map(abs, map(sub, self.probability, self.right))) / total if total else None

    @property
    def cross_entropy(self) -> float | None:
        """1 for an oracle, 0 for who always says the average, below 0 for worse; None where nothing is wrong.

        Source: normalised cross entropy, NIST.
        """
        total, right = sum(self.words), sum(self.right)
        if right in (0, total):
            return None  # there is nothing to tell apart
        average = right / total
        entropy = -(right * log2(average) + (total - right) * log2(1 - average))
        return 1 + self.log2_likelihood / entropy
