"""When each token was spoken, from where a model looked while it wrote it.

An encoder-decoder says what was spoken, not when. But some of its decoder's attention heads, the
alignment heads, rest on the sound of the token that is written next. The most likely path through
their attention, from the first frame to the last, gives every token its frames.

The known way (dynamic time warping over normalised attention, as in the original Whisper code)
gives every frame to a token, so that the first word of a window starts at 0 and a pause belongs to
the word behind it. Here a frame may also belong to nobody: states of silence stand between the
tokens, before the first and behind the last, as blanks do in CTC's forced alignment
(Graves et al. 2006), and are taken where no token is looked at.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Spans: TypeAlias = npt.NDArray[np.int64]
"""Frames of each token, ``(n, 2)``: the first, and the one after the last; in order, disjoint."""

SILENCE = 0.2
"""A frame that a token looks at less than this share of its own peak is not its sound."""
_FLOOR = 1e-3  # of a token's peak: what is below is all the same
_PEAK_FRAMES = 5  # a token's peak is the mean of its highest frames: 0.1 s of speech


def align(attention: Sequence[npt.ArrayLike]) -> list[Spans | None]:
    """Spans of many windows' tokens at once; None for one with more tokens than frames: each needs one.

    Each is ``(n, f)``: for each of ``n`` tokens a distribution over ``f`` frames, the mean of the
    alignment heads'. What comes out for one does not depend on the others.

    >>> align([[[0.0, 0.4, 0.6, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0, 0.4, 0.5]]])
    [array([[1, 3],
           [4, 6]])]
    """
    looked = [np.asarray(one, dtype=np.float32) for one in attention]
    fitting = [n for n, one in enumerate(looked) if 0 < one.shape[0] <= one.shape[1]]
    spans: list[Spans | None] = [None if one.shape[0] else np.zeros((0, 2), np.int64) for one in looked]
    if fitting:
        for n, path in zip(fitting, _best_paths([_scores(looked[n]) for n in fitting]), strict=True):
            tokens = 2 * np.arange(len(looked[n])) + 1
            edges = [np.searchsorted(path, tokens), np.searchsorted(path, tokens, side="right")]
            spans[n] = np.stack(edges, axis=1)
    return spans


def _scores(looked: Floats) -> Floats:
    """``(2n + 1, f)``: how well a frame is a silence, a token, a silence, and so on."""
    highest = np.sort(looked, axis=1)[:, -min(_PEAK_FRAMES, looked.shape[1]) :].mean(axis=1, keepdims=True)
    score = np.full((2 * len(looked) + 1, looked.shape[1]), np.log(SILENCE), np.float32)
    score[1::2] = np.log(looked / np.maximum(highest, 1e-12) + _FLOOR)
    return score


def _best_paths(scores: Sequence[Floats]) -> list[npt.NDArray[np.int64]]:
    """The state of each frame ``(f,)`` on the path with the highest sum through ``(s, f)`` scores, of each.

    A path starts in one of the first two states, ends in one of the last two, and from one frame to
    the next stays, goes on to the next state, or passes over a silence; never over a token. All of them
    are followed side by side, frame by frame.
    """
    states, frames = (np.array([score.shape[axis] for score in scores]) for axis in (0, 1))
    everyone = np.arange(len(scores))
    padded = np.full((frames.max(), len(scores), states.max()), -np.inf, np.float32)
    for n, score in enumerate(scores):
        padded[: frames[n], n, : states[n]] = score.T
    came_from = np.zeros(padded.shape, np.int8)
    best = np.full(padded.shape[1:], -np.inf, np.float32)
    best[:, :2] = padded[0, :, :2]
    ends = np.zeros(len(scores), np.int64)
    gone_on, passed = np.full_like(best, -np.inf), np.full_like(best, -np.inf)
    for frame in range(len(padded)):
        if frame:
            gone_on[:, 1:] = best[:, :-1]
            passed[:, 3::2] = best[:, 1:-2:2]
            step = came_from[frame]
            np.greater(gone_on, best, out=step, casting="unsafe")
            np.maximum(best, gone_on, out=best)
            step[passed > best] = 2
            np.maximum(best, passed, out=best)
            best += padded[frame]
        for n in everyone[frames == frame + 1]:
            last = states[n] - 1
            ends[n] = last - int(best[n, last - 1] >= best[n, last])
    paths = np.zeros((len(padded), len(scores)), np.int64)
    state = ends.copy()
    for frame in range(len(padded) - 1, -1, -1):
        inside = frame < frames
        paths[frame] = state
        state = np.where(inside, state - came_from[frame, everyone, state], ends)
    return [paths[: frames[n], n] for n in everyone]
