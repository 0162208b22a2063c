"""Pair accuracy and misorder rates equal a double loop."""

import numpy as np
import pytest

from aupair.data.frames import Frames
from aupair.evaluation.pair_order import Order
from evaluation.worlds import MISSING, hide_labels
from frame_sets import make_frames


def draw(
    levels: int, seed: int = 0, n: int = 90, a: int = 12, missing: str = "none"
) -> tuple[np.ndarray, Frames, np.ndarray]:
    """Values with ties, frames with and without face and annotation, a subset."""
    rng = np.random.default_rng([seed, levels])
    video = np.sort(rng.integers(0, 4, n))
    labels = rng.integers(0, levels, (n, a)).astype(np.int8)
    labels[rng.random(n) < 0.1] = -1
    ok = rng.random(n) < 0.9
    y_hat = (rng.integers(0, 12, (n, a)) / 4).astype(np.float32)
    y_hat[~ok] = np.nan
    frames = make_frames((0,) * 4, labels, ok=ok, lengths=np.bincount(video, minlength=4))
    return y_hat, hide_labels(frames, missing), rng.random(n) < 0.8


def naive(y_hat: np.ndarray, frames: Frames, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look at every pair of frames."""
    wrong, pairs = np.zeros(y_hat.shape), np.zeros(y_hat.shape)
    inside = (subset if subset.ndim == 2 else np.repeat(subset[:, None], y_hat.shape[1], 1)) & frames.usable[:, None]
    inside = inside & (frames.labels >= 0)
    for i in range(len(frames)):
        for j in range(len(frames)):
            for au in range(y_hat.shape[1]):
                order = int(frames.labels[i, au]) - int(frames.labels[j, au])
                if frames.video[i] == frames.video[j] and inside[i, au] and inside[j, au] and order != 0:
                    d = np.sign(order) * (y_hat[i, au] - y_hat[j, au])
                    pairs[i, au] += 1
                    wrong[i, au] += 1.0 if d < 0 else 0.5 if d == 0 else 0.0
    return wrong, pairs


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize(("levels", "aus"), [(2, 1), (2, 12), (6, 3), (6, 20)])
def test_counts_of_any_part_of_the_sorted_frames_equal_a_double_loop(levels: int, aus: int, missing: str) -> None:
    y_hat, frames, subset = draw(levels, a=aus, missing=missing)
    order, rng = Order(y_hat, frames, subset), np.random.default_rng(5)
    cells, part = subset[:, None] & (rng.random(y_hat.shape) < 0.5), subset & (rng.random(len(subset)) < 0.3)
    for counted in (subset, part, cells):
        wrong, pairs = naive(y_hat, frames, counted)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(order.accuracy(counted), 1 - wrong.sum(0) / pairs.sum(0))
            np.testing.assert_array_equal(order.misorder_rate(counted), wrong / pairs)


def test_a_perfect_order_a_reversed_one_and_none() -> None:
    _, frames, _ = draw(6, seed=2)
    everything = np.ones(len(frames), bool)
    truth = frames.labels.astype(np.float32)
    assert (Order(truth, frames, everything).accuracy(everything) == 1).all()
    assert (Order(-truth, frames, everything).accuracy(everything) == 0).all()
    assert (Order(0 * truth, frames, everything).accuracy(everything) == 0.5).all()
    assert np.isnan(Order(truth, frames, ~everything).accuracy(~everything)).all()
