"""The threshold of each AU: the raw output from which it is active."""

import numpy as np

from aupair.params import ThresholdRule

DEFAULT = 0.5
"""the threshold where none is tuned"""
_ACCURACY_SHARE = {"tuned": 0.5, "tuned_f1": 1e-6}
"""the weight of accuracy beside F1 in the objective of a threshold; with tuned_f1 it only breaks ties of F1"""
_CUTS = 1024
"""maximum number of candidate thresholds in a resample"""
_CELLS = 2**20
"""maximum number of elements of the matrices of draws and cuts in memory"""


def tune_threshold(raw: np.ndarray, truth: np.ndarray, rule: ThresholdRule = "tuned") -> float:
    """Return the threshold that maximises 1/2 (F1 + accuracy) of one AU, or its F1.

    All thresholds between two neighbouring outputs lead to the same decisions. Of the intervals with the best score the
    widest is chosen, since it tolerates the largest shift of the outputs, and of equally wide ones that nearest to .5; its
    middle is returned. The intervals beyond the lowest and highest output (all or no frames active) have the width 1.

    Args:
        raw: (n,) float; NaN (a video without a face) is never active.
        truth: (n,) bool.
        rule: half returns .5.
    """
    known = np.isfinite(raw)
    if rule == "half" or not known.any():
        return DEFAULT
    values, index = np.unique(raw[known], return_inverse=True)
    positives, negatives = (np.bincount(index, truth[known] == side, len(values)) for side in (True, False))
    # tp[k], fp[k]: for the threshold in the interval below values[k]; with the last one nothing is active
    tp, fp = (np.append(np.cumsum(side[::-1])[::-1], 0) for side in (positives, negatives))
    errors, n = fp + truth.sum() - tp, len(truth)
    score = _objective(tp, errors, n, rule)
    edges = np.concatenate([values[:1] - 1.0, values, values[-1:] + 1.0]).astype(np.float64)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    middle, width = (edges[best] + edges[best + 1]) / 2, edges[best + 1] - edges[best]
    return float(middle[np.lexsort((np.abs(middle - DEFAULT), -width))[0]])


def _objective(tp: np.ndarray, errors: np.ndarray, n: np.ndarray | int, rule: ThresholdRule) -> np.ndarray:
    """Return the objective of a tuned threshold: the mean of F1 and accuracy with the weights of `rule`."""
    share = _ACCURACY_SHARE[rule]
    objective: np.ndarray = (1 - share) * 2 * tp / np.maximum(2 * tp + errors, 1) + share * (n - errors) / n
    return objective


def tune_thresholds(
    raw: np.ndarray, truth: np.ndarray, counted: np.ndarray, rule: ThresholdRule = "tuned"
) -> np.ndarray:
    """Return the threshold of each AU, (A,) float64, tuned on its counted cells; DEFAULT for an AU without any.

    Args:
        raw: (n, A) float, NaN in a video without a face.
        truth: (n, A) bool.
        counted: (n, A) bool, whether there is a label.
        rule: see `tune_threshold`.
    """
    return np.array([tune_threshold(x[use], y[use], rule) for x, y, use in zip(raw.T, truth.T, counted.T)])


def tune_held_out(
    raw: np.ndarray, truth: np.ndarray, counted: np.ndarray, fold: np.ndarray, rule: ThresholdRule = "tuned"
) -> np.ndarray:
    """Return each frame's thresholds, tuned on the frames of the other folds: (n, A); on all frames if there is only one fold.

    The confidence is calibrated with them, since its decisions must not depend on the labels on which thresholds were tuned.

    Args:
        raw, truth, counted, rule: see `tune_thresholds`.
        fold: (n,) int, the calibration fold of each frame, see `assign_calibration_folds`.
    """
    thresholds = np.empty(truth.shape)
    for held_out in (folds := np.unique(fold)):
        others = fold != held_out if len(folds) > 1 else fold == held_out
        thresholds[fold == held_out] = tune_thresholds(raw[others], truth[others], counted[others], rule)
    return thresholds


