"""Fit of the confidence on `select`, and estimation of the risk for each share of decisions left out.

Decisions on the frames on which thresholds were tuned have too few errors, and confidences fitted on them would be too high.
The people of `select` are therefore assigned to folds. The decisions of each fold use thresholds tuned on the other folds, and
the regression is fitted on these decisions. For the estimate of the risk, the confidences of each fold, and the limits that
they are compared with, come from a regression fitted on the other folds. Cells without a label are ignored.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import beta
from scipy.stats import t as student

from aupair.evaluation.confidence import QUANTILES, SIDES, TERMS, Confidence, regression_terms

_FOLDS = 5
_RIDGE = 1.0
"""weight of the squared coefficients (standardised terms) that all AUs share"""
_SHRINKAGE = 20.0
"""weight of the squared distance from the shared coefficients, which keeps an AU with few errors near them"""
_LEVEL = 0.95
"""confidence level of the upper bound of a risk"""


@dataclass(frozen=True)
class HeldOut:
    """Decisions to calibrate on: the frames of `select` that have a face and the label of at least one AU, n of them.

    Attributes:
        raw, sigma: (n, A) float, finite.
        thresholds: (n, A) float64, each frame's: tuned without its person, or fixed.
        truth: (n, A) bool, active.
        counted: (n, A) bool, whether there is a label.
        person: (n,) int.
        fold: (n,) int, the same for all frames of a person.
    """

    raw: np.ndarray
    sigma: np.ndarray
    thresholds: np.ndarray
    truth: np.ndarray
    counted: np.ndarray
    person: np.ndarray
    fold: np.ndarray

    def subset(self, rows: np.ndarray) -> "HeldOut":
        """Return the decisions on some frames, (n,) bool."""
        return HeldOut(*(values[rows] for values in vars(self).values()))

    @property
    def active(self) -> np.ndarray:
        """Return the decisions at these thresholds: (n, A) bool."""
        return self.raw >= self.thresholds


def assign_calibration_folds(person: np.ndarray, seed: int) -> np.ndarray:
    """Assign people at random to at most five folds of about equal size: (n,) int, from the person of each frame (n,)."""
    people, index = np.unique(person, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(people)) % _FOLDS)[index]


def calibrate(cells: HeldOut) -> Confidence:
    """Fit the confidence on held-out decisions, with its quantiles and the risk at each of them."""
    fitted = _fit_with_quantiles(cells)
    reached = np.empty(cells.truth.shape, np.int64)
    for fold in (folds := np.unique(cells.fold)):
        held_out = cells.fold == fold
        fitted_on_others = _fit_with_quantiles(cells.subset(~held_out)) if len(folds) > 1 else fitted
        reached[held_out] = _quantiles_reached(cells.subset(held_out), fitted_on_others)
    number = _cells_above_quantiles(reached, cells.person, cells.counted)
    errors = _cells_above_quantiles(reached, cells.person, cells.counted & (cells.active != cells.truth))
    risks = errors.sum(0) / np.maximum(number.sum(0), 1)
    return replace(fitted, risks=risks, bounds=_upper_bound(errors, number))


def _upper_bound(errors: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the one-sided 95 % upper bound of a risk from counts per person: (K,); Korn and Graubard, 1998.

    Cells of one person are correlated, and so are weaker evidence than as many cells of different people. The effective
    number of cells is therefore risk (1 - risk) divided by the (linearised) variance between people, with a correction
    for few people. The bound is Clopper and Pearson's exact one for that number. If all cells are right, or all wrong, the
    effective number is the number of people. tests/evaluation/test_calibration.py checks the bound's coverage by simulation.

    Args:
        errors: (P, K), number of wrong cells among the kept cells of each person.
        number: (P, K), number of kept cells of each person.
    """
    people, total = (number > 0).sum(0), number.sum(0)  # only people with kept cells count
    freedom = np.maximum(people - 1, 1)
    risk = errors.sum(0) / np.maximum(total, 1)
    spread = ((errors - risk * number) ** 2).sum(0) * people / freedom
    independent = np.where(spread > 0, risk * (1 - risk) * total**2 / np.where(spread > 0, spread, 1), total)
    effective = np.where((risk == 0) | (risk == 1), people, np.minimum(independent, total))
    correction = student.ppf(_LEVEL, np.maximum(total - 1, 1)) / student.ppf(_LEVEL, freedom)
    effective = np.minimum(effective * correction**2, total)
    bound = beta.ppf(_LEVEL, risk * effective + 1, np.maximum((1 - risk) * effective, 1e-9))
    return np.where(people > 1, bound, 1.0)


