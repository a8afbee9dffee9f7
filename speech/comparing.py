"""What two model versions heard in one recording: against each other, and against what is said, if known.

What is said is known from a reference, or from somebody who listened to the places where the two differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, Self, TypeAlias, TypeVar

from speech.evidence import Calibration
from speech.normalizing import TimedWord, normalized
from speech.scoring import Pair, Score, aligned
from speech.types import Seconds

Right: TypeAlias = Literal["a", "b", "neither"]
V = TypeVar("V")
MOVED_S: Seconds = 0.5
"""A place that is farther from where somebody listened is another one."""


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


class Place(NamedTuple):
    """What identifies a stretch in which two models differ: where it begins, and the words of both."""

    start_s: Seconds
    a: str
    b: str


class Stretch(NamedTuple):
    """Words in a row that two models both have, or in which they differ."""

    pairs: tuple[Pair, ...]
    is_same: bool

    @classmethod
    def all_of(cls, pairs: Sequence[Pair]) -> list[Self]:
        """Of two aligned texts, one after the other."""
        return [cls(tuple(found), same) for same, found in groupby(pairs, lambda pair: pair.is_hit)]

    @property
    def a(self) -> list[TimedWord]:
        """A's words."""
        return [pair.said for pair in self.pairs if pair.said]

    @property
    def b(self) -> list[TimedWord]:
        """B's words."""
        return [pair.heard for pair in self.pairs if pair.heard]

    @property
    def start_s(self) -> Seconds:
        """Of its first word."""
        return min((word.start_s for word in (*self.a, *self.b) if word.start_s is not None), default=0.0)

    @property
    def end_s(self) -> Seconds:
        """Of its last word."""
        return max((word.end_s for word in (*self.a, *self.b) if word.end_s is not None), default=0.0)

    @property
    def place(self) -> Place:
        """Under which somebody's verdict is kept."""
        return Place(self.start_s, *(" ".join(word.word for word in side) for side in (self.a, self.b)))


def stretches(a: Sequence[TimedWord], b: Sequence[TimedWord], is_turned: bool = False) -> list[Stretch]:
    """Two normalised texts, stretch by stretch.

    Of several ways to align two texts that need as few edits, the other order may have another: ``is_turned``
    is for that order's, whose places are those that somebody has judged.
    """
    pairs = [Pair(one, other) for other, one in aligned(b, a)] if is_turned else aligned(a, b)
    return Stretch.all_of(pairs)


Verdicts: TypeAlias = Sequence[tuple[Place, str]]
"""What is truly said at places where two models differ, by somebody who has listened."""


def compare(
    heard_a: Sequence[TimedWord],
    heard_b: Sequence[TimedWord],
    said: Sequence[TimedWord] | None,
    language: str,
    verdicts: Verdicts = (),
    is_turned: bool = False,
) -> Compared:
    """Compare what two models heard in a recording in this language.

    Without a reference, verdicts about *all* places where they differ are one: what both heard alike counts
    as said, which changes neither's errors more than the other's. ``is_turned``: see :func:`stretches`.
    """
    a, b = normalized(heard_a, language), normalized(heard_b, language)
    pairs = aligned(a, b)
    if said is None:
        to_a, to_b, are_all = _by_ear(stretches(a, b, is_turned), verdicts, language)
    else:
        truth = normalized(said, language)
        to_a, to_b, are_all = aligned(truth, a), aligned(truth, b), True
    of = {id(pair.heard): pair for pair in (*to_a, *to_b) if pair.heard}
    against_a, against_b = (_against(to) if are_all else None for to in (to_a, to_b))
    return Compared(Score.of(pairs), against_a, against_b, _diff(pairs, of))


def _by_ear(
    found: Sequence[Stretch], verdicts: Verdicts, language: str
) -> tuple[list[Pair], list[Pair], bool]:
    """What is known to be said beside what each heard there, and whether that is all of it."""
    to_a, to_b, judged = list[Pair](), list[Pair](), judged_among(found, verdicts)
    are_all = bool(verdicts)
    for number, stretch in enumerate(found):
        if stretch.is_same:
            # Without times: theirs are not the truth about their own.
            for to, words in ((to_a, stretch.a), (to_b, stretch.b)):
                to += [Pair(TimedWord(word.word), word) for word in words]
        elif (said := judged.get(number)) is None:
            are_all = False
        else:
            truth = _truth(stretch, said, language)
            to_a += aligned(truth, stretch.a)
            to_b += aligned(truth, stretch.b)
    return to_a, to_b, are_all


def _truth(stretch: Stretch, said: str, language: str) -> list[TimedWord]:
    """What one of them heard stands there as it is compared; again normalised, "02" would become "2"."""
    for side, text in ((stretch.a, stretch.place.a), (stretch.b, stretch.place.b)):
        if said == text:
            return [TimedWord(word.word) for word in side]
    return normalized([TimedWord(word) for word in said.split()], language)


def judged_among(found: Sequence[Stretch], verdicts: Iterable[tuple[Place, V]]) -> dict[int, V]:
    """Verdicts by the number of the stretch that each is about; of several about one, the first.

    A verdict is about the nearest of stretches with its words, for stutterers say the same at once again.
    """
    of_words = dict[tuple[str, str], list[int]]()
    for number, stretch in enumerate(found):
        if not stretch.is_same:
            of_words.setdefault((stretch.place.a, stretch.place.b), []).append(number)
    judged = dict[int, V]()
    for place, verdict in verdicts:
        near = [(abs(found[n].start_s - place.start_s), n) for n in of_words.get((place.a, place.b), ())]
        off_s, number = min(near, default=(MOVED_S, -1))
        if off_s < MOVED_S:
            judged.setdefault(number, verdict)
    return judged


def language_of(hint: str | None, heard: Iterable[str | None]) -> str:
    """In which two transcripts are compared: what is known of the video, else the first that was heard."""
    return hint or next((language for language in heard if language), "en")


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
            known = all(id(word) in of for word in (a, b) if word)
            right = who_is_right(a, b, of) if known else None
            found.append(WordDiff(a.word if a else None, b.word if b else None, clock, right))
    return tuple(found)


def who_is_right(a: TimedWord | None, b: TimedWord | None, of: dict[int, Pair]) -> Right:
    """A word is right where the reference has it, no word where the other has one too many."""

    def is_right(mine: TimedWord | None, others: TimedWord | None) -> bool:
        return of[id(mine)].is_hit if mine else bool(others and of[id(others)].said is None)

    if is_right(a, b):
        return "a"
    return "b" if is_right(b, a) else "neither"
