"""The confidence of a decision, P(it is right), and the risk that remains when the least confident decisions are left out.

The confidence is a logistic regression for each AU, fitted by `calibration`. Its inputs are the distance of the raw output
from the threshold, the side of the threshold, and log sigma.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import stored_aus
from aupair.errors import ArtifactError, ParamsError

TERMS = ("intercept", "margin", "active", "margin_if_active", "log_sigma")
QUANTILES = 101
SIDES = ("inactive", "active")
"""the two decisions; False and True index them"""
_LARGEST_SHARE = 0.5
"""the largest share of decisions that is left out to achieve a risk"""


@dataclass(frozen=True)
class Confidence:
    """A calibrated confidence.

    Attributes:
        coefficients: (A, K) float64 of the terms in TERMS.
        quantiles: (101, 2, A) float64, the k-th percentiles of the confidences of an AU's inactive (0) and active (1)
            decisions on `select`; None, like risks and bounds, if an earlier version wrote the selection.json.
        risks: (101,) float64, the share of wrong decisions among the held-out decisions at or above the quantiles k.
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
        return _logistic(np.einsum("nak,ak->na", regression_terms(raw, sigma, thresholds), self.coefficients))

    def limits(self, share: float) -> np.ndarray:
        """Return the confidences below which a share of the decisions is left out: (2, A), of inactive and active ones.

        Each AU abstains from the least confident share of its inactive decisions and of its active ones. If both were
        ranked together, active decisions would be left out first, since most frames are inactive and active decisions are
        less confident: with a fifth left out, hardly any active decision on a rare AU would remain.

        Raises:
            ArtifactError: the selection was written by a version that did not store the quantiles.
        """
        quantiles = self._required(self.quantiles)
        place = share * (QUANTILES - 1)
        low = min(int(place), QUANTILES - 2)
        return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])

    def share_for_risk(self, risk: float) -> float:
        """Return the smallest share of decisions to leave out so that at most `risk` of those kept are wrong: 0 to .5.

        Shares are tested in decreasing order from one half, as long as the 95 % upper bound of their risk is at most
        `risk`; the last share that passes is returned. Fixed-sequence testing needs no correction for the number of tests:
        for new people like those of `select`, the risk is exceeded in about one of 20 cases.

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
        """Return values that abstention needs; raise ArtifactError if they are None."""
        if values is None:
            todo = "run evaluate and register-model again, or predict without abstaining"
            what = "this model cannot abstain: its selection.json has no risk table, since an older version of aupair wrote it"
            raise ArtifactError(what, todo=todo)
        return values

    def au_to_json(self, au: int) -> dict[str, Any]:
        """Return the part of an AU's entry in `selection.json`: coefficients, and quantiles of both decisions."""
        tree: dict[str, Any] = {"confidence": dict(zip(TERMS, map(float, self.coefficients[au])))}
        if self.quantiles is not None:
            sides = {name: self.quantiles[:, k, au].tolist() for k, name in enumerate(SIDES)}
            tree["confidence_quantiles"] = sides
        return tree

    def risks_to_json(self) -> dict[str, list[float]]:
        """Return the part of `selection.json` that concerns all AUs: the risks and their bounds."""
        arrays = {"confidence_risks": self.risks, "confidence_risk_bounds": self.bounds}
        return {name: values.tolist() for name, values in arrays.items() if values is not None}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Confidence":
        """Return the confidence stored in `selection.json`; files of older versions hold the coefficients only."""
        aus = stored_aus(tree)
        coefficients = np.array([[tree[au]["confidence"][term] for term in TERMS] for au in aus])
        if "confidence_risk_bounds" not in tree:
            return cls(coefficients)
        quantiles = np.array([[tree[au]["confidence_quantiles"][side] for side in SIDES] for au in aus]).T
        risks, bounds = (np.array(tree[key]) for key in ("confidence_risks", "confidence_risk_bounds"))
        return cls(coefficients, quantiles, risks, bounds)


def _logistic(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow, in numpy, so that predict does not import scipy, which takes long."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def regression_terms(raw: np.ndarray, sigma: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the terms of the regression: (n, A, K) float64, in the order of TERMS; thresholds (A,) or (n, A)."""
    margin, active = np.abs(raw.astype(np.float64) - thresholds), (raw >= thresholds).astype(np.float64)
    log_sigma = np.log(sigma.astype(np.float64))
    return np.stack([np.ones_like(margin), margin, active, margin * active, log_sigma], axis=-1)
