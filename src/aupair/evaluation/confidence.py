"""The confidence, P(a decision is right), and the risk that remains when the least confident decisions are left out.

The confidence is a logistic regression for each AU, fitted on `select`. Its inputs are the distance of the raw output from
the threshold, the side of the threshold, and log sigma. On the frames on which thresholds were tuned, there are too few
errors, and confidences would be too high. Therefore the people of `select` are assigned to folds: the decisions of each
fold are made with thresholds tuned on the other folds, and the regression is fitted on these decisions. To estimate the
risk, the confidences of each fold, and the limits that they are compared with, come from a regression that was fitted on
the other folds.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import beta
from scipy.stats import t as student

from aupair.aus import AUS
from aupair.errors import ArtifactError, ParamsError

TERMS = ("intercept", "margin", "active", "margin_if_active", "log_sigma")
QUANTILES = 101
_FOLDS = 5
_SIDES = ("inactive", "active")
"""the two decisions; False and True index them"""
_RIDGE = 1.0
"""weight of the squared coefficients (standardised terms) that all AUs share"""
_SHRINKAGE = 20.0
"""weight of the squared distance from the shared coefficients, which keeps an AU with few errors near them"""
_LARGEST_SHARE = 0.5
"""the largest share of decisions that is left out to achieve a risk"""
_LEVEL = 0.95
"""confidence level of the upper bound of a risk"""


@dataclass(frozen=True)
class Confidence:
    """A calibrated confidence.

    Attributes:
        coefficients: (A, K) float64 of the terms in TERMS.
        quantiles: (101, 2, A) float64, the confidence below which k percent of an AU's inactive (0) and active (1)
            decisions on `select` are; None if the selection.json is of a version
            that did not store it; the same holds for risks and bounds.
        risks: (101,) float64, the share of wrong ones among the held-out decisions at or above the quantiles k.
        bounds: (101,) float64, the one-sided 95 % upper bounds of `risks`.
    """

    coefficients: np.ndarray
    quantiles: np.ndarray | None = None
    risks: np.ndarray | None = None
    bounds: np.ndarray | None = None

    def __call__(self, raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Return P(the decision is right): (n, A) float64, 0..1; NaN where there is no face.

        Args:
            raw: (n, A) float, the chosen mapping's output.
            sigma: (n, A) float.
            thresholds: (A,) float, or (n, A).
        """
        return expit(np.einsum("nak,ak->na", _regression_terms(raw, sigma, thresholds), self.coefficients))

    def limits(self, share: float) -> np.ndarray:
        """Return the confidences below which a share of the decisions is left out: (2, A), of inactive and active ones.

        Each AU abstains from the least confident share of its inactive decisions and of its active ones. Ranked
        together the active ones would go first: most frames are inactive, so that an active decision is seldom as
        confident; with a fifth left out, hardly any active decision on a rare AU would remain.

        Raises:
            ArtifactError: the selection was written by a version that did not store the quantiles.
        """
        quantiles = self._required(self.quantiles)
        place = share * (QUANTILES - 1)
        low = min(int(place), QUANTILES - 2)
        return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])

    def share_for_risk(self, risk: float) -> float:
        """Return the smallest share of decisions to leave out so that at most `risk` of those kept are wrong: 0 to .5.

        Starting with one half, ever smaller shares are tested, as long as the upper bound of their risk
        (`_upper_bound`) is at most `risk`; the last one that passes is returned. Tests in a fixed order need no
        correction for their number: for new people like those of `select`, the risk is exceeded in about one of 20 cases.

        Raises:
            ParamsError: the risk is exceeded even if one half is left out; the message names the lowest possible risk.
            ArtifactError: the selection was written by a version that did not store the bounds.
        """
        bounds = self._required(self.bounds)
        most = round(_LARGEST_SHARE * (QUANTILES - 1))
        failed = np.flatnonzero(bounds[: most + 1] > risk)
        share = 0 if not len(failed) else int(failed[-1]) + 1
        if share > most:
            coverage = f"{100 * (1 - _LARGEST_SHARE):.0f} % of the decisions"
            expected = f"{np.ceil(1000 * bounds[most]) / 1000:g} or more, which keeps {coverage}"
            raise ParamsError("no decisions are that certain to be right", got=f"a risk of {risk:g}", expected=expected)
        return share / (QUANTILES - 1)

    @staticmethod
    def _required(values: np.ndarray | None) -> np.ndarray:
        """Return values that abstention needs.

        Raises:
            ArtifactError: they are None.
        """
        if values is None:
            todo = "run evaluate and register-model again, or predict without abstaining"
            what = "this model cannot abstain: its selection.json has no risk table, since an older version of aupair wrote it"
            raise ArtifactError(what, todo=todo)
        return values

    def au_to_json(self, au: int) -> dict[str, Any]:
        """Return the part of an AU's entry in `selection.json`: coefficients, and quantiles of both decisions."""
        tree: dict[str, Any] = {"confidence": dict(zip(TERMS, map(float, self.coefficients[au])))}
        if self.quantiles is not None:
            sides = {name: self.quantiles[:, k, au].tolist() for k, name in enumerate(_SIDES)}
            tree["confidence_quantiles"] = sides
        return tree

    def risks_to_json(self) -> dict[str, list[float]]:
        """Return the part of `selection.json` that concerns all AUs: the risks and their bounds."""
        arrays = {"confidence_risks": self.risks, "confidence_risk_bounds": self.bounds}
        return {name: values.tolist() for name, values in arrays.items() if values is not None}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Confidence":
        """Return the confidence stored in `selection.json`; files of older versions hold the coefficients only."""
        coefficients = np.array([[tree[au]["confidence"][term] for term in TERMS] for au in AUS])
        if "confidence_risk_bounds" not in tree:
            return cls(coefficients)
        quantiles = np.array([[tree[au]["confidence_quantiles"][side] for side in _SIDES] for au in AUS]).T
        risks, bounds = (np.array(tree[key]) for key in ("confidence_risks", "confidence_risk_bounds"))
        return cls(coefficients, quantiles, risks, bounds)


