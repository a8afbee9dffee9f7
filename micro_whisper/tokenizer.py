"""micro_whisper's tokenizer: Whisper's own, over a byte-level BPE vocabulary of its own.

The special tokens stand in Whisper's order, which readers of its checkpoints rely on: the last
special token is ``<|notimestamps|>``, the token after it ``<|0.00|>``. Most words are one token,
the rarer ones two or three, as it is with large vocabularies.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from micro_whisper.vocabulary import WORDS, sentence

TEXT_TOKENS = 256 + 224  # bytes, and merges of them
TIMESTAMPS = 1501  # 0.00 to 30.00 s in steps of 0.02 s
_CORPUS = 4000


def build() -> Any:
    """A new ``WhisperTokenizer``; the same each time."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import AddedToken, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=TEXT_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rng = np.random.default_rng(0)
    learner.train_from_iterator((f" {sentence(rng)}." for _ in range(_CORPUS)), trainer)
    bpe = json.loads(learner.to_str())["model"]
    specials = [
        *("<|startoftranscript|>", *(f"<|{language}|>" for language in list(LANGUAGES)[:99])),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
        "<|notimestamps|>",
    ]
    tokenizer = WhisperTokenizer(
        vocab=bpe["vocab"] | {"<|endoftext|>": len(bpe["vocab"])},
        merges=[tuple(merge) for merge in bpe["merges"]],
        extra_special_tokens=specials,
        pad_token="<|endoftext|>",  # noqa: S106 - a token of text, no secret
    )
    tokenizer.add_tokens(
        [
            AddedToken(f"<|{step * 0.02:.2f}|>", lstrip=False, rstrip=False, normalized=False, special=False)
            for step in range(TIMESTAMPS)
        ]
    )
    return tokenizer


@dataclass(frozen=True, slots=True)
class Tokens:
    """The numbers of the tokens that training needs: specials by name, words by text."""

    end: int
    start: int
    english: int
    transcribe: int
    previous: int
    no_speech: int
    no_timestamps: int
    first_timestamp: int
    full_stop: int
    words: dict[str, tuple[int, ...]]
    lengths: dict[int, int]

    @classmethod
    def of(cls, tokenizer: Any) -> "Tokens":
        """Look them up once: a tokenizer is too slow to ask for each example."""
        specials = {
            "end": "<|endoftext|>",
            "start": "<|startoftranscript|>",
            "english": "<|en|>",
            "transcribe": "<|transcribe|>",
            "previous": "<|startofprev|>",
            "no_speech": "<|nospeech|>",
            "no_timestamps": "<|notimestamps|>",
            "first_timestamp": "<|0.00|>",
            "full_stop": ".",
        }
        numbers = {name: tokenizer.convert_tokens_to_ids(token) for name, token in specials.items()}
        words = {word: tuple(tokenizer(f" {word}", add_special_tokens=False).input_ids) for word in WORDS}
        pieces = {token for tokens in words.values() for token in tokens}
        lengths = {token: len(tokenizer.convert_ids_to_tokens(token)) for token in pieces}
        return cls(**numbers, words=words, lengths=lengths)
