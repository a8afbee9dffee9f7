"""How right a transcript is: word error rate, and how far off the words' starts are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from speech.normalizing import TimedWord, normalized
from speech.types import Seconds


class Pair(NamedTuple):
    """A place in two aligned texts; None where one of them has no word there."""

    said: TimedWord | None
    heard: TimedWord | None

    @property
    def is_hit(self) -> bool:
        """Whether both have the same word there."""
        return bool(self.said and self.heard and self.said.word == self.heard.word)


def aligned(said: Sequence[TimedWord], heard: Sequence[TimedWord]) -> list[Pair]:
    """Two normalised texts side by side, with the fewest edits between them (jiwer).

    >>> [pair.is_hit for pair in aligned([TimedWord("the"), TimedWord("end")], [TimedWord("the")])]
    [True, False]
    """
    import jiwer

    if not said:
        return [Pair(None, word) for word in heard]
    chunks = jiwer.process_words(
        " ".join(word.word for word in said), " ".join(word.word for word in heard)
    ).alignments[0]
    return [pair for chunk in chunks for pair in _pairs(said, heard, chunk)]


def _pairs(one: Sequence[TimedWord], other: Sequence[TimedWord], chunk: object) -> Iterator[Pair]:
    ours = one[chunk.ref_start_idx : chunk.ref_end_idx]  # type: ignore[attr-defined]
    theirs = other[chunk.hyp_start_idx : chunk.hyp_end_idx]  # type: ignore[attr-defined]
    for n in range(max(len(ours), len(theirs))):
        yield Pair(ours[n] if n < len(ours) else None, theirs[n] if n < len(theirs) else None)


@dataclass(frozen=True, slots=True)
class Score:
    """Edits between a reference and a transcript, and start errors of the words both have.

    Scores add up, so that a rate over many videos is a rate over their words.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    start_errors_s: tuple[Seconds, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "Score":
        """Of a reference and a transcript that were aligned."""
        hits = [pair for pair in pairs if pair.is_hit]
        return cls(
            hits=len(hits),
            substitutions=sum(1 for said, heard in pairs if said and heard) - len(hits),
            deletions=sum(heard is None for _, heard in pairs),
            insertions=sum(said is None for said, _ in pairs),
            start_errors_s=tuple(
                heard.start_s - said.start_s
                for said, heard in hits
                if said and heard and said.start_s is not None and heard.start_s is not None
            ),
        )

    @property
    def words(self) -> int:
        """Of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Edits of any kind."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Word error rate: edits per reference word; inserted words alone count as 1.

        Source: (S + D + I) / N, as NIST sclite defines it.
        """
        return self.errors / self.words if self.words else float(self.errors > 0)

    @property
    def median_start_error_s(self) -> Seconds | None:
        """Median absolute start error over aligned equal words; None when there are none."""
        return median(abs(error) for error in self.start_errors_s) if self.start_errors_s else None

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.start_errors_s + other.start_errors_s,
        )


def score(reference: Sequence[TimedWord], heard: Sequence[TimedWord], language: str = "en") -> Score:
    """Align two word sequences and count.

    >>> said = [TimedWord("The", 0.10), TimedWord("end.", 0.50)]
    >>> score(said, [TimedWord("the", 0.12)]).wer
    0.5
    """
    return Score.of(aligned(normalized(reference, language), normalized(heard, language)))