@dataclass(frozen=True)
class HeldOut:
    """Decisions to calibrate on: the annotated frames with a face of `select`, n of them.

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
        """Return the decisions at these thresholds: (n, A) bool."""
        return self.raw >= self.thresholds


def assign_calibration_folds(person: np.ndarray, seed: int) -> np.ndarray:
    """Assign people at random to at most five folds of about as many people: (n,) int, from each frame's person (n,)."""
    people, index = np.unique(person, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(people)) % _FOLDS)[index]


def calibrate(cells: HeldOut) -> Confidence:
    """Fit the confidence on held-out decisions, with its quantiles and the risk at each of them."""
    fitted = _fit_with_quantiles(cells, cells.fold >= 0)
    reached = np.empty(cells.truth.shape, np.int64)
    for fold in (folds := np.unique(cells.fold)):
        held_out = cells.fold == fold
        fitted_on_others = _fit_with_quantiles(cells, ~held_out) if len(folds) > 1 else fitted
        reached[held_out] = _quantiles_reached(cells, held_out, fitted_on_others)
    number = _cells_above_quantiles(reached, cells.person, np.ones(reached.shape, bool))
    errors = _cells_above_quantiles(reached, cells.person, cells.active != cells.truth)
    risks = errors.sum(0) / np.maximum(number.sum(0), 1)
    return replace(fitted, risks=risks, bounds=_upper_bound(errors, number))