def _fit_confidence(cells: HeldOut) -> Confidence:
    """Fit one logistic regression on the decisions of all AUs, then one for each AU that is regularised toward it.

    An AU without any label gets the shared regression.
    """
    x = regression_terms(cells.raw, cells.sigma, cells.thresholds)
    right = (cells.active == cells.truth).astype(np.float64)
    flat = x[cells.counted]
    center, spread = flat.mean(0), flat.std(0)
    center[0], spread[0] = 0.0, 1.0
    spread[spread < 1e-9] = 1.0
    x = (x - center) / spread
    shared = _fit_logistic(x[cells.counted], right[cells.counted], np.zeros(len(TERMS)), _RIDGE)
    columns = zip(x.swapaxes(0, 1), right.T, cells.counted.T)
    own = np.stack([_fit_logistic(terms[use], y[use], shared, _SHRINKAGE) for terms, y, use in columns])
    coefficients = own / spread
    coefficients[:, 0] -= coefficients @ center
    return Confidence(coefficients)


def _fit_logistic(x: np.ndarray, y: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """Minimise -sum log P(y | x w) + ridge/2 |w - prior|^2: (K,) float64.

    Args:
        x: (n, K) float64.
        y: (n,) float64, 0 or 1.
        prior: (K,) float64, the weights toward which the penalty shrinks w.
    """

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z, off = x @ w, w - prior
        value = np.sum(np.logaddexp(0, z) - y * z) + 0.5 * ridge * off @ off
        return float(value), x.T @ (expit(z) - y) + ridge * off

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(x @ w)
        return (x.T * (p * (1 - p))) @ x + ridge * np.eye(len(w))

    return minimize(loss, prior, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-5}).x


def _confidence_quantiles(values: np.ndarray, active: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the quantiles of the confidences of each AU's inactive and active decisions: (101, 2, A).

    If an AU has no decision of one kind, it gets the quantiles of all AUs' decisions of that kind; if there are none
    either, those of all decisions.

    Args:
        values: (n, A) float, confidences.
        active: (n, A) bool, the decisions.
        counted: (n, A) bool, whether there is a label.
    """
    levels, quantiles = np.linspace(0, 1, QUANTILES), np.empty((QUANTILES, len(SIDES), values.shape[1]))
    for side in range(len(SIDES)):
        use = counted & (active == bool(side))
        everywhere = values[use] if use.any() else values[counted]
        for au in range(values.shape[1]):
            own = values[use[:, au], au]
            quantiles[:, side, au] = np.quantile(own if len(own) else everywhere, levels)
    return quantiles


def _fit_with_quantiles(cells: HeldOut) -> Confidence:
    """Fit the confidence on decisions, and compute its quantiles over them."""
    confidence = _fit_confidence(cells)
    values = confidence(cells.raw, cells.sigma, cells.thresholds)
    return replace(confidence, quantiles=_confidence_quantiles(values, cells.active, cells.counted))


def _quantiles_reached(cells: HeldOut, confidence: Confidence) -> np.ndarray:
    """Count how many quantiles, of the same AU and decision, each confidence reaches: (n, A) int, 0..101."""
    assert confidence.quantiles is not None
    values = confidence(cells.raw, cells.sigma, cells.thresholds)
    reached = np.empty(values.shape, np.int64)
    for au, active in enumerate(cells.active.T):
        sides = (np.searchsorted(confidence.quantiles[:, side, au], values[:, au], "right") for side in (0, 1))
        reached[:, au] = np.choose(active.astype(int), list(sides))
    return reached


def _cells_above_quantiles(reached: np.ndarray, person: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Count each person's cells at or above each quantile: (P, 101); `use`: (n, A) bool, the cells that are counted."""
    people, index = np.unique(person, return_inverse=True)
    width = QUANTILES + 1
    place = (index[:, None] * width + reached)[use]
    number = np.bincount(place, minlength=len(people) * width).reshape(len(people), width)
    return number[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
