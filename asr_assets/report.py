"""A comparison as one HTML page, for whoever decides whether B takes A's place and has to show why.

It needs nothing but itself, runs no script, and is the same bytes for the same warehouse. What was said, keys
and conditions are other people's text: the template escapes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from asr_assets import comparison_pictures as pictures
from resources import snapshot
from speech.comparing import WordDiff, who_is_right
from speech.errors import AsrError
from speech.normalizing import TimedWord, normalized
from speech.scoring import aligned
from speech.types import Seconds

TEMPLATE = Path(__file__).with_name("report.html.jinja")
ROWS = 200  # of the table by condition
PLACES = 200  # where two texts differ, that are shown of one video
RUN, CONTEXT = 12, 5  # words that both have: of a longer run only so many are shown at its ends

Finding: TypeAlias = tuple[str, str, str, bool]
"""Of the promotion gate: what it looked at, what it found, the bound, and whether that holds."""

_HEARD = """
WITH heard AS (
    SELECT c.*, v.video_key, v.duration_s, v.reference,
           substitutions_a + deletions_a + insertions_a AS errors_a,
           substitutions_b + deletions_b + insertions_b AS errors_b
    FROM comparison_by_video AS c JOIN videos_current AS v USING (video_id)
    SEMI JOIN (FROM comparison WHERE condition = 'all') AS verdict
    USING (model_a, model_b, fingerprint_a, fingerprint_b, normalizer)
    WHERE model_a = $a AND model_b = $b AND coalesce(conditions['condition'], 'original') = 'original'
)
"""  # the videos of the verdict: no twins, and nothing that former definitions have heard
_MOST_DIFFERENT = f"""{_HEARD}
FROM heard WHERE edits > 0
ORDER BY reference_words IS NULL, abs(errors_b - errors_a) DESC, edits DESC, video_key, video_id LIMIT $n
"""
_SURE = f"""{_HEARD}
SELECT side, sum(sure.words[n]) AS words, sum(sure.probability[n]) AS probability,
       sum(sure."right"[n]) AS "right"
FROM (SELECT 'a' AS side, confidence_a AS sure FROM heard UNION ALL SELECT 'b', confidence_b FROM heard),
     range(1, 11) AS tenths(n)
