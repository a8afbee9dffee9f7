"""Voice activity and windows: which stretches of a recording an engine gets to hear.

Voice activity is Silero's network, as its package carries it, asked about 32 ms at a time. Everything
else here is about never cutting into a word: a region of speech begins when the network is sure and ends
when it has been sure of the opposite for a while, each region is padded, and a window ends only between
two regions, or, inside speech that goes on for longer than a window, where there is the least of it.

All of it happens while the recording is being read: nothing of a long one is held but the window at hand.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.types import SAMPLE_RATE, Samples, Seconds, Window

VOICE_VERSION = 2
"""Part of every model version's fingerprint: raise it when a change here can change words."""

Floats: TypeAlias = npt.NDArray[np.float32]

FRAME = 512
"""Samples that one probability is about: 32 ms."""
FRAME_S: Seconds = FRAME / SAMPLE_RATE
_CONTEXT = 64  # samples before a frame that the network hears with it
_BLOCK = 512 * FRAME  # 16 s at a time: longer ones are no faster

_SURE, _DOUBTFUL = 0.5, 0.35  # speech begins above, and ends below; Silero's own defaults
_BREATH = 5  # frames of silence within speech that do not end it: 0.16 s
_MIN_REGION = 4
_PAD = 12  # 0.38 s: an unvoiced consonant at a word's edge looks like noise to the network


