"""The probability that a decision is right: a logistic regression of each AU, fitted on `select`.

It sees how far the raw output is from the threshold, which side it is on, and log sigma. Thresholds were tuned on the
same frames, so that the probabilities are slightly too high.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from aupair.aus import AUS

TERMS = ("intercept", "margin", "active", "margin_if_active", "log_sigma")
RIDGE = 1.0
"""weight of the squared coefficients (standardised terms) that all AUs share"""
SHRINKAGE = 20.0
"""weight of the squared distance from the shared ones: an AU with few errors stays near them"""
QUANTILES = 101


@dataclass(frozen=True)
class Confidence:
    """A calibrated confidence.

    Attributes:
        coefficients: (A, K) float64 of the terms in TERMS.
        quantiles: (101,) float64, the confidence below which k percent of the cells of `select` are.
    """

    coefficients: np.ndarray
    quantiles: np.ndarray

    def __call__(self, raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Give P(the decision is right): (n, A) float64, 0..1; NaN where there is no face.

        Args:
            raw: (n, A) float, the chosen mapping's output.
            sigma: (n, A) float.
            thresholds: (A,) float.
        """
        return expit(np.einsum("nak,ak->na", terms(raw, sigma, thresholds), self.coefficients))

    def threshold(self, abstain: float) -> float:
        """The confidence below which the share `abstain` of all cells of `select` stays: 0..1."""
        return float(np.interp(abstain, np.linspace(0, 1, len(self.quantiles)), self.quantiles))

    def of_au(self, au: int) -> dict[str, float]:
        """Name the coefficients of an AU."""
        return dict(zip(TERMS, map(float, self.coefficients[au])))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Confidence":
        """Read what `selection.json` keeps."""
        rows = [[tree[au]["confidence"][term] for term in TERMS] for au in AUS]
        return cls(np.array(rows), np.array(tree["confidence_quantiles"]))


def terms(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Give the terms of the regression: (n, A, K) float64, in the order of TERMS."""
    margin, active = np.abs(raw.astype(np.float64) - thresholds), (raw >= thresholds).astype(np.float64)
    log_sigma = np.log(sigma.astype(np.float64))
    return np.stack([np.ones_like(margin), margin, active, margin * active, log_sigma], axis=-1)


def fit_confidence(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray, truth: np.ndarray) -> Confidence:
    """Fit the shared regression, then each AU's, drawn toward the shared one.

    Args:
        raw, sigma: (n, A) float, finite: the annotated frames of `select` that have a face.
        thresholds: (A,) float.
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
    confidence = Confidence(coefficients, np.zeros(QUANTILES))
    values = confidence(raw, sigma, thresholds)
    return Confidence(coefficients, np.quantile(values, np.linspace(0, 1, QUANTILES)))


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

    return minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12}).x
