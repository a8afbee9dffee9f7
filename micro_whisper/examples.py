"""Training examples: sentences placed in a window, made worse, and what the decoder should write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from micro_whisper.synthesis import SpokenWord
from micro_whisper.tokenizer import TIMESTAMPS, Tokens
from micro_whisper.vocabulary import WORDS
from speech.types import SAMPLE_RATE, Samples, Seconds

FRAMES_PER_S = 50  # of the encoder: one for 20 ms
IGNORED = -100  # a position without a loss
_WORD_CLASS = {word: number for number, word in enumerate(WORDS, start=1)}  # 0: nobody speaks

Floats = npt.NDArray[np.float32]


class Sentence(NamedTuple):
    """One synthesised sentence, trimmed to its words."""

    samples: Samples
    words: tuple[SpokenWord, ...]


class Placed(NamedTuple):
    """A sentence's words where they stand in a window; ``whole`` unless the window ends inside it."""

    start_s: Seconds
    end_s: Seconds
    words: list[SpokenWord]
    whole: bool


class Target(NamedTuple):
    """One position the decoder writes: its token, the sound it should look at, whether it is learned."""

    token: int
    span: tuple[Seconds, Seconds] | None
    learned: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One window: ``samples`` ``(n,)``, and for each of its ``t`` target positions what goes in and out.

    ``spans`` are the seconds that a position's attention should rest on, ``frames`` the word class of
    each 20 ms of sound.
    """

    samples: Floats
    inputs: list[int]
    labels: list[int]
    spans: list[tuple[Seconds, Seconds] | None]
    frames: npt.NDArray[np.int64]


def example(
    rng: np.random.Generator, bank: Sequence[Sentence], tokens: Tokens, duration_s: Seconds, offset_s: Seconds
) -> Example:
    """Make one window of ``duration_s``, to be encoded as if it stood at ``offset_s`` of 30 seconds."""
    sound, placed = _compose(rng, bank, duration_s)
    frames = np.zeros(round(duration_s * FRAMES_PER_S), np.int64)
    for sentence in placed:
        for word, start_s, end_s in sentence.words:
            frames[round(start_s * FRAMES_PER_S) : round(end_s * FRAMES_PER_S)] = _WORD_CLASS[word]
    sound = _worsen(rng, sound, placed)
    prompt = _prompt(rng, bank, tokens)
    head = [tokens.start, tokens.english, tokens.transcribe]
    if rng.random() < 0.3:  # as readers prompt a model that they take for English-only
        head = head[:1]
    timed = rng.random() < 0.5
    written = _written(tokens, placed, offset_s, timed=timed)
    targets = [
        *(Target(token, None, False) for token in (*prompt, head[0])),
        *(Target(token, None, True) for token in head[1:]),
        *([] if timed else [Target(tokens.no_timestamps, None, bool(rng.random() < 0.1))]),
        *written,
    ]
    inputs = [target.token for target in targets[:-1]]
    labels = [target.token if target.learned else IGNORED for target in targets[1:]]
    if not placed:
        labels[len(prompt)] = tokens.no_speech
    elif timed and placed[0].start_s + offset_s > 1.0 and rng.random() < 0.6:
        # Decoding allows no first timestamp above 1.0 s: what follows must not depend on it.
        inputs[len(inputs) - len(written) + 1] = tokens.first_timestamp + int(rng.integers(51))
    # Some of what it has written is wrong: trust the sound, not the sentence so far.
    for position in range(len(inputs) - len(written) + 1, len(inputs)):
        if inputs[position] < tokens.end and rng.random() < 0.12:
            inputs[position] = int(rng.choice(tokens.words[str(rng.choice(WORDS))]))
    return Example(sound, inputs, labels, [target.span for target in targets[1:]], frames)


def _compose(
    rng: np.random.Generator, bank: Sequence[Sentence], duration_s: Seconds
) -> tuple[Floats, list[Placed]]:
    """Sentences of any voices, one after another; in one window of 16 nobody speaks."""
    sound = np.zeros(round(duration_s * SAMPLE_RATE), np.float32)
    placed: list[Placed] = []
    if rng.random() < 1 / 16:
        return sound, placed
    # A third of the windows holds a few sentences and then nothing, as the last of a recording.
    most = int(rng.integers(1, 5)) if rng.random() < 0.3 else 99
    clock = float(rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0, 0.5), rng.uniform(0, 2.5)]))
    cut_in = rng.random() < 0.12
    while clock < duration_s - 0.5 and len(placed) < most:
        samples, words = bank[int(rng.integers(len(bank)))]
        if cut_in and not placed and len(words) > 2:
            # The window starts inside a sentence, between the rest of a word and the next one.
            last = words[rng.integers(len(words) - 1)]
            cut_s = last.start_s + (last.end_s - last.start_s) * rng.uniform(0.3, 1.0)
            samples = samples[round(cut_s * SAMPLE_RATE) :]
            words = tuple(SpokenWord(w, a - cut_s, b - cut_s) for w, a, b in words if a > last.start_s)
            clock = 0.0
        length_s = len(samples) / SAMPLE_RATE
        whole = clock + length_s <= duration_s
        if not whole and placed and rng.random() < 0.5:
            break
        start = round(clock * SAMPLE_RATE)
        part = samples[: len(sound) - start].astype(np.float32) / 32768
        sound[start : start + len(part)] += part * 10 ** (rng.uniform(-12, 0) / 20)
        inside = [SpokenWord(w, clock + a, clock + b) for w, a, b in words if clock + b <= duration_s]
        placed.append(Placed(clock, clock + length_s, inside, whole))
        pause_s = rng.choice([rng.uniform(0.12, 0.5), rng.uniform(0.2, 1.0), rng.uniform(0.5, 3.0)])
        clock += length_s + float(pause_s)
    return sound, placed


def _worsen(rng: np.random.Generator, sound: Floats, placed: list[Placed]) -> Floats:
    """Change level and tilt, add noise of several kinds, and often pad the end with nothing.

    Where nobody speaks noise may be as loud as speech: it must not pass for it.
    """
    sound *= 10 ** (rng.uniform(-16, 0) / 20)
    if rng.random() < 0.3:
        sound[1:] -= rng.uniform(-0.5, 0.6) * sound[:-1]
    if rng.random() < 0.8:
        noise = _noise(rng, len(sound))
        if placed:
            sound += noise * np.float32(np.abs(sound).max() * 10 ** (rng.uniform(-65, -22) / 20))
        else:
            sound += noise * np.float32(10 ** (rng.uniform(-70, -6) / 20))
    if rng.random() < 0.5:
        end_s = (placed[-1].end_s if placed else rng.uniform(0, 4)) + rng.uniform(0.05, 1.0)
        sound[round(end_s * SAMPLE_RATE) :] = 0
    return sound


def _noise(rng: np.random.Generator, count: int) -> Floats:
    """Hiss in three colours, a hum or a tone, clicks: about as strong as a standard normal."""
    hiss = rng.standard_normal(count, np.float32)
    kind = rng.random()
    if kind < 0.2:
        return np.convolve(hiss, np.array([0.5, 0.3, 0.2], np.float32), "same")
    if kind < 0.4:
        return np.convolve(hiss, np.full(16, 0.1, np.float32), "same")
    if kind < 0.6:
        time_s = np.arange(count, dtype=np.float32) / SAMPLE_RATE
        pitch_hz = np.float32(40 * 2 ** rng.uniform(0, 6))
        strength = np.float32(rng.choice([0.0, 0.02, 0.3]))
        return strength * hiss + np.sin(2 * np.pi * pitch_hz * time_s)
    if kind < 0.7:
        clicks = np.zeros(count, np.float32)
        clicks[rng.integers(count, size=int(rng.integers(1, 80)))] = rng.uniform(1, 8)
        return clicks
    return hiss


def _prompt(rng: np.random.Generator, bank: Sequence[Sentence], tokens: Tokens) -> list[int]:
    """In one window of six, text that came before, with and without timestamps."""
    if rng.random() > 1 / 6:
        return []
    prompt = [tokens.previous]
    timed = rng.random() < 0.5
    clock = float(rng.uniform(0, 3))
    for _ in range(rng.integers(1, 9)):
        words = bank[int(rng.integers(len(bank)))].words
        stamps = [tokens.first_timestamp + round((clock + s) * FRAMES_PER_S) for s in (0, words[-1].end_s)]
        if max(stamps) >= tokens.first_timestamp + TIMESTAMPS:
            break
        text = [token for word in words for token in tokens.words[word.word]] + [tokens.full_stop]
        prompt += [stamps[0], *text, stamps[1]] if timed else text
        clock += words[-1].end_s + float(rng.uniform(0.2, 1.5))
    return prompt


def _written(tokens: Tokens, placed: list[Placed], offset_s: Seconds, *, timed: bool) -> list[Target]:
    """What the decoder writes for these sentences, up to the end of text."""

    def stamp(at_s: Seconds) -> Target:
        step = min(TIMESTAMPS - 1, max(0, round((offset_s + at_s) * FRAMES_PER_S)))
        return Target(tokens.first_timestamp + step, (at_s, at_s + 0.1), True)

    written: list[Target] = []
    for sentence in placed:
        if timed:
            written.append(stamp(sentence.start_s))
            if not sentence.whole:
                break  # Whisper ends with the start of what it could not finish
        written += _spelled(tokens, sentence)
        if timed:
            written.append(stamp(sentence.end_s))
    if timed and not placed:
        written.append(Target(tokens.first_timestamp, None, True))
    end_s = placed[-1].end_s if placed else None
    span = None if end_s is None else (end_s + 0.05, end_s + 0.5)
    return [*written, Target(tokens.end, span, True)]


def _spelled(tokens: Tokens, sentence: Placed) -> list[Target]:
    """The tokens of its words, each over its share of the word's sound, and a full stop."""
    written: list[Target] = []
    for word, start_s, end_s in sentence.words:
        pieces = tokens.words[word]
        edges = np.cumsum([0, *(tokens.lengths[piece] for piece in pieces)], dtype=np.float64)
        edges = start_s + (end_s - start_s) * edges / edges[-1]
        written += [
            Target(piece, (float(a), float(b)), True)
            for piece, a, b in zip(pieces, edges, edges[1:], strict=False)
        ]
    if written and sentence.whole:
        written.append(
            Target(tokens.full_stop, (sentence.words[-1].end_s, sentence.words[-1].end_s + 0.1), True)
        )
    return written


