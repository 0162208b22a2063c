"""Metrics of decisions, of levels and of probabilities.

Decisions and levels are summed once for each person. A bootstrap over people only weights these sums, and does not read the
frames again.

A cell is one AU in one frame. Cells without a label are not counted: figures of one AU use the frames in which it is labelled,
and figures of all AUs of a frame use complete frames, in which all are labelled. A figure without any cell is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from aupair.data.levels import TOP

CHALLENGE_FIGURES = ("f1", "accuracy", "exact_match", "score")
"""the figures of the 2021 challenge, see `challenge_figures`"""
_BINS = 15
_ROUNDING = 1e-10
"""a variance below this share of the mean square counts as the rounding error of a constant"""


@dataclass(frozen=True)
class _Sums:
    """Arrays of sums; their leading axes are people, resamples, or nothing."""

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the sums over people with weights (..., P): how often each person was drawn."""
        return type(self)(*(np.tensordot(weights, values, 1) for values in vars(self).values()))

    def total(self) -> Self:
        """Return the sums over people."""
        return type(self)(*(values.sum(0) for values in vars(self).values()))


@dataclass(frozen=True)
class Counts(_Sums):
    """Decisions compared with the truth.

    Attributes:
        cells: (..., A, 4) tp, fp, fn, tn of each AU.
        complete: (..., A, 4) the same of the complete frames, in which all AUs are counted.
        exact: (...,) complete frames with all AUs right.
        frames: (...,) complete frames.
    """

    cells: np.ndarray
    complete: np.ndarray
    exact: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class LevelSums(_Sums):
    """Outputs compared with levels.

    Attributes:
        values: (..., A, 8) float64, sums over frames of 1, x, y, x^2, y^2, xy, |x - y| and |round(x) - y|, with the
            output x and the level y.
    """

    values: np.ndarray


def count_decisions(
    decisions: np.ndarray, truth: np.ndarray, person: np.ndarray, counted: np.ndarray | None = None
) -> Counts:
    """Count right and wrong decisions for each person.

    Args:
        decisions: (n, A) bool.
        truth: (n, A) bool, whether the AU is active.
        person: (n,) int, any numbers; P of them are different.
        counted: (n, A) bool, the cells that are counted; None: all.

    Returns:
        Counts with the leading axis P.
    """
    names, index = np.unique(person, return_inverse=True)
    counted = np.ones(truth.shape, bool) if counted is None else counted
    complete = counted.all(1)
    kind = 3 - 2 * decisions.astype(np.int64) - truth  # 0 tp, 1 fp, 2 fn, 3 tn
    cells = of_complete = _count_kinds(kind, index, counted, len(names))
    if not complete.all():
        of_complete = _count_kinds(kind[complete], index[complete], counted[complete], len(names))
    exact = np.bincount(index, complete & (decisions == truth).all(1), len(names)).astype(np.int64)
    return Counts(cells, of_complete, exact, np.bincount(index[complete], minlength=len(names)))


def _count_kinds(kind: np.ndarray, index: np.ndarray, counted: np.ndarray, people: int) -> np.ndarray:
    """Count the cells of each kind, (n, A) int from 0 to 3, for each person and AU: (P, A, 4)."""
    places = [(4 * index + own)[use] for own, use in zip(kind.T, counted.T)]
    return np.stack([np.bincount(own, minlength=4 * people).reshape(-1, 4) for own in places], axis=1)


def sum_levels(raw: np.ndarray, level: np.ndarray, person: np.ndarray, counted: np.ndarray | None = None) -> LevelSums:
    """Compute the sums of outputs and levels for each person.

    Args:
        raw: (n, A) float, clamped here; NaN (a video without a face) is 0.
        level: (n, A) int, 0..5.
        person: (n,) int, any numbers; P of them are different.
        counted: (n, A) bool, the cells that are counted; None: all.

    Returns:
        LevelSums with the leading axis P, in the order of the numbers.
    """
    names, index = np.unique(person, return_inverse=True)
    counted = np.ones(level.shape, bool) if counted is None else counted
    outputs, columns = np.nan_to_num(clamp_levels(raw)).astype(np.float64), []
    for x, y, use in zip(outputs.T, level.astype(np.float64).T, counted.T):
        x, y, own = x[use], y[use], index[use]
        off, off_rounded = np.abs(x - y), np.abs(np.floor(x + 0.5) - y)
        terms = (np.ones_like(x), x, y, x * x, y * y, x * y, off, off_rounded)
        columns.append(np.stack([np.bincount(own, term, len(names)) for term in terms], axis=1))
    return LevelSums(np.stack(columns, axis=1))


