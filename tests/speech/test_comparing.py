"""What is compared: words without their style, and who of two is right where they differ."""

import pytest

from speech.comparing import Place, compare, judged_among, language_of, stretches
from speech.evidence import Calibration, matched_pairs, wer_difference
from speech.normalizing import TimedWord, normalized


def timed(text: str, start_s: float = 0.0, probability: float = 0.9) -> list[TimedWord]:
    return [
        TimedWord(word, start_s + n, start_s + n + 0.5, probability) for n, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("text", "language", "as_compared"),
    [
        ("Hello, World!", "en", "hello world"),
        ("the colour of it", "en-GB", "the color of it"),
        ("Mr. Smith won't go", "en", "mister smith will not go"),
        ("uh it is um here", "en", "it is here"),
        ("twenty one cars", "en", "21 cars"),
        ("it costs $20", "en", "it costs $20"),
        ("l'été, déjà", "fr", "l été déjà"),
        ("東京 へ", "ja", "東 京 へ"),
        ("", "en", ""),
        ("... --", "en", ""),
    ],
)
def test_style_is_no_error(text: str, language: str, as_compared: str) -> None:
    assert " ".join(word.word for word in normalized(timed(text), language)) == as_compared


def test_words_keep_their_times_when_they_become_fewer_or_more() -> None:
    words = normalized(timed("the twenty one won't go"), "en")
    assert [(word.word, word.start_s) for word in words] == [
        ("the", 0.0),
        ("21", 1.0),
        ("will", 3.0),
        ("not", 3.0),
        ("go", 4.0),
    ]


def test_the_one_is_right_whose_word_is_said() -> None:
    both = compare(timed("so the cat sat here"), timed("the bat sat there"), timed("the cat sat there"), "en")
    assert [(place.word_a, place.word_b, place.right) for place in both.diff] == [
        ("so", None, "b"),
        ("cat", "bat", "a"),
        ("here", "there", "b"),
    ]
    assert both.diff[1].start_s == 2.0
    assert both.a
    assert both.b
    assert (both.a.words.errors, both.b.words.errors) == (2, 1)
    assert (both.a.characters, both.a.character_errors) == (len("the cat sat there"), 4)
    assert both.a.confidence.words[9] == 5
    assert both.a.confidence.right[9] == 3


def test_without_a_reference_nobody_is_right() -> None:
    both = compare(timed("the cat"), timed("the bat", start_s=0.03), None, "en")
    assert (both.a, both.b) == (None, None)
    assert [place.right for place in both.diff] == [None]
    assert both.between.errors == 1
    assert both.between.start_errors_s == pytest.approx([0.03])


def test_both_wrong_and_both_silent() -> None:
    both = compare(timed("a dog"), timed("a fog"), timed("a log"), "en")
    assert [place.right for place in both.diff] == ["neither"]
    nothing = compare([], [], timed("it is said"), "en")
    assert nothing.a
    assert (nothing.a.words.deletions, nothing.a.character_errors, nothing.diff) == (3, len("it is said"), ())
    invented = compare(timed("you"), [], [], "en")
    assert invented.a
    assert (invented.a.words.insertions, invented.a.character_errors, invented.diff[0].right) == (1, 3, "b")


def test_the_interval_holds_the_difference_and_is_the_same_each_time() -> None:
    a, b, words = (
        [3, 1, 4, 1, 5, 9, 2, 6] * 5,
        [2, 1, 3, 1, 4, 7, 2, 5] * 5,
        [20, 30, 25, 40, 35, 50, 20, 30] * 5,
    )
    found = wer_difference(a, b, words)
    assert found == wer_difference(a, b, words)
    assert found.low
    assert found.high
    assert found.value == pytest.approx(-30 / 1250)
    assert found.low < found.value < found.high < 0
    assert found.p_value is not None
    assert found.p_value < 0.001
    wider = wer_difference(a, b, words, confidence=0.999)
    assert wider.low is not None
    assert wider.low < found.low
    # Each video's words and errors together: there is no spread where all rates are the same.
    assert wer_difference([2, 4] * 3, [1, 2] * 3, [10, 20] * 3).low == pytest.approx(-0.1)
    # The same sign five times comes once in sixteen, six times once in 32.
    assert wer_difference([2, 4, 3, 5, 3], [1, 2, 1, 1, 1], [10] * 5).low is None
    assert wer_difference([2, 4, 3, 5, 3, 4], [1, 2, 1, 1, 1, 2], [10] * 6).low is not None
    assert wer_difference([2, 4, 3, 5, 3, 4], [1, 2, 1, 1, 1, 2], [10] * 6, confidence=0.99).low is None


