"""What ``asr compare`` prints: two model versions side by side, in total and by condition."""

from typing import Any, NamedTuple

import duckdb
from rich.table import Table

from asr_assets.drawing import printable, table
from resources import snapshot
from resources.comparisons import Pair
from speech.errors import NothingInCommon


class Measure(NamedTuple):
    """A line of the table: a column of ``comparison`` less its ``_a``, and how its values are written."""

    name: str
    column: str
    written: str
    times: float = 1.0

    def of(self, row: dict[str, Any], side: str) -> str:
        """A model version's value."""
        value = row[f"{self.column}_{side}"]
        return "-" if value is None else self.written.format(self.times * value)


MEASURES = (
    Measure("WER", "wer", "{:.2f} %", 100),
    Measure("CER", "cer", "{:.2f} %", 100),
    Measure("substitutions", "substitutions", "{:.0f}"),
    Measure("deletions", "deletions", "{:.0f}"),
    Measure("insertions", "insertions", "{:.0f}"),
    Measure("words heard", "words", "{:.0f}"),
    Measure("start error, median", "start_error", "{:.0f} ms"),
    Measure("calibration error", "calibration_error", "{:.3f}"),
    Measure("cross entropy, normalised", "cross_entropy", "{:.3f}"),
    Measure("RTFx: audio for as much work", "rtfx", "{:.1f}"),
    Measure("peak memory", "peak", "{:.0f} MB"),
    Measure("cost of an hour of audio", "cost", "{:.4f}"),
)


def rows_of(connection: duckdb.DuckDBPyConnection, pair: Pair) -> list[dict[str, Any]]:
    """The rows of the table ``comparison``, the total first.

    Raises :class:`~speech.errors.NothingInCommon` where there is no current video that both have heard.
    """
    rows = snapshot.rows(
        connection,
        "FROM comparison WHERE model_a = ? AND model_b = ? ORDER BY condition <> 'all', condition, value",
        list(pair),
    )
    if not rows or rows[0]["condition"] != "all":  # none but twins
        raise NothingInCommon(
            f"no current video was heard by both {pair.a} and {pair.b} as they are now defined; asr run has "
            "each hear what it lacks, asr models lists the definitions"
        )
    return rows


def totals(row: dict[str, Any], pair: Pair) -> Table:
    """All measures side by side."""
    known = (
        f"{row['referenced']} of {row['videos']} videos have a reference: {row['reference_words'] or 0} words"
    )
    shown = table("", *pair, title=known)
    row = row | {f"start_error_{side}": row[f"start_error_{side}_ms"] for side in "ab"}
    row |= {f"peak_{side}": row[f"peak_gpu_mb_{side}"] or row[f"peak_mb_{side}"] for side in "ab"}
    for measure in MEASURES:
        shown.add_row(measure.name, measure.of(row, "a"), measure.of(row, "b"))
    return shown


def by_condition(rows: list[dict[str, Any]], pair: Pair) -> Table:
    """Word error rates, their difference and its interval; disagreement where nothing is known."""
    titles = ("condition", "value", "videos", "words", *(f"WER {model}" for model in pair))
    shown = table(*titles, "difference in points", "interval", "p", "disagreement", title="By condition")
    for row in rows:
        low, high = row["wer_difference_low"], row["wer_difference_high"]
        shown.add_row(
            printable(row["condition"]),
            printable(row["value"]),
            str(row["videos"]),
            str(row["reference_words"] or "-"),
            _percent(row["wer_a"]),
            _percent(row["wer_b"]),
            _points(row["wer_difference"]),
            "-" if low is None else f"{_points(low)} to {_points(high)}",
            "-" if row["p_value"] is None else f"{row['p_value']:.3g}",
            _percent(row["disagreement"]),
        )
    return shown


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{100 * difference:+.2f}"