def clamp_levels(raw: np.ndarray) -> np.ndarray:
    """Return the intensities of raw outputs: 0..5, not rounded; NaN stays NaN."""
    return np.clip(raw, 0, TOP)


def f1(counts: Counts) -> np.ndarray:
    """Return F1 = 2 tp / (2 tp + fp + fn) of the active class: (..., A), 0..1; NaN for an AU without a cell.

    It is 0 for an AU that is never active and never decided active, as in scikit-learn and in the challenge.
    """
    return _f1(counts.cells)


def accuracy(counts: Counts) -> np.ndarray:
    """Return the share of right decisions: (..., A), 0..1; NaN for an AU without a cell."""
    return _accuracy(counts.cells)


def au_score(counts: Counts) -> np.ndarray:
    """Return 1/2 (F1 + accuracy) of each AU, by which thresholds and mappings are chosen: (..., A)."""
    return 0.5 * (f1(counts) + accuracy(counts))


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Return the mean of the recalls of both classes, (..., A), 0..1; if only one occurs, return its recall."""
    tp, fp, fn, tn = np.moveaxis(counts.cells, -1, 0)
    recalls = np.stack([_ratio(tp, tp + fn), _ratio(tn, tn + fp)])
    return _ratio(np.nansum(recalls, 0), np.isfinite(recalls).sum(0))


def positives(counts: Counts) -> np.ndarray:
    """Return the share of active cells: (..., A), 0..1."""
    return _ratio(counts.cells[..., [0, 2]].sum(-1), counts.cells.sum(-1))


def challenge_figures(counts: Counts) -> dict[str, np.ndarray]:
    """Return mean F1, mean accuracy, exact match and the score of the 2021 challenge, each (...,).

    Paper, eq. (2): score = 1/2 mean F1 + 1/2 accuracy over all cells. In the challenge all frames are complete. Score and
    exact match therefore use complete frames, on which the mean of the AUs' accuracies equals the accuracy over cells. The
    two means use the labelled frames of each AU.
    """
    score = 0.5 * mean_over_aus(_f1(counts.complete)) + 0.5 * mean_over_aus(_accuracy(counts.complete))
    exact_match = _ratio(counts.exact, counts.frames)
    means = mean_over_aus(f1(counts)), mean_over_aus(accuracy(counts))
    return dict(zip(CHALLENGE_FIGURES, (*means, exact_match, score)))


def _f1(cells: np.ndarray) -> np.ndarray:
    """Return the F1 of (..., A, 4) counts."""
    tp, fp, fn, tn = np.moveaxis(cells, -1, 0)
    return np.where(tp + fp + fn + tn > 0, _ratio(2 * tp, 2 * tp + fp + fn, 0.0), np.nan)


def _accuracy(cells: np.ndarray) -> np.ndarray:
    """Return the share of right decisions from (..., A, 4) counts."""
    tp, _, _, tn = np.moveaxis(cells, -1, 0)
    return _ratio(tp + tn, cells.sum(-1))


def icc(sums: LevelSums) -> np.ndarray:
    """Return ICC(3,1) = (BMS - EMS) / (BMS + EMS): (..., A), -1..1; NaN where BMS + EMS = 0.

    The output x and the level y are two raters of n frames. With centred sums BMS = (Sxx + Syy + 2 Sxy) / (2 (n - 1))
    between frames and EMS = (Sxx + Syy - 2 Sxy) / (2 (n - 1)): an offset between the raters does not count, a
    different scale does.
    """
    sxx, syy, sxy = _centred(sums)
    bms, ems = sxx + syy + 2 * sxy, sxx + syy - 2 * sxy  # the common factor cancels
    return _ratio(bms - ems, bms + ems)


def pcc(sums: LevelSums) -> np.ndarray:
    """Return Pearson's correlation: (..., A), -1..1; NaN where the output or the level is constant."""
    sxx, syy, sxy = _centred(sums)
    return _ratio(sxy, np.sqrt(sxx * syy))


