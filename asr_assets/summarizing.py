"""Two model versions over all current videos, and by condition: the table ``comparison``."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from asr_assets.comparing import MEASURED
from resources import snapshot
from resources.comparisons import Pair
from speech.evidence import CONFIDENCE, Calibration, Difference, wer_difference
from speech.normalizing import normalizer_version


class Definitions(NamedTuple):
    """The fingerprints of a pair: what was heard by former definitions of these names is no evidence."""

    a: str
    b: str


MAX_VALUES = 20
"""Of what sidecars say: a key with more of them is a name, and no condition."""
_SUMMARY = Path(__file__).with_name("summary.sql").read_text(encoding="utf-8")


def summarize(
    connection: duckdb.DuckDBPyConnection,
    pair: Pair,
    definitions: Definitions,
    prices: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The rows of the table ``comparison`` for a pair; none where both have heard no current video.

    ``prices`` are of an hour of a worker, by device.
    """
    about = {
        "model_a": pair.a,
        "model_b": pair.b,
        "fingerprint_a": definitions.a,
        "fingerprint_b": definitions.b,
        "normalizer": normalizer_version(),
    }
    asked = {
        "devices": list(prices.keys()),
        "prices": list(prices.values()),
        "max_values": MAX_VALUES,
        "measured": list(MEASURED),
    }
    rows = snapshot.rows(connection, _SUMMARY, about | asked)
    return [about | _rounded(_judged(row)) for row in rows if row["videos"]]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """To nine digits: the last ones depend on the order in which rows were added."""
    return {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in row.items()}


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    """With what SQL alone cannot say."""
    counts = row.pop("counts")
    sure = {side: _calibration(row, side) for side in "ab"}
    difference = difference_of(counts or [])
    return row | {
        "wer_difference": difference and difference.value,
        "wer_difference_low": difference and difference.low,
        "wer_difference_high": difference and difference.high,
        "confidence": difference and difference.confidence,
        "p_value": difference and difference.p_value,
        **{f"calibration_error_{side}": one and one.expected_error for side, one in sure.items()},
        **{f"cross_entropy_{side}": one and one.cross_entropy for side, one in sure.items()},
    }


def difference_of(counts: list[tuple[int, int, int]], confidence: float = CONFIDENCE) -> Difference | None:
    """From errors of A, errors of B and words of each video; None where no words are said."""
    # In an order of their own: the same evidence gives the same interval on every machine.
    errors_a, errors_b, words = zip(*sorted(counts), strict=True) if counts else ((), (), ())
    return wer_difference(errors_a, errors_b, words, confidence) if sum(words) else None


def _calibration(row: dict[str, Any], side: str) -> Calibration | None:
    bins, likelihood = row.pop(f"confidence_{side}"), row.pop(f"log2_likelihood_{side}")
    if not bins:
        return None
    total = reduce(
        add,
        (Calibration(tuple(one["words"]), tuple(one["probability"]), tuple(one["right"])) for one in bins),
    )
    return Calibration(total.words, total.probability, total.right, likelihood)