def tune_in_resamples(
    raw: np.ndarray, truth: np.ndarray, person: np.ndarray, weights: np.ndarray, rule: ThresholdRule = "tuned"
) -> tuple[np.ndarray, np.ndarray]:
    """Tune one AU's threshold in every resample of the people, as `tune_threshold` does on the frames drawn.

    The best threshold lies just below the output of an active frame, since excluding an inactive frame never lowers the score.
    At each of these cuts every person's frames are counted once, and a resample only weights the counts. If there are more
    than 1,024 cuts, a subset at equal distances in rank is used.

    Args:
        raw: (n,) float; NaN is never active.
        truth: (n,) bool.
        person: (n,) int, 0..P-1.
        weights: (B, P) float64, how often each person was drawn.
        rule: tuned or tuned_f1.

    Returns:
        thresholds: (B,) float64, DEFAULT where no frame has an output.
        scores: (B,) float64, 1/2 (F1 + accuracy) there with either rule, NaN in a resample without a frame.
    """
    people = weights.shape[1]
    known = np.isfinite(raw)
    cuts = np.unique(raw[known & truth])
    cuts = np.append(cuts[:: -(-len(cuts) // _CUTS) or 1], np.inf).astype(
        raw.dtype
    )  # beyond the last nothing is active
    place = person * (len(cuts) + 1) + np.searchsorted(cuts, np.where(known, raw, -np.inf), "right")
    kinds = [np.bincount(place, side, people * (len(cuts) + 1)).reshape(people, -1) for side in (truth, ~truth)]
    tp, fp = (kind[:, ::-1].cumsum(axis=1)[:, ::-1] for kind in kinds)  # column 0: all frames of the person
    beside = _neighbours(raw[known], person[known], cuts, people)
    size = max(1, _CELLS // len(cuts))
    parts = [
        _best_cuts((own @ tp, own @ fp), own, beside, rule)
        for own in (weights[start : start + size] for start in range(0, len(weights), size))
    ]
    thresholds, scores = (np.concatenate(values) for values in zip(*parts))
    return thresholds, scores


def _best_cuts(
    counts: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    beside: tuple[np.ndarray, np.ndarray],
    rule: ThresholdRule,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best threshold of each of B resamples and its score.

    Args:
        counts: the active and the inactive frames of a resample in all, then those at or above each cut: (B, 1 + J) each.
        weights: (B, P).
        beside: the nearest output of each person below each cut, and at or above it: (P, J) each, -inf or inf without any.
    """
    (active, tp), (inactive, fp) = ((side[:, :1], side[:, 1:]) for side in counts)
    errors, n = active - tp + fp, np.maximum(active + inactive, 1)
    objective = _objective(tp, errors, n, rule)
    draw, cut = np.nonzero(objective >= objective.max(axis=1, keepdims=True) - 1e-12)
    drawn = weights[draw] > 0
    below = np.where(drawn, beside[0].T[cut], -np.inf).max(axis=1)
    above = np.where(drawn, beside[1].T[cut], np.inf).min(axis=1)
    no_output = np.isinf(below) & np.isinf(above)
    below[no_output] = above[no_output] = DEFAULT
    lower = np.where(np.isinf(below), above - 1, below).astype(np.float64)
    upper = np.where(np.isinf(above), below + 1, above).astype(np.float64)
    middle = (lower + upper) / 2
    order = np.lexsort((np.abs(middle - DEFAULT), lower - upper, draw))
    _, first = np.unique(draw[order], return_index=True)
    chosen = order[first]
    score = _objective(tp, errors, n, "tuned")[np.arange(len(weights)), cut[chosen]]
    return middle[chosen], np.where((active + inactive)[:, 0] > 0, score, np.nan)


def _neighbours(raw: np.ndarray, person: np.ndarray, cuts: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest output of each person below each cut, and at or above it: (P, J) each, -inf or inf without any."""
    order = np.lexsort((raw, person))
    edges = np.searchsorted(person[order], np.arange(people + 1))
    below, above = np.empty((2, people, len(cuts)), raw.dtype)
    for k in range(people):
        own = np.concatenate([[-np.inf], raw[order[edges[k] : edges[k + 1]]], [np.inf]]).astype(raw.dtype)
        place = np.searchsorted(own, cuts, "left").clip(min=1)
        below[k], above[k] = own[place - 1], own[place]
    return below, above