class Voice:
    """How sure the network is, frame by frame, that somebody speaks; listens on across calls."""

    def __init__(self) -> None:
        self._state = [np.zeros((1, 1, 128), np.float32) for _ in range(2)]
        self._before = np.zeros(_CONTEXT, np.float32)

    def hear(self, samples: Samples) -> Floats:
        """Probabilities ``(n,)`` of ``n`` frames: of whole frames, but for the last call's."""
        count = -(-len(samples) // FRAME)
        frames = np.zeros((count, FRAME), np.float32)
        frames.reshape(-1)[: len(samples)] = samples
        frames /= 32768
        contexts = np.concatenate([self._before[None], frames[:-1, -_CONTEXT:]])
        self._before = frames[-1, -_CONTEXT:]
        sure, *self._state = _network().run(
            ["speech_probs", "hn", "cn"],
            {"input": np.hstack([contexts, frames]), "h": self._state[0], "c": self._state[1]},
        )
        return np.asarray(sure, np.float32).reshape(-1)


@cache
def _network() -> Any:
    import onnxruntime

    spec = find_spec("silero_vad")  # not imported: it would bring torch, and take its threads away
    assert spec is not None
    assert spec.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    weights = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


def windows(sound: Samples | Iterable[Samples], max_window_s: Seconds) -> Iterator[Window]:
    """Cut a recording ``(n,)``, whole or in pieces, into windows that together hold all its speech.

    Neighbouring regions share a window of at most ``max_window_s`` as long as they fit, because an engine
    hears better with context; silence longer than that is never part of a window's edge.

    >>> list(windows(np.zeros(SAMPLE_RATE, dtype=np.int16), 30.0))
    []
    """
    voice, cutter = Voice(), _Cutter(int(max_window_s / FRAME_S))
    for block in _blocks([sound] if isinstance(sound, np.ndarray) else sound):
        cutter.take_in(block, voice.hear(block))
        yield from cutter.cut(at_the_end=False)
    yield from cutter.cut(at_the_end=True)


def _blocks(pieces: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks of one size, but for the last."""
    waiting: list[Samples] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= _BLOCK:
            joined = np.concatenate(waiting)
            whole = held - held % _BLOCK
            yield from joined[:whole].reshape(-1, _BLOCK)
            waiting, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(waiting)


class _Cutter:
    """What was heard and is in no window yet. Positions are frames since the last cut."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._dropped = 0  # frames before the last cut
        self._speaking = False  # whether that was in the middle of speech
        self._samples: Samples = np.zeros(0, np.int16)
        self._voice: Floats = np.zeros(0, np.float32)

    def take_in(self, samples: Samples, voice: Floats) -> None:
        self._samples = np.concatenate([self._samples, samples])
        self._voice = np.concatenate([self._voice, voice])

    def cut(self, at_the_end: bool) -> Iterator[Window]:
        """Every window that will stay as it is whatever comes next."""
        while window := self._next(at_the_end):
            start, end, speaking = window
            first, last = start * FRAME, min(end * FRAME, len(self._samples))
            start_s = (self._dropped + start) * FRAME_S
            yield Window(self._samples[first:last].copy(), start_s, self._voice[start:end].copy())
            self._drop(end, speaking)

    def _next(self, at_the_end: bool) -> tuple[int, int, bool] | None:
        """Start and end of the next window, and whether speech goes on at its end."""
        count = len(self._voice)
        regions, open_since = self._regions(at_the_end)
        if not regions:
            self._drop(open_since, self._speaking and open_since == 0)
            return None
        start, end = regions[0]
        for _, next_end in regions[1:]:
            if next_end - start > self._longest:
                break
            end = next_end
        if end - start > self._longest:
            return start, self._quietest(start), True
        if at_the_end or (count - start > self._longest and end <= open_since):
            return start, end, False
        self._drop(start, self._speaking and start == 0)
        return None

    def _regions(self, at_the_end: bool) -> tuple[list[tuple[int, int]], int]:
        """Padded regions of speech, in order, not overlapping, and from where on they may still change."""
        count = len(self._voice)
        said = np.where(self._voice >= _SURE, 1, np.where(self._voice < _DOUBTFUL, 0, -1))
        said = np.concatenate([[int(self._speaking)], said])
        decided = np.maximum.accumulate(np.where(said >= 0, np.arange(count + 1), 0))
        edges = np.flatnonzero(np.diff(said[decided][1:], prepend=0, append=0)).reshape(-1, 2)
        joined: list[list[int]] = []
        for first, last in edges.tolist():
            if joined and first - joined[-1][1] <= _BREATH:
                joined[-1][1] = last
            else:
                joined.append([first, last])
        margin = 0 if at_the_end else _BREATH + 2 * _PAD
        regions: list[tuple[int, int]] = []
        for first, last in joined:
            # What is short may be the rest of what was cut, or the beginning of what is to come.
            rest = self._speaking and first <= _BREATH
            if last - first < _MIN_REGION and not rest and last <= count - margin:
                continue
            start, end = max(0, first - _PAD), min(count, last + _PAD)
            if regions and start < regions[-1][1]:  # between two that are near is a window's edge, too
                start = (start + regions[-1][1]) // 2
                regions[-1] = regions[-1][0], start
            regions.append((start, end))
        open_since = count - margin if not at_the_end else count
        if joined and joined[-1][1] > open_since:
            first, last = joined[-1]
            # Where a region starts is settled when it is long enough to stay, however far it will go on.
            start = regions[-1][0] if last - first >= _MIN_REGION else max(0, first - _PAD)
            open_since = min(open_since, start)
        return regions, max(0, open_since)

    def _quietest(self, start: int) -> int:
        """The quietest frame of the second half of a window that speech fills."""
        first, last = start + self._longest // 2, start + self._longest
        frames = self._samples[first * FRAME : last * FRAME].reshape(-1, FRAME)
        energy = np.square(frames.astype(np.float32)).mean(axis=1)
        # Over 0.16 s, so that the stop of a "t" does not pass for a pause.
        smooth = np.convolve(energy, np.ones(5) / 5, mode="same")
        smooth[:2], smooth[-2:] = np.inf, np.inf
        return first + int(smooth.argmin())

    def _drop(self, count: int, speaking: bool) -> None:
        self._dropped += count
        self._speaking = speaking
        self._samples, self._voice = self._samples[count * FRAME :], self._voice[count:]