WHERE sure IS NOT NULL GROUP BY side, n ORDER BY side, n
"""  # noqa: S608 all of it is ours
_WORDS = (
    "SELECT word, start_s FROM words WHERE video_id = $video AND model_version = $model ORDER BY word_index"
)
_RIGHT = "SELECT place, is_right FROM word_diff WHERE video_id = $video AND model_a = $a AND model_b = $b"
_STARTS = f"""{_HEARD}
SELECT side, quantile_cont(abs(ms), [n / 400 FOR n IN range(401)]) AS ms FROM (
    SELECT 'a' AS side, unnest(start_errors_a_ms) AS ms FROM heard
    UNION ALL SELECT 'b', unnest(start_errors_b_ms) FROM heard
    UNION ALL SELECT 'between', unnest(start_differences_ms) FROM heard
) GROUP BY side
"""  # noqa: S608 all of it is ours


@dataclass(frozen=True, slots=True)
class Part:
    """Of a running text: words that both have, how many of them are left out, or a place where they differ.

    ``said`` is the reference's word there; None where it has none, or nobody knows.
    """

    same: str = ""
    left_out: int = 0
    diff: WordDiff | None = None
    said: str | None = None


def write_report(
    connection: duckdb.DuckDBPyConnection, a: str, b: str, findings: Sequence[Finding] = (), videos: int = 20
) -> str:
    """The page, with the text of so many videos that differ most. Raises AsrError for no comparison."""
    from jinja2 import Environment, StrictUndefined

    pair = {"a": a, "b": b}
    rows = snapshot.rows(connection, "FROM comparison WHERE model_a = $a AND model_b = $b", pair)
    total = next((row for row in rows if row["condition"] == "all"), None)
    if total is None:
        raise AsrError(f"{a} and {b} have not been compared: run asr compare {a} {b}")
    different = snapshot.rows(connection, _MOST_DIFFERENT, pair | {"n": videos})
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": number, "clock": clock}
    return page.from_string(TEMPLATE.read_text("utf-8")).render(
        pair,
        verdict=verdict(total),
        total=total,
        findings=findings,
        figures=_figures(connection, rows, pair),
        rows=pictures.largest(rows, ROWS),
        left_out=max(0, len(rows) - ROWS),
        videos=[video | {"parts": _running_text(connection, video)} for video in different],
        places=PLACES,
    )


def verdict(total: pictures.Row) -> str:
    """What the interval says, in a sentence."""
    a, b, between = total["model_a"], total["model_b"], total["wer_difference"]
    if between is None:
        unknown = f"Nobody knows what is said in any of the {_counted(total['videos'], 'video')}"
        differ = f"They differ in {number(total['disagreement'], '.1f', ' %', 100)} of {a}'s words."
        return f"{unknown}, and so which of the two is right. {differ}"
    form = ".1f" if abs(between) >= 0.001 else ".2f"
    wer_a, wer_b = (number(total[wer], form, " %", 100) for wer in ("wer_a", "wer_b"))
    counted = f"{_counted(total['referenced'], 'video')}, {_counted(total['reference_words'], 'word')}"
    low, high, p = total["wer_difference_low"], total["wer_difference_high"], total["p_value"]
    if low is None:
        return f"So few videos can show no difference (WER {wer_b} against {wer_a}; {counted})."
    confidence = number(total["confidence"], "g", " %", 100)
    interval = f"{confidence} interval {100 * low:{form}} to {100 * high:{form}} points"
    what = f"No difference can be shown between {b} and {a}"
    if not low <= 0 <= high:
        by = f"{100 * abs(between):{form}} points {'fewer' if high < 0 else 'more'}"
        what = f"{b} makes {by} errors than {a}"
    counted = f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}, {counted}"
    return f"{what} (WER {wer_b} against {wer_a}; {interval}, {counted})."


def _figures(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[pictures.Row], pair: dict[str, str]
) -> list[tuple[str, str]]:
    """``(what it shows, SVG)`` of what there is to draw."""
    sure: dict[str, dict[str, list[float]]] = {}
    for row in snapshot.rows(connection, _SURE, pair):
        for name in ("words", "probability", "right"):
            sure.setdefault(row["side"], {}).setdefault(name, []).append(row[name])
    ms = {row["side"]: row["ms"] for row in snapshot.rows(connection, _STARTS, pair)}
    starts = (ms.get("a", ()), ms.get("b", ())) if "a" in ms or "b" in ms else (ms.get("between", ()),)
    drawn = {
        "Differences of word error rates": pictures.differences(rows),
        "Word error rates by condition": pictures.wer_by_condition(rows),
        "Probability and truth": pictures.calibration(sure.get("a"), sure.get("b")),
        "Starts of words": pictures.start_errors(*starts),
    }
    return [(what, pictures.as_svg(figure, what)) for what, figure in drawn.items() if figure]


def _running_text(connection: duckdb.DuckDBPyConnection, video: dict[str, Any]) -> list[Part]:
    """What both heard in a video as one text, up to the last place that is shown."""
    asked = {"video": video["video_id"]}
    heard_a, heard_b = (
        [TimedWord(**word) for word in snapshot.rows(connection, _WORDS, asked | {"model": model})]
        for model in (video["model_a"], video["model_b"])
    )
    said = [TimedWord(word) for word in (video["reference"] or "").split()]
    a, b, truth = (normalized(words, video["language"]) for words in (heard_a, heard_b, said))
    of = {id(pair.heard): pair for one in (a, b) for pair in aligned(truth, one) if pair.heard}
    pair = {"video": video["video_id"], "a": video["model_a"], "b": video["model_b"]}
    rights = {row["place"]: row["is_right"] for row in snapshot.rows(connection, _RIGHT, pair)}
    parts, places = list[Part](), 0
    for is_same, pairs in groupby(aligned(a, b), lambda pair: pair.is_hit):
        if is_same:
            parts.extend(_shortened([pair.heard.word for pair in pairs if pair.heard]))
            continue
        for one, other in pairs:
            if (places := places + 1) > PLACES:
                return parts
            right = who_is_right(one, other, of) if video["reference"] else rights.get(places)
            truly = next((of[id(word)].said for word in (one, other) if word and of[id(word)].said), None)
            start_s = next(word.start_s for word in (one, other) if word)
            in_a, in_b, said_there = (word.word if word else None for word in (one, other, truly))
            parts.append(Part(diff=WordDiff(in_a, in_b, start_s or 0.0, right), said=said_there))
    return parts


def _shortened(words: Sequence[str]) -> Iterable[Part]:
    if len(words) <= RUN:
        return [Part(same=" ".join(words))]
    first, last = " ".join(words[:CONTEXT]), " ".join(words[-CONTEXT:])
    return [Part(same=first), Part(left_out=len(words) - 2 * CONTEXT), Part(same=last)]


def number(value: float | None, form: str = ",.0f", unit: str = "", scale: float = 1) -> str:
    """As a reader writes it; a dash where there is none."""
    written = "\N{EN DASH}" if value is None else f"{scale * value:{form}}{unit}"
    return written.replace(",", " ").replace(" ", "\N{NO-BREAK SPACE}")


def clock(seconds: Seconds) -> str:
    """A time in a video, as a player shows it."""
    tenths = round(10 * seconds)
    return f"{tenths // 600:02}:{tenths % 600 / 10:04.1f}"


def _counted(n: int, what: str) -> str:
    return f"{number(n)} {what}" if n == 1 else f"{number(n)} {what}s"