class Batch(NamedTuple):
    """Examples as tensors.

    ``sound`` is ``(b, n)``, ``inputs`` and ``labels`` are ``(b, t)``, ``frames`` is ``(b, f)``. ``gaze``
    ``(b, t, f)`` is the distribution over the encoder's frames that attention is guided to, a row of
    zeros where it is free. ``offsets`` ``(b,)`` is the first encoder position of each window.
    """

    sound: Any
    inputs: Any
    labels: Any
    gaze: Any
    frames: Any
    offsets: Any


def collate(examples: Sequence[Example], offsets: Sequence[int], tokens: Tokens) -> Batch:
    """Pad examples of one duration to one length."""
    import torch

    count, longest = len(examples), max(len(example.inputs) for example in examples)
    width = len(examples[0].frames)
    inputs = np.full((count, longest), tokens.end)
    labels = np.full((count, longest), IGNORED)
    gaze = np.zeros((count, longest, width), np.float32)
    for row, made in enumerate(examples):
        inputs[row, : len(made.inputs)] = made.inputs
        labels[row, : len(made.labels)] = made.labels
        for position, span in enumerate(made.spans):
            if span is not None and span[0] * FRAMES_PER_S < width:
                first = min(round(span[0] * FRAMES_PER_S), width - 1)
                last = min(width, max(first + 1, round(span[1] * FRAMES_PER_S)))
                gaze[row, position, first:last] = 1 / (last - first)
    sound, frames = (np.stack([getattr(made, part) for made in examples]) for part in ("samples", "frames"))
    return Batch(*map(torch.from_numpy, (sound, inputs, labels, gaze, frames, np.array(offsets))))