def _upper_bound(errors: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the one-sided 95 % upper bound of a risk from counts per person: (K,); Korn and Graubard, 1998.

    The cells of one person resemble each other, so they are weaker evidence than the same number of cells of different people. The
    effective number of cells is therefore risk (1 - risk) divided by the (linearised) variance between people, with a
    correction for few people. The bound is Clopper and Pearson's exact one for that number. If all cells are right, or all
    wrong, the effective number is that of the people. A simulation in tests/evaluation/test_calibration.py counts how
    often the bound is exceeded.

    Args:
        errors: (P, K), number of wrong cells among the kept cells of each person.
        number: (P, K), number of kept cells of each person.
    """
    people, total = (number > 0).sum(0), number.sum(0)  # only people with kept cells count
    freedom = np.maximum(people - 1, 1)
    risk = errors.sum(0) / np.maximum(total, 1)
    spread = ((errors - risk * number) ** 2).sum(0) * people / freedom
    alike = np.where(spread > 0, risk * (1 - risk) * total**2 / np.where(spread > 0, spread, 1), total)
    effective = np.where((risk == 0) | (risk == 1), people, np.minimum(alike, total))
    few = student.ppf(_LEVEL, np.maximum(total - 1, 1)) / student.ppf(_LEVEL, freedom)
    effective = np.minimum(effective * few**2, total)
    bound = beta.ppf(_LEVEL, risk * effective + 1, np.maximum((1 - risk) * effective, 1e-9))
    return np.where(people > 1, bound, 1.0)


def _regression_terms(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the terms of the regression: (n, A, K) float64, in the order of TERMS; thresholds (A,) or (n, A)."""
    margin, active = np.abs(raw.astype(np.float64) - thresholds), (raw >= thresholds).astype(np.float64)
    log_sigma = np.log(sigma.astype(np.float64))
    return np.stack([np.ones_like(margin), margin, active, margin * active, log_sigma], axis=-1)


def _fit_confidence(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray, truth: np.ndarray) -> Confidence:
    """Fit one logistic regression on the decisions of all AUs, then one for each AU that is regularised toward it.

    Args:
        raw, sigma: (n, A) float, finite, of the annotated frames of `select` that have a face.
        thresholds: (A,) float, one for each AU; or (n, A), one for each frame and AU.
        truth: (n, A) bool, whether the AU is active.
    """
    x, right = _regression_terms(raw, sigma, thresholds), ((raw >= thresholds) == truth).astype(np.float64)
    flat = x.reshape(-1, len(TERMS))
    center, spread = flat.mean(0), flat.std(0)
    center[0], spread[0] = 0.0, 1.0
    spread[spread < 1e-9] = 1.0
    x = (x - center) / spread
    shared = _fit_logistic(x.reshape(-1, len(TERMS)), right.ravel(), np.zeros(len(TERMS)), _RIDGE)
    own = np.stack([_fit_logistic(x[:, au], right[:, au], shared, _SHRINKAGE) for au in range(x.shape[1])])
    coefficients = own / spread
    coefficients[:, 0] -= coefficients @ center
    return Confidence(coefficients)


def _fit_logistic(x: np.ndarray, y: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """Minimise -sum log P(y | x w) + ridge/2 |w - prior|^2: (K,) float64.

    Args:
        x: (n, K) float64.
        y: (n,) float64, 0 or 1.
        prior: (K,) float64, the weights that the penalty pulls w toward.
    """

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z, off = x @ w, w - prior
        value = np.sum(np.logaddexp(0, z) - y * z) + 0.5 * ridge * off @ off
        return float(value), x.T @ (expit(z) - y) + ridge * off

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(x @ w)
        return (x.T * (p * (1 - p))) @ x + ridge * np.eye(len(w))

    return minimize(loss, prior, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-5}).x


def _confidence_quantiles(values: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the quantiles of the confidences of each AU's inactive and active decisions: (101, 2, A).

    If an AU has no decision of one kind, it gets the quantiles of all AUs' decisions of that kind; if there are none
    either, those of all decisions.

    Args:
        values: (n, A) float, confidences.
        active: (n, A) bool, the decisions.
    """
    levels, quantiles = np.linspace(0, 1, QUANTILES), np.empty((QUANTILES, len(_SIDES), values.shape[1]))
    for side in range(len(_SIDES)):
        use = active == bool(side)
        everywhere = values[use] if use.any() else values.ravel()
        for au in range(values.shape[1]):
            own = values[use[:, au], au]
            quantiles[:, side, au] = np.quantile(own if len(own) else everywhere, levels)
    return quantiles


def _fit_with_quantiles(cells: HeldOut, rows: np.ndarray) -> Confidence:
    """Fit the confidence on some frames, (n,) bool, with its quantiles there."""
    raw, sigma, thresholds = cells.raw[rows], cells.sigma[rows], cells.thresholds[rows]
    confidence = _fit_confidence(raw, sigma, thresholds, cells.truth[rows])
    values = confidence(raw, sigma, thresholds)
    return replace(confidence, quantiles=_confidence_quantiles(values, cells.active[rows]))


def _quantiles_reached(cells: HeldOut, rows: np.ndarray, confidence: Confidence) -> np.ndarray:
    """Count the quantiles of its AU and decision that each confidence is at or above: (n, A) int, 0..101."""
    assert confidence.quantiles is not None
    values = confidence(cells.raw[rows], cells.sigma[rows], cells.thresholds[rows])
    reached = np.empty(values.shape, np.int64)
    for au, active in enumerate(cells.active[rows].T):
        sides = (np.searchsorted(confidence.quantiles[:, side, au], values[:, au], "right") for side in (0, 1))
        reached[:, au] = np.choose(active.astype(int), list(sides))
    return reached


def _cells_above_quantiles(reached: np.ndarray, person: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Count each person's cells, those in use (n, A) bool, at or above each quantile: (P, 101)."""
    people, index = np.unique(person, return_inverse=True)
    width = QUANTILES + 1
    place = (index[:, None] * width + reached)[use]
    number = np.bincount(place, minlength=len(people) * width).reshape(len(people), width)
    return number[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
