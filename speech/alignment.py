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

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

SILENCE = 0.2
"""A frame that a token looks at less than this share of its own peak is not its sound."""
_FLOOR = 1e-3  # of a token's peak: what is below is all the same
_PEAK_FRAMES = 5  # a token's peak is the mean of its highest frames: 0.1 s of speech


def align(attention: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Frames of each token, ``(n, 2)``: the first, and the one after the last; in order, disjoint.

    ``attention`` is ``(n, f)``: for each of ``n`` tokens a distribution over ``f`` frames, the mean
    of the alignment heads'. Raises ValueError for more tokens than frames: each needs one.

    >>> align([[0.0, 0.4, 0.6, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0, 0.4, 0.5]])
    array([[1, 3],
           [4, 6]])
    """
    looked = np.asarray(attention, dtype=np.float64)
    count, frames = looked.shape
    if not count:
        return np.zeros((0, 2), np.int64)
    if count > frames:
        raise ValueError(f"{count} tokens cannot stand in {frames} frames")
    highest = np.sort(looked, axis=1)[:, -min(_PEAK_FRAMES, frames) :].mean(axis=1, keepdims=True)
    score = np.full((2 * count + 1, frames), np.log(SILENCE))  # rows: silence, token, silence, ...
    score[1::2] = np.log(looked / np.maximum(highest, 1e-12) + _FLOOR)
    path = _best_path(score)
    tokens = 2 * np.arange(count) + 1
    return np.stack([np.searchsorted(path, tokens), np.searchsorted(path, tokens, side="right")], axis=1)


def _best_path(score: Floats) -> npt.NDArray[np.int64]:
    """The state of each frame ``(f,)`` on the path with the highest sum through ``(s, f)`` scores.

    A path starts in one of the first two states, ends in one of the last two, and from one frame to
    the next stays, goes on to the next state, or passes over a silence; never over a token.
    """
    states, frames = score.shape
    came_from = np.zeros((frames, states), np.int8)
    best = np.full(states, -np.inf)
    best[:2] = score[:2, 0]
    steps = np.full((3, states), -np.inf)
    for frame in range(1, frames):
        steps[0] = best
        steps[1, 1:] = best[:-1]
        steps[2, 3::2] = best[1:-2:2]
        came_from[frame] = steps.argmax(axis=0)
        best = steps.max(axis=0) + score[:, frame]
    path = np.zeros(frames, np.int64)
    state = states - 1 - int(states > 1 and best[-2] >= best[-1])
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(came_from[frame, state])
    return path