def mae(sums: LevelSums) -> np.ndarray:
    """Return the mean |output - level|: (..., A), 0..5."""
    return _ratio(sums.values[..., 6], sums.values[..., 0])


def mae_rounded(sums: LevelSums) -> np.ndarray:
    """Return the mean |rounded output - level|: (..., A), 0..5."""
    return _ratio(sums.values[..., 7], sums.values[..., 0])


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean precision at each positive, ties taken together; NaN without a positive.

    Args:
        score: (n,) float, higher for active; NaN ranks below every number.
        truth: (n,) bool.
    """
    from sklearn.metrics import average_precision_score

    if not truth.any():
        return float("nan")
    lowest = np.nanmin(score, initial=0.0) - 1
    return float(average_precision_score(truth, np.where(np.isnan(score), lowest, score)))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, a tie 1/2; NaN where either is missing.

    Args:
        score: (n,) float.
        positive: (n,) bool.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return the rank correlation of two (n,) arrays, ties at their mean rank; NaN where one is constant or n < 2."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    from scipy.stats import rankdata  # imported here, since it takes a second, and predict imports this module

    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def calibration_bins(p: np.ndarray, outcome: np.ndarray, low: float = 0.0) -> dict[str, np.ndarray]:
    """Group predicted probabilities (n,) in [low, 1] into 15 equal bins.

    Returns:
        claimed, observed: (15,) mean probability and mean outcome, NaN in empty bins; share: (15,) of the n, sums to 1.
    """
    index = np.clip(((p - low) / (1 - low) * _BINS).astype(int), 0, _BINS - 1)
    number = np.bincount(index, minlength=_BINS)
    divisor = np.where(number > 0, number, np.nan)
    claimed, observed = (np.bincount(index, values, _BINS) / divisor for values in (p, outcome))
    return {"claimed": claimed, "observed": observed, "share": number / max(len(p), 1)}


def expected_calibration_error(p: np.ndarray, outcome: np.ndarray, low: float = 0.0) -> float:
    """Return the mean |claimed - observed| over the bins of `calibration_bins`, weighted by share: 0..1; NaN for n = 0."""
    if not len(p):
        return float("nan")
    bins = calibration_bins(p, outcome, low)
    return float(np.nansum(bins["share"] * np.abs(bins["claimed"] - bins["observed"])))


def mean_over_aus(values: np.ndarray) -> np.ndarray:
    """Return the mean over the AUs that have a value: (..., A) -> (...,); NaN where none has."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def macro(values: np.ndarray) -> float:
    """Return the mean of (A,) values over the AUs that have one; NaN where none has."""
    return float(mean_over_aus(values))


def by_au(values: np.ndarray, aus: Sequence[str]) -> dict[str, Any]:
    """Return (A,) values as AU -> value."""
    return {au: float(value) for au, value in zip(aus, values, strict=True)}


def figures_by_au(figures: Mapping[str, np.ndarray], aus: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return several figures, (A,) each, as AU -> figure -> value."""
    return {au: {name: float(own[k]) for name, own in figures.items()} for k, au in enumerate(aus)}


def _centred(sums: LevelSums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Sxx, Syy, Sxy, each (..., A): sums of squares and products of the distances from the means."""
    n, x, y, xx, yy, xy = np.moveaxis(sums.values[..., :6], -1, 0)
    n = np.where(n > 0, n, 1)
    sxx, syy = xx - x * x / n, yy - y * y / n
    sxx, syy = np.where(sxx > _ROUNDING * xx, sxx, 0.0), np.where(syy > _ROUNDING * yy, syy, 0.0)
    return sxx, syy, np.where((sxx > 0) & (syy > 0), xy - x * y / n, 0.0)


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Return above / below, and `empty` where below is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), empty)
