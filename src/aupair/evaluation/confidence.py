"""The probability that a decision is right: a logistic regression of each AU, fitted on `select`.

It sees how far the raw output is from the threshold, which side it is on, and log sigma. So that thresholds which were
tuned on the same frames do not make it too high, it is fitted on decisions at held-out thresholds: see `calibration`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from aupair.aus import AUS
from aupair.errors import ArtifactError, ParamsError

TERMS = ("intercept", "margin", "active", "margin_if_active", "log_sigma")
RIDGE = 1.0
"""weight of the squared coefficients (standardised terms) that all AUs share"""
SHRINKAGE = 20.0
"""weight of the squared distance from the shared ones: an AU with few errors stays near them"""
QUANTILES = 101
MOST = 0.5
"""the largest share of decisions that is given up for a risk"""
SIDES = ("inactive", "active")
"""what was decided; False and True index them"""


@dataclass(frozen=True)
class Confidence:
    """A calibrated confidence.

    Attributes:
        coefficients: (A, K) float64 of the terms in TERMS.
        quantiles: (101, 2, A) float64, the confidence below which k percent of an AU's inactive (0) and active (1)
            decisions on `select` are; None, as the others, in a selection.json from before it was kept.
        risks: (101,) float64, the share of wrong ones among the held-out decisions at or above the quantiles k.
        bounds: (101,) float64, the one-sided 95 % upper bounds of `risks`.
    """

    coefficients: np.ndarray
    quantiles: np.ndarray | None = None
    risks: np.ndarray | None = None
    bounds: np.ndarray | None = None

    def __call__(self, raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Give P(the decision is right): (n, A) float64, 0..1; NaN where there is no face.

        Args:
            raw: (n, A) float, the chosen mapping's output.
            sigma: (n, A) float.
            thresholds: (A,) float, or (n, A).
        """
        return expit(np.einsum("nak,ak->na", terms(raw, sigma, thresholds), self.coefficients))

    def limits(self, share: float) -> np.ndarray:
        """The confidences under which to abstain from a share of the decisions: (2, A), of inactive and active ones.

        Each AU abstains from the least confident share of its inactive decisions and of its active ones. Ranked
        together the active ones would go first: most frames are inactive, so that an active decision is seldom as
        sure, and with a fifth left out hardly any would be left of a rare AU.

        Raises:
            ArtifactError: the selection is from before this was kept.
        """
        quantiles = self._kept(self.quantiles)
        place = share * (QUANTILES - 1)
        low = min(int(place), QUANTILES - 2)
        return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])

    def share_for_risk(self, risk: float) -> float:
        """The smallest share of decisions to abstain from with at most `risk` wrong ones among those kept: 0..MOST.

        From MOST down, share after share is tested as long as its upper bound (`calibration.upper_bound`) is at most
        `risk`; the last that passes is given. Tests in a fixed order need no correction for their number: among new
        people of the kind in `select` more than that are wrong in about one case in twenty.

        Raises:
            ParamsError: not even with MOST left out; what risk is kept then is said.
            ArtifactError: the selection is from before this was kept.
        """
        bounds = self._kept(self.bounds)
        most = round(MOST * (QUANTILES - 1))
        failed = np.flatnonzero(bounds[: most + 1] > risk)
        share = 0 if not len(failed) else int(failed[-1]) + 1
        if share > most:
            lowest = f"{np.ceil(1000 * bounds[most]) / 1000:g} or more, which keeps {100 * (1 - MOST):.0f} % of them"
            raise ParamsError("no decisions are that sure", got=f"a risk of {risk:g}", expected=lowest)
        return share / (QUANTILES - 1)

    @staticmethod
    def _kept(values: np.ndarray | None) -> np.ndarray:
        """Give what abstention needs, or say that it is not there."""
        if values is None:
            todo = "run evaluate and register-model again, or predict without abstaining"
            raise ArtifactError("this model cannot abstain: its selection.json is of an older version", todo=todo)
        return values

    def of_au(self, au: int) -> dict[str, Any]:
        """Give what an AU's entry in `selection.json` keeps: its coefficients, and its quantiles of both decisions."""
        tree: dict[str, Any] = {"confidence": dict(zip(TERMS, map(float, self.coefficients[au])))}
        if self.quantiles is not None:
            sides = {name: self.quantiles[:, k, au].tolist() for k, name in enumerate(SIDES)}
            tree["confidence_quantiles"] = sides
        return tree

    def of_all(self) -> dict[str, list[float]]:
        """Give what `selection.json` keeps for all AUs."""
        kept = {"confidence_risks": self.risks, "confidence_risk_bounds": self.bounds}
        return {name: values.tolist() for name, values in kept.items() if values is not None}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Confidence":
        """Read what `selection.json` keeps; one of an older version has neither quantiles of its AUs nor risks."""
        coefficients = np.array([[tree[au]["confidence"][term] for term in TERMS] for au in AUS])
        if "confidence_risk_bounds" not in tree:
            return cls(coefficients)
        quantiles = np.array([[tree[au]["confidence_quantiles"][side] for side in SIDES] for au in AUS]).T
        risks, bounds = (np.array(tree[key]) for key in ("confidence_risks", "confidence_risk_bounds"))
        return cls(coefficients, quantiles, risks, bounds)


