"""How right a transcript is: word error rate, and how far off the words' starts are."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from speech.types import Seconds, normalize_word


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A reference or heard word; ``start_s`` on the video's timeline."""

    word: str
    start_s: Seconds


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

    @property
    def wer(self) -> float:
        """Word error rate: edits per reference word; inserted words alone count as 1.

        Source: (S + D + I) / N, as NIST sclite defines it.
        """
        reference = self.hits + self.substitutions + self.deletions
        edits = self.substitutions + self.deletions + self.insertions
        return edits / reference if reference else float(edits > 0)

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


def score(reference: Sequence[TimedWord], heard: Sequence[TimedWord]) -> Score:
    """Align two word sequences with the fewest edits (jiwer) and compare them.

    >>> said = [TimedWord("The", 0.10), TimedWord("end.", 0.50)]
    >>> score(said, [TimedWord("the", 0.12)]).wer
    0.5
    """
    import jiwer

    said = [word for word in reference if normalize_word(word.word)]
    got = [word for word in heard if normalize_word(word.word)]
    if not said:
        return Score(insertions=len(got))
    result = jiwer.process_words(
        " ".join(normalize_word(word.word) for word in said),
        " ".join(normalize_word(word.word) for word in got),
    )
    errors = [
        got[chunk.hyp_start_idx + n].start_s - said[chunk.ref_start_idx + n].start_s
        for chunk in result.alignments[0]
        if chunk.type == "equal"
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    return Score(result.hits, result.substitutions, result.deletions, result.insertions, tuple(errors))
