"""Captions: a transcript cut where a reader would cut it.

The limits are those that subtitle guidelines agree on (BBC Subtitle Guidelines 1.2, Netflix Timed
Text Style Guide): two lines of 42 characters, at most 17 characters a second, up to 7 seconds. Among
all ways to cut within them the cheapest is taken: best at the end of a sentence, then at a pause or
a comma, and as few captions as possible.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from speech.types import Seconds, Transcript, Word, ends_sentence

LINE_CHARACTERS = 42
LINES = 2
LONGEST_S: Seconds = 7.0
SHORTEST_S: Seconds = 0.8
CHARACTERS_PER_S = 17.0
PAUSE_S: Seconds = 1.0  # nobody wants to read on over a pause like this
_CLAUSE_ENDS = (",", ";", ":", "\u2013", "\u2014")


@dataclass(frozen=True, slots=True)
class Caption:
    """Lines of text that are shown together; ``side`` is that of stereo, where the two were heard apart."""

    start_s: Seconds
    end_s: Seconds
    lines: tuple[str, ...]
    side: str = ""


def captions(transcript: Transcript) -> list[Caption]:
    """All captions, by their start; each shown long enough to be read, as far as the next one lets it.

    Those of the two sides of stereo may be shown at the same time, as their words were said.
    """
    by_channel: dict[int | None, list[Word]] = {}
    for word in transcript.words:
        by_channel.setdefault(word.channel, []).append(word)
    made = (caption for words in by_channel.values() for caption in _of_channel(words, transcript.duration_s))
    return sorted(made, key=lambda caption: caption.start_s)


def _of_channel(words: Sequence[Word], duration_s: Seconds) -> Iterator[Caption]:
    groups = [group for stretch in _stretches(words) for group in _cut(stretch)]
    for group, following in zip_longest(groups, groups[1:]):
        lines = _lines([word.text for word in group])
        start, end = group[0].start_s, group[-1].end_s
        wanted = start + max(SHORTEST_S, sum(map(len, lines)) / CHARACTERS_PER_S)
        after = following[0].start_s if following else duration_s
        yield Caption(start, max(end, min(wanted, after)), lines, group[0].side)


def _stretches(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Words without a long pause: no caption reaches over their ends."""
    stretch: list[Word] = []
    for word in words:
        if stretch and word.start_s - stretch[-1].end_s > PAUSE_S:
            yield stretch
            stretch = []
        stretch.append(word)
    if stretch:
        yield stretch


def _cut(words: Sequence[Word]) -> list[Sequence[Word]]:
    """The cheapest cut of a stretch, by dynamic programming over the ends of captions."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of all words before, and where the last caption began
    for end in range(1, len(words) + 1):
        choices: list[tuple[float, int]] = []
        characters = -1
        for first in range(end - 1, -1, -1):
            characters += len(words[first].text) + 1
            if choices and characters > LINES * LINE_CHARACTERS:
                break
            choices.append((best[first][0] + _cost(words[first:end], words[end : end + 1]), first))
        best.append(min(choices))
    cuts, end = [], len(words)
    while end:
        first = best[end][1]
        cuts.append(words[first:end])
        end = first
    return cuts[::-1]


def _cost(words: Sequence[Word], following: Sequence[Word]) -> float:
    """What is wrong with words as one caption; far above all else where they break a limit."""
    text = " ".join(word.text for word in words)
    length_s = words[-1].end_s - words[0].start_s
    cost = 2.0  # each caption is one more thing to read
    if len(words) > 1 and (len(_lines(text.split())) > LINES or length_s > LONGEST_S):
        cost += 1000.0
    cost += max(0.0, len(text) / max(length_s, SHORTEST_S) - CHARACTERS_PER_S) / 4
    cost += 2.0 * sum(ends_sentence(word.text) for word in words[:-1])  # a sentence should end one
    if following and not ends_sentence(text):
        pause_s = following[0].start_s - words[-1].end_s
        cost += 1.5 if text.endswith(_CLAUSE_ENDS) else max(1.0, 4.0 - 6.0 * pause_s)
    if len(text) < LINE_CHARACTERS / 3:
        cost += 1.0
    return cost


def _lines(words: list[str]) -> tuple[str, ...]:
    """Words on as few lines as they fit, as even as possible, the lower one longer."""
    text = " ".join(words)
    if len(text) <= LINE_CHARACTERS:
        return (text,)
    splits = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words))]
    fitting = [split for split in splits if max(map(len, split)) <= LINE_CHARACTERS]
    if fitting:
        return min(fitting, key=_unevenness)
    lines = [""]
    for word in words:  # more than fits: a single endless word, or a caller that only counts
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= LINE_CHARACTERS or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return tuple(lines)


def _unevenness(split: tuple[str, str]) -> int:
    """How uneven two lines are, in characters; that a sentence or a clause ends there is worth some."""
    upper, lower = split
    ended = 24 if ends_sentence(upper) else 16 if upper.endswith(_CLAUSE_ENDS) else 0
    return abs(len(lower) - len(upper) - 1) - ended
