"""Attention to frames: what belongs to which token, and what to nobody."""

from itertools import product

import numpy as np
import pytest

from speech.alignment import _FLOOR, SILENCE
from speech.alignment import align as align_all


def align(attention: np.ndarray) -> np.ndarray:
    (spans,) = align_all([attention])
    assert spans is not None
    return spans


def attention(*spans: tuple[int, int], frames: int = 40, blur: float = 0.0) -> np.ndarray:
    """Each token looks evenly at its frames, and a little everywhere."""
    looked = np.full((len(spans), frames), blur / frames)
    for row, (first, last) in enumerate(spans):
        looked[row, first:last] += (1 - blur) / (last - first)
    return looked


@pytest.mark.parametrize("blur", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(
    "spans",
    [
        [(0, 40)],
        [(7, 20)],
        [(0, 10), (10, 25), (25, 40)],
        [(5, 10), (10, 20), (28, 36)],
        [(3, 4), (4, 5), (5, 6), (39, 40)],
        [(0, 12), (13, 30)],
    ],
    ids=["all", "silence around", "no silence", "a pause", "short", "a frame between"],
)
def test_tokens_get_the_frames_they_look_at(spans: list[tuple[int, int]], blur: float) -> None:
    assert align(attention(*spans, blur=blur)).tolist() == [list(span) for span in spans]


def test_a_token_that_looks_elsewhere_still_stands_in_order() -> None:
    looked = attention((20, 30), (2, 8), (32, 38))
    spans = align(looked)
    assert (np.diff(spans.ravel()) >= 0).all()
    assert (spans[:, 1] > spans[:, 0]).all()


@pytest.mark.parametrize("seed", range(20))
def test_any_attention_gives_ordered_disjoint_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    frames = int(rng.integers(count, 200))
    spans = align(rng.random((count, frames)) ** 8)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    assert spans.min() >= 0
    assert spans.max() <= frames


def test_the_path_is_the_best_one() -> None:
    """Against trying all of them: the sum over frames of what each token, or nobody, scores."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        looked = rng.random((2, 7)) ** 3
        peak = np.sort(looked, axis=1)[:, -5:].mean(axis=1, keepdims=True)
        score = np.log(looked / peak + _FLOOR)

        def worth(edges: tuple[int, ...], score: np.ndarray = score) -> float:
            inside = sum(score[n, edges[2 * n] : edges[2 * n + 1]].sum() for n in range(2))
            return float(inside + np.log(SILENCE) * (7 - (edges[1] - edges[0]) - (edges[3] - edges[2])))

        every = [e for e in product(range(8), repeat=4) if e[0] < e[1] <= e[2] < e[3]]
        spans = align(looked).ravel()
        assert worth(tuple(spans)) == pytest.approx(max(map(worth, every)))


def test_each_is_aligned_as_if_alone() -> None:
    rng = np.random.default_rng(2)
    many = [rng.random((int(rng.integers(1, 40)), int(rng.integers(40, 200)))) ** 8 for _ in range(12)]
    together = align_all([*many, np.ones((3, 2)), np.zeros((0, 5))])
    assert together[-2] is None  # three tokens cannot stand in two frames
    assert together[-1] is not None
    assert together[-1].shape == (0, 2)
    for looked, spans in zip(many, together, strict=False):
        assert spans is not None
        assert spans.tolist() == align(looked).tolist()
