"""What micro_whisper knows: 83 words, and the sentences made of them.

Half of all sentences follow a small grammar, so that the demo has something to say; the others are
words in any order, so that the model has to listen: trained on a grammar alone, it guesses.
"""

import hashlib

import numpy as np

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "orange", "purple")
VEHICLES = ("car", "bus", "train", "boat")
ANIMALS = ("dog", "cat", "bird", "horse")
PEOPLE = ("doctor", "teacher", "farmer", "sister")
VERBS = ("stops", "starts", "turns", "waits", "sleeps", "runs", "walks")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = (*DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "sixteen", "twenty", "thirty")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
PLACES = ("station", "garden", "river", "bridge", "market", "school")
ADVERBS = ("slowly", "quickly", "today", "tomorrow", "again")
OPENINGS = ("door", "window", "gate")
COMMANDS = ("open", "close", "paint")
OTHERS = ("the", "at", "near", "please", "call", "on", "and", "is", "not")

WORDS = (
    *(*COLOURS, *VEHICLES, *ANIMALS, *PEOPLE, *VERBS, *NUMBERS, *MONTHS),
    *(*PLACES, *ADVERBS, *OPENINGS, *COMMANDS, *OTHERS),
)

# Each element is a word or a choice; a tuple inside a template is drawn from.
_MOVERS = (*VEHICLES, *ANIMALS, *PEOPLE)
_TEMPLATES: tuple[tuple[str | tuple[str, ...], ...], ...] = (
    ("the", COLOURS, VEHICLES, VERBS, "at", NUMBERS),
    ("the", COLOURS, (*VEHICLES, *ANIMALS), VERBS, "near", "the", PLACES),
    ("the", PEOPLE, "walks", ADVERBS, "near", "the", PLACES),
    ("the", _MOVERS, VERBS, "and", "the", _MOVERS, VERBS, ADVERBS),
    ("please", COMMANDS, "the", COLOURS, OPENINGS),
    ("please", COMMANDS, "the", OPENINGS, "and", COMMANDS, "the", OPENINGS, ADVERBS),
    ("please", "call", "the", PEOPLE, "at", NUMBERS),
    ("call", DIGITS, DIGITS, DIGITS, DIGITS),
    ("call", DIGITS, DIGITS, DIGITS, "and", DIGITS, DIGITS, DIGITS),
    ("on", MONTHS, NUMBERS, "the", _MOVERS, VERBS, ADVERBS),
    ("on", MONTHS, NUMBERS, "the", PLACES, "is", "not", COLOURS),
    (NUMBERS, "and", NUMBERS, "is", NUMBERS),
    (ADVERBS, "the", (*_MOVERS, *OPENINGS), "is", "not", COLOURS),
    (("today", "tomorrow"), "the", PEOPLE, VERBS, "at", "the", PLACES),
)
_RANDOM_SHARE = 0.5
_HELD_OUT_SHARE = 0.1


def sentence(rng: np.random.Generator) -> str:
    """One sentence in lower case, without a full stop.

    >>> sentence(np.random.default_rng(3))
    'sister horse tomorrow'
    """
    if rng.random() < _RANDOM_SHARE:
        return " ".join(rng.choice(WORDS, rng.integers(2, 9)))
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))]
    return " ".join(part if isinstance(part, str) else str(rng.choice(part)) for part in template)


def held_out(text: str) -> bool:
    """Whether a sentence is kept for evaluation: one in ten, by its hash, so training never meets it."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < _HELD_OUT_SHARE * 2**64
