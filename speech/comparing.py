"""What two model versions heard in one recording: against each other, and against what is said, if known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from speech.evidence import Calibration
from speech.normalizing import TimedWord, normalized
from speech.scoring import Pair, Score, aligned
from speech.types import Seconds

Right: TypeAlias = Literal["a", "b", "neither"]


@dataclass(frozen=True, slots=True)
class WordDiff:
    """A place where they differ; None where one has no word. ``right`` is None where nobody knows."""

    word_a: str | None
    word_b: str | None
    start_s: Seconds
    right: Right | None


@dataclass(frozen=True, slots=True)
class Against:
    """One model against what is said: words, characters, and whether it is right as often as it says."""

    words: Score
    character_errors: int
    characters: int
    confidence: Calibration


@dataclass(frozen=True, slots=True)
class Compared:
    """Both in one recording. ``between`` takes A for what is said; ``a``, ``b`` need a reference."""

    between: Score
    a: Against | None
    b: Against | None
    diff: tuple[WordDiff, ...]


def compare(
    heard_a: Sequence[TimedWord],
    heard_b: Sequence[TimedWord],
    said: Sequence[TimedWord] | None,
    language: str,
) -> Compared:
    """Compare what two models heard in a recording in this language."""
    a, b = normalized(heard_a, language), normalized(heard_b, language)
    pairs = aligned(a, b)
    if said is None:
        return Compared(Score.of(pairs), None, None, _diff(pairs, {}))
    truth = normalized(said, language)
    to_a, to_b = aligned(truth, a), aligned(truth, b)
    of = {id(pair.heard): pair for pair in (*to_a, *to_b) if pair.heard}
    return Compared(Score.of(pairs), _against(to_a), _against(to_b), _diff(pairs, of))


def _against(pairs: Sequence[Pair]) -> Against:
    from rapidfuzz.distance import Levenshtein

    said = " ".join(pair.said.word for pair in pairs if pair.said)
    heard = " ".join(pair.heard.word for pair in pairs if pair.heard)
    errors = Levenshtein.distance(said, heard)
    judged = [
        (pair.heard.probability, pair.is_hit)
        for pair in pairs
        if pair.heard and pair.heard.probability is not None
    ]
    return Against(Score.of(pairs), errors, len(said), Calibration.of(judged))


def _diff(pairs: Sequence[Pair], of: dict[int, Pair]) -> tuple[WordDiff, ...]:
    found, clock = [], 0.0
    for a, b in pairs:
        clock = next((word.start_s for word in (a, b) if word and word.start_s is not None), clock)
        if not (a and b and a.word == b.word):
            right = who_is_right(a, b, of) if of else None
            found.append(WordDiff(a.word if a else None, b.word if b else None, clock, right))
    return tuple(found)


def who_is_right(a: TimedWord | None, b: TimedWord | None, of: dict[int, Pair]) -> Right:
    """A word is right where the reference has it, no word where the other has one too many."""

    def is_right(mine: TimedWord | None, others: TimedWord | None) -> bool:
        return of[id(mine)].is_hit if mine else bool(others and of[id(others)].said is None)

    if is_right(a, b):
        return "a"
    return "b" if is_right(b, a) else "neither"
