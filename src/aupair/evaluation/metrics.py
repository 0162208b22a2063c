"""Scores of yes/no decisions, computed from counts per video so that a bootstrap never walks the frames again.

An AU without a positive, called by nobody, has F1 = 0 (as in scikit-learn and in the challenge).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import AUS

HEADLINE = ("f1", "accuracy", "exact_match", "score")
"""The figures that get an interval."""


@dataclass(frozen=True)
class Counts:
    """How decisions met the truth; the leading axes are videos, resamples, or nothing.

    Attributes:
        cells: (..., A, 4) tp, fp, fn, tn of each AU.
        exact: (...,) frames with all AUs right.
        frames: (...,) frames.
    """

    cells: np.ndarray
    exact: np.ndarray
    frames: np.ndarray

    def weighted(self, weights: np.ndarray) -> "Counts":
        """Sum over videos with weights (..., V): how often each video was drawn."""
        return Counts(np.tensordot(weights, self.cells, 1), weights @ self.exact, weights @ self.frames)

    def total(self) -> "Counts":
        """Sum over videos."""
        return Counts(self.cells.sum(0), self.exact.sum(0), self.frames.sum(0))


def count(decisions: np.ndarray, truth: np.ndarray, video: np.ndarray, kept: np.ndarray | None = None) -> Counts:
    """Count per video.

    Args:
        decisions: (n, A) bool.
        truth: (n, A) bool, active.
        video: (n,) int, any numbers; V of them are different.
        kept: (n, A) bool, the cells that count; a frame is exact without an error among them. None: all.

    Returns:
        Counts with the leading axis V.
    """
    names, index = np.unique(video, return_inverse=True)
    kept = np.ones(truth.shape, bool) if kept is None else kept
    kind = 3 - 2 * decisions.astype(np.int64) - truth  # 0 tp, 1 fp, 2 fn, 3 tn
    places = [(4 * index + own)[use] for own, use in zip(kind.T, kept.T)]
    cells = np.stack([np.bincount(own, minlength=4 * len(names)).reshape(-1, 4) for own in places], axis=1)
    exact = np.bincount(index, ((decisions == truth) | ~kept).all(1), len(names)).astype(np.int64)
    return Counts(cells, exact, np.bincount(index, minlength=len(names)))


def f1(counts: Counts) -> np.ndarray:
    """F1 = 2 tp / (2 tp + fp + fn) of the positive class: (..., A), 0..1."""
    tp, fp, fn, _ = np.moveaxis(counts.cells, -1, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn, 0.0)


def accuracy(counts: Counts) -> np.ndarray:
    """The share of right decisions: (..., A), 0..1."""
    tp, _, _, tn = np.moveaxis(counts.cells, -1, 0)
    return _ratio(tp + tn, counts.cells.sum(-1), np.nan)


def au_score(counts: Counts) -> np.ndarray:
    """1/2 (F1 + accuracy) of each AU: (..., A), what thresholds and variants are chosen by."""
    return 0.5 * (f1(counts) + accuracy(counts))


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """The mean of the two classes' recalls: (..., A), 0..1; the recall of the one class where there is only one."""
    tp, fp, fn, tn = np.moveaxis(counts.cells, -1, 0)
    recalls = np.stack([_ratio(tp, tp + fn, np.nan), _ratio(tn, tn + fp, np.nan)])
    return _ratio(np.nansum(recalls, 0), np.isfinite(recalls).sum(0), np.nan)


def headline(counts: Counts) -> dict[str, np.ndarray]:
    """The figures of the 2021 challenge, each (...,): score = 1/2 mean F1 + 1/2 accuracy over all cells.

    # paper: eq. (2). Every annotated frame has all AUs, so that the mean over AUs is the accuracy over cells.
    """
    mean_f1, mean_accuracy = f1(counts).mean(-1), accuracy(counts).mean(-1)
    return {
        "f1": mean_f1,
        "accuracy": mean_accuracy,
        "exact_match": _ratio(counts.exact, counts.frames, np.nan),
        "score": 0.5 * mean_f1 + 0.5 * mean_accuracy,
    }


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """The mean precision at each positive, ties taken together; NaN without a positive.

    Args:
        score: (n,) float, higher for active; NaN stands below every number.
        truth: (n,) bool.
    """
    if not truth.any():
        return float("nan")
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(score[order][1:] != score[order][:-1]), len(score) - 1)
    tp = np.cumsum(truth[order])[last_of_ties]
    return float(np.sum(np.diff(tp, prepend=0) * tp / (last_of_ties + 1)) / tp[-1])


def resamples(videos: int, draws: int, seed: Iterable[int]) -> np.ndarray:
    """How often each video is drawn in bootstrap resamples over videos: (draws, videos) int64, rows sum to `videos`."""
    return np.random.default_rng(list(seed)).multinomial(videos, np.full(videos, 1 / videos), size=draws)


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of bootstrap values (B,): [low, high]."""
    return [float(edge) for edge in np.quantile(values, [0.025, 0.975])]


def by_au(values: np.ndarray) -> dict[str, Any]:
    """Name (A,) values."""
    return {au: float(value) for au, value in zip(AUS, values)}


def per_au(values: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Name several figures, (A,) each: AU -> figure -> value."""
    return {au: {name: float(own[k]) for name, own in values.items()} for k, au in enumerate(AUS)}


def paired(ours: np.ndarray, other: np.ndarray, resampled: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """How far one figure is above another, and how sure that is: a paired bootstrap over videos.

    Args:
        ours, other: a number each.
        resampled: both in the same resamples, (B,) each.

    Returns:
        difference, its 95 % interval, and the probability that ours is better: the share of resamples, ties half.
    """
    drawn = resampled[0] - resampled[1]
    return {
        "difference": float(ours - other),
        "interval": interval(drawn),
        "probability": float((drawn > 0).mean() + 0.5 * (drawn == 0).mean()),
    }


def macro(values: np.ndarray) -> float:
    """The mean over the AUs that have a value; NaN where none has."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(above: np.ndarray, below: np.ndarray, empty: float) -> np.ndarray:
    """above / below, and `empty` where below is 0."""
    safe = np.maximum(below, 1)
    return np.where(below > 0, above / safe, empty)
