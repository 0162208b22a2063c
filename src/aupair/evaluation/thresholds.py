"""The threshold of each AU, above which it is active."""

import numpy as np

DEFAULT = 0.5
"""the threshold where none is tuned"""


def tune_threshold(raw: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold that maximises 1/2 (F1 + accuracy) of one AU.

    All thresholds between two neighbouring outputs give the same decisions. Among the intervals with the best score the
    widest is chosen, since it tolerates the largest shift of the outputs; of equally wide ones the one nearest to .5. Its
    middle is returned. The intervals beyond the lowest and highest output (all or nothing active) count as 1 wide.

    Args:
        raw: (n,) float; NaN (a video without a face) is never active.
        truth: (n,) bool.
    """
    known = np.isfinite(raw)
    if not known.any():
        return DEFAULT
    values, index = np.unique(raw[known], return_inverse=True)
    positives, negatives = (np.bincount(index, truth[known] == side, len(values)) for side in (True, False))
    # tp[k], fp[k]: for the threshold in the interval below values[k]; with the last one nothing is active
    tp, fp = (np.append(np.cumsum(side[::-1])[::-1], 0) for side in (positives, negatives))
    fn, n = truth.sum() - tp, len(truth)
    score = 0.5 * (2 * tp / np.maximum(2 * tp + fp + fn, 1) + (n - fp - fn) / n)
    edges = np.concatenate([values[:1] - 1.0, values, values[-1:] + 1.0]).astype(np.float64)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    middle, width = (edges[best] + edges[best + 1]) / 2, edges[best + 1] - edges[best]
    return float(middle[np.lexsort((np.abs(middle - DEFAULT), -width))[0]])


def tune_thresholds(raw: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the threshold of each AU, (A,) float64, tuned on its counted cells; DEFAULT for an AU without any.

    Args:
        raw: (n, A) float, NaN in a video without a face.
        truth: (n, A) bool.
        counted: (n, A) bool, whether there is a label.
    """
    return np.array([tune_threshold(x[use], y[use]) for x, y, use in zip(raw.T, truth.T, counted.T)])


def tune_held_out(raw: np.ndarray, truth: np.ndarray, counted: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return each frame's thresholds, tuned on the frames of the other folds: (n, A); on all frames if there is only one fold.

    They are used to calibrate the confidence on decisions that are independent of the labels that thresholds were tuned on.

    Args:
        raw, truth, counted: see `tune_thresholds`.
        fold: (n,) int, the calibration fold of each frame; the people of `select` have folds of their own.
    """
    thresholds = np.empty(truth.shape)
    for held_out in (folds := np.unique(fold)):
        others = fold != held_out if len(folds) > 1 else fold == held_out
        thresholds[fold == held_out] = tune_thresholds(raw[others], truth[others], counted[others])
    return thresholds
