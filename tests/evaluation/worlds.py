"""A small data set whose truth is known: frames, the outputs, fixed pairs, and the covers of the faces."""

from dataclasses import replace

import numpy as np

from aupair.aus import AFFWILD2, NOT_ANNOTATED, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.calibration import HeldOut
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.selection import Outputs
from aupair.params import Evaluate
from aupair.ranking.pairs import Pairs
from frame_sets import make_frames

A = len(AFFWILD2)
QUICK = Evaluate(bootstrap=50)
MISSING = ("none", "random", "videos")
"""labels that are missing: none, half of all cells at random, each AU in a third of the videos"""


def hide_labels(frames: Frames, kind: str, seed: int = 99) -> Frames:
    """Return the frames with labels that are missing AU by AU, of a kind of MISSING."""
    if kind == "none":
        return frames
    hidden = (frames.video[:, None] + np.arange(len(frames.aus))) % 3 == 0
    if kind == "random":
        hidden = np.random.default_rng(seed).random(frames.labels.shape) < 0.5
    return replace(frames, labels=np.where(hidden, NOT_ANNOTATED, frames.labels))


def held_out(
    raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None,
    person: np.ndarray | None = None, fold: np.ndarray | None = None,
) -> HeldOut:  # fmt: skip
    """Return decisions to calibrate on; by default all are labelled, of one person, in one fold."""
    counted = np.ones(truth.shape, bool) if counted is None else counted
    nobody = np.zeros(len(truth), np.int64)
    person, fold = (nobody if own is None else own for own in (person, fold))
    return HeldOut(raw, sigma, np.broadcast_to(thresholds, truth.shape), truth, counted, person, fold)


def some(frames: Frames, split: str) -> Pairs:
    """Pair each active frame with the next inactive one of its video."""
    pairs = []
    for rows in frames.slices():
        usable = (frames.usable & frames.of_split(split))[rows]
        for au in range(len(frames.aus)):
            high = rows.start + np.flatnonzero(usable & (frames.labels[rows, au] == 1))
            low = rows.start + np.flatnonzero(usable & (frames.labels[rows, au] == 0))
            pairs += [(i, j, au, 1) if k % 2 else (j, i, au, -1) for k, (i, j) in enumerate(zip(high, low))]
    return Pairs(*np.array(pairs).T)


def make_outputs(
    y_hat: np.ndarray, sigma: np.ndarray, with_uncertainty: np.ndarray, without_uncertainty: np.ndarray
) -> Outputs:
    """Return outputs of three routes, all (N, A): raw, constant (the mean of the others), and both, which decides."""
    constant = (with_uncertainty + without_uncertainty) / 2
    raws = {"raw": without_uncertainty, "constant": constant, "both": with_uncertainty}
    return Outputs(y_hat, sigma, sigma, raws, "both")


def world(
    seed: int = 0, n: int = 50, videos: int = 9, aus: int = A, missing: str = "none"
) -> tuple[Frames, Outputs, dict[str, Pairs], Conditions]:
    """A third of the frames is covered: y_hat is noise there and sigma large; some have no face, some no labels.

    Args:
        aus: the number of AUs.
        missing: labels that are missing besides, see MISSING.
    """
    rng = np.random.default_rng(seed)
    size = n * videos
    labels = (rng.random((size, aus)) < np.linspace(0.1, 0.5, aus)).astype(np.int8)
    truth = labels.astype(float)
    labels[rng.random(size) < 0.05] = -1
    ok = rng.random(size) < 0.95
    frames = hide_labels(make_frames(np.arange(videos) // 3, labels, ok=ok), missing)
    covered = rng.random(size) < 0.3
    noise = np.where(covered, 2.0, 0.3)[:, None]
    y_hat = truth + noise * rng.normal(size=(size, aus))
    with_uncertainty = np.where(covered[:, None], 0.3 + 0.1 * y_hat, y_hat)
    arrays = [
        a.astype(np.float32)
        for a in (y_hat, noise * np.exp(0.1 * rng.normal(size=(size, aus))), with_uncertainty, y_hat)
    ]
    for array in arrays:
        array[~ok] = np.nan
    conditions = Conditions(0.4 * covered, 0.9 * np.repeat(covered[:, None], aus, 1), rng.normal(0, 0.2, size))
    return frames, make_outputs(*arrays), {s: some(frames, s) for s in SPLITS}, conditions
