"""Texts as they are compared: without case, punctuation, fillers and other matters of style.

English as the Open ASR leaderboard does it, with the normaliser that the Whisper paper came with (Radford et
al. 2022, appendix C); other languages with its basic one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version

from speech.types import Seconds, normalize_word

_BY_CHARACTERS = {"zh", "ja", "th", "lo", "my", "yue"}  # no space says where a word ends


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word that was said or heard; None is what is not known of it. Times are on the video's timeline."""

    word: str
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    probability: float | None = None


def normalizer_version() -> str:
    """Which normaliser this is; another one gives other rates."""
    return f"whisper-normalizer {version('whisper-normalizer')}"


@cache
def normalizer(language: str) -> Callable[[str], str]:
    """From a text to the same text as it is compared, words with a space between."""
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    language = language.lower().partition("-")[0]  # of en-GB
    found: Callable[[str], str] = (
        EnglishTextNormalizer()
        if language == "en"
        else BasicTextNormalizer(split_letters=language in _BY_CHARACTERS)
    )
    return found


def normalized(words: Sequence[TimedWord], language: str) -> list[TimedWord]:
    """The words as they are compared; each has what is known of the one that it comes from.

    Words may become fewer ("twenty one") or more ("don't"), so that they are normalised together.

    >>> [word.word for word in normalized([TimedWord("Twenty"), TimedWord("one,"), TimedWord("don't")], "en")]
    ['21', 'do', 'not']
    """
    import jiwer

    plain = [word for word in words if normalize_word(word.word)]
    texts = normalizer(language)(" ".join(word.word for word in plain)).split()
    # Word by word "twenty one" stays two, but it is clear which word each text is from.
    alone = [(text, word) for word in plain for text in _alone(word.word, language)]
    if not alone or not texts:
        return []
    if texts == [text for text, _ in alone]:
        return [replace(word, word=text) for text, word in alone]
    aligned = jiwer.process_words(" ".join(text for text, _ in alone), " ".join(texts))
    of = [
        # One that was put in belongs to the word before it.
        max(0, chunk.ref_start_idx - 1) if chunk.type == "insert" else chunk.ref_start_idx + n
        for chunk in aligned.alignments[0]
        for n in range(chunk.hyp_end_idx - chunk.hyp_start_idx)
    ]
    return [replace(alone[number][1], word=text) for number, text in zip(of, texts, strict=True)]


@lru_cache(100_000)
def _alone(word: str, language: str) -> tuple[str, ...]:
    return tuple(normalizer(language)(word).split())
