"""``asr promote`` and ``asr rollback``: another champion, by evidence, and back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import duckdb

from asr_assets.comparison import rows_of
from asr_assets.summarizing import difference_of
from resources.champions import Champion
from resources.comparisons import Pair
from resources.policy import Gate
from speech.errors import AsrError
from speech.normalizing import normalizer_version


class Finding(NamedTuple):
    """What the gate saw, what it had to be, and whether it is."""

    what: str
    value: str
    bound: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a promotion was decided by."""

    champion: str
    challenger: str
    gate: dict[str, Any]
    findings: tuple[Finding, ...]
    comparison: dict[str, Any]

    @property
    def passes(self) -> bool:
        """Whether nothing stands against it."""
        return all(finding.holds for finding in self.findings)

    @property
    def reasons(self) -> str:
        """What stands against it."""
        return "; ".join(
            f"{finding.what} is {finding.value}, and has to be {finding.bound}"
            for finding in self.findings
            if not finding.holds
        )

    def as_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return asdict(self) | {"findings": [finding._asdict() for finding in self.findings]}


def examine(
    connection: duckdb.DuckDBPyConnection,
    champion: Champion,
    challenger: str,
    gate: Gate,
    as_it_is: bool = False,
) -> Evidence:
    """Set a challenger, B, against the champion, A, at the gate.

    ``as_it_is``: the champion may be another definition by now than the one that became it. Raises
    :class:`~speech.errors.AsrError` where they have not been compared.
    """
    pair = Pair(champion.model, challenger)
    total = rows_of(connection, pair)[0]
    is_as_crowned = champion.fingerprint in (None, total["fingerprint_a"])
    findings = (
        Finding(
            "the champion's definition",
            "as it was crowned" if is_as_crowned else "changed since it became champion",
            "whatever it is" if as_it_is else "as it was crowned (or --as-it-is)",
            as_it_is or is_as_crowned,
        ),
        Finding(
            "the number of videos with a reference",
            str(total["referenced"]),
            f"at least {gate.videos}",
            total["referenced"] >= gate.videos,
        ),
        _wer(_counts(connection, pair, total), gate),
        _slower(total, gate),
        _later(total, gate),
    )
    return Evidence(pair.a, pair.b, gate.model_dump(), findings, total)


def _counts(
    connection: duckdb.DuckDBPyConnection, pair: Pair, total: dict[str, Any]
) -> list[tuple[int, int, int]]:
    return connection.execute(
        """
        SELECT substitutions_a + deletions_a + insertions_a, substitutions_b + deletions_b + insertions_b,
               reference_words
        FROM comparison_by_video SEMI JOIN videos_current USING (video_id)
        WHERE model_a = ? AND model_b = ? AND fingerprint_a = ? AND fingerprint_b = ? AND normalizer = ?
          AND reference_words IS NOT NULL AND conditions['condition'] = 'original'
        """,
        [*pair, total["fingerprint_a"], total["fingerprint_b"], normalizer_version()],
    ).fetchall()


def _wer(counts: Sequence[tuple[int, int, int]], gate: Gate) -> Finding:
    difference = difference_of(list(counts), gate.confidence)
    what = f"the upper end of the WER's difference (at {gate.confidence:.0%} confidence)"
    bound = f"at most {100 * gate.margin:+.2f} points"
    if difference is None or difference.high is None:
        return Finding(what, "unknown", bound, False)
    return Finding(
        what,
        f"{100 * difference.high:+.2f} points",
        bound,
        difference.high <= gate.margin,
    )


def _slower(total: dict[str, Any], gate: Gate) -> Finding:
    """On the same device: another one is another price, and no property of the model version."""
    what, bound = "the time for an hour of audio", f"at most {gate.slower:g} times the champion's"
    if total["slower"] is None:
        return Finding(what, "unknown: no video was heard by both on the same device", bound, False)
    return Finding(what, f"{total['slower']:.2f} times the champion's", bound, total["slower"] <= gate.slower)


def _later(total: dict[str, Any], gate: Gate) -> Finding:
    """Where nobody knows when words are said, their starts must lie near the champion's."""
    a, b = total["start_error_a_ms"], total["start_error_b_ms"]
    if a is None or b is None:
        what, off = "the median distance to the champion's word starts", total["start_difference_ms"]
    else:
        what, off = "the median start error (less the champion's)", b - a
    bound = f"at most {gate.later_ms:g} ms"
    if off is None:
        return Finding(what, "unknown", bound, False)
    return Finding(what, f"{off:.0f} ms", bound, off <= gate.later_ms)


def refuse(evidence: Evidence) -> AsrError:
    """Why it stays a challenger."""
    return AsrError(
        f"{evidence.challenger} stays a challenger of {evidence.champion}: {evidence.reasons}; "
        "the gate stands in models.toml, under [policy.gate]; --html FILE writes what it saw"
    )
