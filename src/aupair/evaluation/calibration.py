"""The confidence and the risk of abstaining, both on people that neither thresholds nor regression have seen.

Thresholds are tuned on `select`, and the regression of the confidence is fitted there: on the same frames errors are
too few and confidences too high. So the people of `select` are dealt to folds. Each fold's cells are decided at the
thresholds that the others give: the regression is fitted on those decisions. And for the risk of abstaining each
fold's confidence, and the limit that it must reach, come from a regression that was fitted on the others.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta
from scipy.stats import t as student

from aupair.evaluation.confidence import QUANTILES, Confidence, fit_confidence, quantiles_of
from aupair.evaluation.selection import tune

FOLDS = 5
LEVEL = 0.95
"""of the upper bound of a risk"""


@dataclass(frozen=True)
class HeldOut:
    """Cells to calibrate on: the annotated frames with a face of `select`, n of them.

    Attributes:
        raw, sigma: (n, A) float, finite.
        thresholds: (n, A) float64, each frame's: tuned without its person, or fixed.
        truth: (n, A) bool, active.
        person: (n,) int.
        fold: (n,) int, the same for all frames of a person.
    """

    raw: np.ndarray
    sigma: np.ndarray
    thresholds: np.ndarray
    truth: np.ndarray
    person: np.ndarray
    fold: np.ndarray

    @property
    def active(self) -> np.ndarray:
        """(n, A) bool: the decisions at these thresholds."""
        return self.raw >= self.thresholds


def deal(person: np.ndarray, seed: int) -> np.ndarray:
    """Deal people to at most FOLDS folds of about as many people: (n,) int, from each frame's person (n,)."""
    people, index = np.unique(person, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(people)) % FOLDS)[index]


def tune_held_out(raw: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Give each frame the thresholds tuned on the frames of the other folds: (n, A); with one fold alone, on all.

    Args:
        raw: (n, A) float, NaN in a video without a face.
        truth: (n, A) bool.
        fold: (n,) int.
    """
    found = np.empty(truth.shape)
    for one in (folds := np.unique(fold)):
        others = fold != one if len(folds) > 1 else fold == one
        found[fold == one] = [tune(x, y) for x, y in zip(raw[others].T, truth[others].T)]
    return found


def calibrate(cells: HeldOut) -> Confidence:
    """Fit the confidence on held-out decisions; find its quantiles, and what risk is left at each of them."""
    fitted = _fit(cells, cells.fold >= 0)
    reached = np.empty(cells.truth.shape, np.int64)
    for one in (folds := np.unique(cells.fold)):
        own = cells.fold == one
        reached[own] = _reached(cells, own, _fit(cells, ~own) if len(folds) > 1 else fitted)
    number = _kept(reached, cells.person, np.ones(reached.shape, bool))
    errors = _kept(reached, cells.person, cells.active != cells.truth)
    risks = errors.sum(0) / np.maximum(number.sum(0), 1)
    return replace(fitted, risks=risks, bounds=upper_bound(errors, number))


def upper_bound(errors: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The one-sided 95 % upper bound of a risk from counts per person: (K,); Korn and Graubard, 1998.

    Cells of one person are alike, so that they count for less than as many cells of different people. The effective
    number of cells is risk (1 - risk) over the variance that the people show (linearised), lowered for how few they
    are; Clopper and Pearson's exact bound is taken with it. Without any error, or any right one, the people are the
    number. A simulation in tests/evaluation/test_calibration.py says how often a promise made by it is broken.

    Args:
        errors, number: (P, K) how many of each person's kept cells are wrong, and how many are kept.
    """
    people, total = (number > 0).sum(0), number.sum(0)  # one of whom nothing is kept says nothing
    freedom = np.maximum(people - 1, 1)
    risk = errors.sum(0) / np.maximum(total, 1)
    spread = ((errors - risk * number) ** 2).sum(0) * people / freedom
    alike = np.where(spread > 0, risk * (1 - risk) * total**2 / np.where(spread > 0, spread, 1), total)
    effective = np.where((risk == 0) | (risk == 1), people, np.minimum(alike, total))
    few = student.ppf(LEVEL, np.maximum(total - 1, 1)) / student.ppf(LEVEL, freedom)
    effective = np.minimum(effective * few**2, total)
    bound = beta.ppf(LEVEL, risk * effective + 1, np.maximum((1 - risk) * effective, 1e-9))
    return np.where(people > 1, bound, 1.0)


def _fit(cells: HeldOut, rows: np.ndarray) -> Confidence:
    """Fit the confidence on some frames, (n,) bool, and find its quantiles there."""
    raw, sigma, thresholds = cells.raw[rows], cells.sigma[rows], cells.thresholds[rows]
    confidence = fit_confidence(raw, sigma, thresholds, cells.truth[rows])
    return replace(confidence, quantiles=quantiles_of(confidence(raw, sigma, thresholds), cells.active[rows]))


def _reached(cells: HeldOut, rows: np.ndarray, confidence: Confidence) -> np.ndarray:
    """How many of its AU's and decision's quantiles each confidence is at or above: (n, A) int, 0..101."""
    assert confidence.quantiles is not None
    values = confidence(cells.raw[rows], cells.sigma[rows], cells.thresholds[rows])
    found = np.empty(values.shape, np.int64)
    for au, active in enumerate(cells.active[rows].T):
        sides = (np.searchsorted(confidence.quantiles[:, side, au], values[:, au], "right") for side in (0, 1))
        found[:, au] = np.choose(active.astype(int), list(sides))
    return found


def _kept(reached: np.ndarray, person: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Count each person's cells, those in use (n, A) bool, at or above each quantile: (P, 101)."""
    people, index = np.unique(person, return_inverse=True)
    width = QUANTILES + 1
    place = (index[:, None] * width + reached)[use]
    number = np.bincount(place, minlength=len(people) * width).reshape(len(people), width)
    return number[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