def terms(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Give the terms of the regression: (n, A, K) float64, in the order of TERMS; thresholds (A,) or (n, A)."""
    margin, active = np.abs(raw.astype(np.float64) - thresholds), (raw >= thresholds).astype(np.float64)
    log_sigma = np.log(sigma.astype(np.float64))
    return np.stack([np.ones_like(margin), margin, active, margin * active, log_sigma], axis=-1)


def fit_confidence(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray, truth: np.ndarray) -> Confidence:
    """Fit the shared regression, then each AU's, drawn toward the shared one.

    Args:
        raw, sigma: (n, A) float, finite: the annotated frames of `select` that have a face.
        thresholds: (A,) float, or (n, A): those of a frame.
        truth: (n, A) bool, active.
    """
    x, right = terms(raw, sigma, thresholds), ((raw >= thresholds) == truth).astype(np.float64)
    flat = x.reshape(-1, len(TERMS))
    center, spread = flat.mean(0), flat.std(0)
    center[0], spread[0] = 0.0, 1.0
    spread[spread < 1e-9] = 1.0
    x = (x - center) / spread
    shared = logistic(x.reshape(-1, len(TERMS)), right.ravel(), np.zeros(len(TERMS)), RIDGE)
    own = np.stack([logistic(x[:, au], right[:, au], shared, SHRINKAGE) for au in range(x.shape[1])])
    coefficients = own / spread
    coefficients[:, 0] -= coefficients @ center
    return Confidence(coefficients)


def quantiles_of(values: np.ndarray, active: np.ndarray) -> np.ndarray:
    """The quantiles of confidences by AU and by what was decided: (101, 2, A).

    An AU that was never decided so has those of all AUs that were; if none was, of all decisions.

    Args:
        values: (n, A) float, confidences.
        active: (n, A) bool, the decisions.
    """
    levels, found = np.linspace(0, 1, QUANTILES), np.empty((QUANTILES, len(SIDES), values.shape[1]))
    for side in range(len(SIDES)):
        use = active == bool(side)
        everywhere = values[use] if use.any() else values.ravel()
        for au in range(values.shape[1]):
            own = values[use[:, au], au]
            found[:, side, au] = np.quantile(own if len(own) else everywhere, levels)
    return found


def logistic(x: np.ndarray, y: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """Minimise -sum log P(y | x w) + ridge/2 |w - prior|^2: (K,) float64.

    Args:
        x: (n, K) float64.
        y: (n,) float64, 0 or 1.
        prior: (K,) float64, where w is drawn to.
    """

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z, off = x @ w, w - prior
        value = np.sum(np.logaddexp(0, z) - y * z) + 0.5 * ridge * off @ off
        return float(value), x.T @ (expit(z) - y) + ridge * off

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(x @ w)
        return (x.T * (p * (1 - p))) @ x + ridge * np.eye(len(w))

    return minimize(loss, prior, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-5}).x
