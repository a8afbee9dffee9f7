"""Scores that can be checked by hand."""

import pytest

from speech.normalizing import TimedWord
from speech.scoring import Score, score


def timed(text: str, start: float = 0.0) -> list[TimedWord]:
    return [TimedWord(word, start + n) for n, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("said", "heard", "wer"),
    [
        ("a b c d", "a b c d", 0.0),
        ("A, b. C! d", "a b c d", 0.0),
        ("a b c d", "a x c d", 0.25),
        ("a b c d", "a c d", 0.25),
        ("a b c d", "a b b c d", 0.25),
        ("a b", "", 1.0),
        ("", "", 0.0),
        ("", "noise", 1.0),
    ],
)
def test_word_error_rate(said: str, heard: str, wer: float) -> None:
    assert score(timed(said), timed(heard)).wer == wer


def test_start_errors_are_taken_over_aligned_words_only() -> None:
    result = score(timed("a b c"), timed("a x c", start=0.02))
    assert result.start_errors_s == pytest.approx((0.02, 0.02))
    assert result.median_start_error_s == pytest.approx(0.02)


def test_scores_add_up_over_words_not_over_videos() -> None:
    total = score(timed("a b c d e f g h i"), timed("a b c d e f g h i")) + score(timed("a"), timed("b"))
    assert total.wer == 0.1
    assert Score().median_start_error_s is None