@pytest.mark.parametrize(
    ("a", "b", "words", "low", "p_value"),
    [([1, 2] * 3, [1, 2] * 3, [10] * 6, 0.0, 1.0), ([1], [0], [10], None, None)],
)
def test_no_difference_and_no_evidence(
    a: list[float], b: list[float], words: list[float], low: float | None, p_value: float | None
) -> None:
    found = wer_difference(a, b, words)
    assert (found.low, found.p_value) == (low, p_value)


def test_what_is_equal_but_for_one_video_has_an_interval() -> None:
    found = wer_difference([1] * 100, [0] + [1] * 99, [10] * 100)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value == -0.001 <= 0 <= found.high < 0.005


def test_matched_pairs_are_students() -> None:
    assert matched_pairs([-1] * 4) == 0.125  # of eight such rows of signs, one
    assert matched_pairs([1, 2, 3]) == pytest.approx(0.0742, abs=1e-4)  # t = 3.4641, 2 degrees of freedom
    with pytest.raises(ValueError, match="no words are said"):
        wer_difference([0, 0], [0, 1], [0, 0])


def test_confidence_is_judged_by_what_came_true() -> None:
    sure = Calibration.of([(0.95, True)] * 10 + [(0.95, False)] * 10) + Calibration.of([(0.45, True)] * 20)
    assert sure.expected_error == pytest.approx((20 * 0.45 + 20 * 0.55) / 40)
    average = Calibration.of([(0.75, True)] * 3 + [(0.75, False)])
    assert average.cross_entropy == pytest.approx(0.0)
    oracle = Calibration.of([(1.0, True)] * 3 + [(0.0, False)])
    assert oracle.cross_entropy == pytest.approx(1.0, abs=1e-3)
    assert Calibration().expected_error is None
    assert Calibration.of([(0.9, True)]).cross_entropy is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("the cat sat on a mat", "the hat sat on the mat now"),
        ("call extension zero two now", "call extension two now"),
        ("room zero one is free", "room one is free"),
        ("agent double oh seven here", "agent seven here"),
        ("it took 20 s", "it took a while"),
    ],
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_whom_the_judge_believes_is_right(a: str, b: str, is_turned: bool) -> None:
    """A's text as it is compared must not be normalised once more: "02" would become "2", and B's."""
    found = stretches(normalized(timed(a), "en"), normalized(timed(b), "en"), is_turned)
    places = [one.place for one in found if not one.is_same]
    for side, errors in (("a", 0), ("b", 1)):
        verdicts = [(place, getattr(place, side)) for place in places]
        both = compare(timed(a), timed(b), None, "en", verdicts, is_turned)
        assert both.a
        assert both.b
        assert (both.a.words.errors > 0, both.b.words.errors > 0) == (bool(errors), not errors)
        assert {place.right for place in both.diff} == {side}
        half = compare(timed(a), timed(b), None, "en", verdicts[:-1], is_turned)
        assert half.a is None


def test_a_verdict_is_about_the_nearest_place_with_its_words() -> None:
    said = [TimedWord(word, start, start + 0.1) for word, start in (("so", 0.0), ("so", 0.5), ("so", 1.0))]
    stutter = [TimedWord("ha", 0.2, 0.3), said[0], TimedWord("ha", 0.6, 0.7), said[1], said[2]]
    found = stretches(normalized(stutter, "en"), normalized(said, "en"))
    places = [one.place for one in found if not one.is_same]
    assert len(places) == 2
    assert list(judged_among(found, [(places[1], "x")]).values()) == ["x"]
    assert compare(stutter, said, None, "en", [(places[1], "")]).a is None
    assert compare(stutter, said, None, "en", [(places[1], ""), (places[0], "ha")]).a
    moved = [(Place(place.start_s + 0.1, place.a, place.b), n) for n, place in enumerate(places)]
    assert sorted(judged_among(found, moved).values()) == [0, 1]
    assert judged_among(found, [(Place(9.0, places[0].a, places[0].b), "far")]) == {}


def test_the_language_is_what_is_known_or_was_heard_first() -> None:
    assert language_of("de", ["en"]) == "de"
    assert language_of(None, [None, "fr", "en"]) == "fr"
    assert language_of(None, []) == "en"
