"""The guard of h, which shrinks sigma toward a constant for each AU so that it is not worse than a constant on new people.

    sigma_guarded = c (sigma / reference)^strength

The strength of each AU is in 0..1: 1 only rescales sigma, 0 replaces it by the constant c. It is chosen by the pair NLL on
people of fit, whose sigma comes from models that were not trained on them; c minimises the NLL for that strength on the same
pairs. An AU whose sigma is not better than the best constant gets the constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aupair.ranking.pairs import Pairs

_GOLDEN, _SECTIONS = (5**0.5 - 1) / 2, 40
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_OWN = 0.5
"""weight of an AU's own gain in the choice of its strength; the rest is the mean gain over all AUs, since few people
give a noisy estimate for one AU"""
_RANGE = (np.log(1e-2), np.log(1e2))
"""search range of the logarithm of the best constant, in units of the standardised y_hat"""


@dataclass(frozen=True)
class Guard:
    """The parameters of the guard, (A,) float64 each.

    Attributes:
        strength: in 0..1, the fraction of log sigma's deviation from the reference that is used.
        log_reference: the median of log sigma over the frames of fit.
        log_constant: log c, which replaces the reference.
        ensemble_scale: factor of sigma for frames outside fit; several networks of f score them, and the error of their
            mean is smaller than that of the single network that scores a frame of fit.
        nll: mean pair NLL of each AU on fit out of fold: `constant`, `unguarded` (h at full strength, rescaled) and
            `guarded`; NaN for an AU without pairs.
    """

    strength: np.ndarray
    log_reference: np.ndarray
    log_constant: np.ndarray
    nll: dict[str, np.ndarray]
    ensemble_scale: float = 1.0

    def apply(self, log_sigma: np.ndarray) -> np.ndarray:
        """Return guarded log sigma of frames of fit: (n, A)."""
        return self.log_constant + self.strength * (log_sigma - self.log_reference)

    def apply_to_new(self, log_sigma: np.ndarray) -> np.ndarray:
        """Return guarded log sigma of frames outside fit: (n, A)."""
        return self.apply(log_sigma) + np.log(self.ensemble_scale)

    def to_json(self) -> dict[str, Any]:
        """Return the guard as plain values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Guard":
        """Return the guard from the output of `to_json`."""
        arrays = {key: np.array(tree[key], np.float64) for key in ("strength", "log_reference", "log_constant")}
        nll = {key: np.array(values, np.float64) for key, values in tree["nll"].items()}
        return cls(**arrays, nll=nll, ensemble_scale=float(tree["ensemble_scale"]))


def fit_guard(log_sigma: np.ndarray, y_hat: np.ndarray, pairs: Pairs) -> Guard:
    """Choose strength and constant of each AU.

    Args:
        log_sigma: (N, A), for the frames of the pairs from models that were not trained on their person.
        y_hat: (N, A), standardised.
        pairs: pairs of fit.
    """
    aus = y_hat.shape[1]
    rows = np.unique(np.concatenate([pairs.i, pairs.j]))
    reference = np.median(log_sigma[rows].astype(np.float64), axis=0) if len(rows) else np.zeros(aus)
    deviation = log_sigma - reference
    fits = [fit_constants(strength * deviation, y_hat, pairs) for strength in STRENGTHS]
    log_constants, losses = (np.stack(values) for values in zip(*fits))
    gains = np.nan_to_num(losses[0] - losses)
    mean_gain = gains[:, np.isfinite(losses[0])].mean(axis=1, keepdims=True) if len(pairs) else gains
    scores = np.where(gains >= 0, _OWN * gains + (1 - _OWN) * mean_gain, -np.inf)  # strength 0 has a gain of 0
    chosen = scores.argmax(axis=0)  # the lowest strength among equal scores
    au = np.arange(aus)
    nll = {"constant": losses[0], "unguarded": losses[-1], "guarded": losses[chosen, au]}
    return Guard(np.array(STRENGTHS)[chosen], reference, log_constants[chosen, au], nll)


def fit_constants(log_sigma: np.ndarray, y_hat: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of the factor of sigma that minimises each AU's mean pair NLL, and that NLL: (A,) each.

    For an AU without pairs the factor is 1 and the NLL is NaN.
    """
    aus = y_hat.shape[1]
    number = np.bincount(pairs.au, minlength=aus)
    d, s = pair_terms(log_sigma, y_hat, pairs)

    def loss(log_factors: np.ndarray) -> np.ndarray:
        terms = _negative_log_phi(d / s * np.exp(-log_factors[pairs.au]))
        return np.bincount(pairs.au, terms, aus) / np.maximum(number, 1)

    log_factors = np.where(number > 0, _minimise(loss, aus), 0.0)
    return log_factors, np.where(number > 0, loss(log_factors), np.nan)


def _negative_log_phi(z: np.ndarray) -> np.ndarray:
    values: np.ndarray = -torch.special.log_ndtr(torch.from_numpy(z)).numpy()
    return values


def _minimise(loss: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Minimise `count` independent unimodal functions of one variable within _RANGE by golden-section search.

    Args:
        loss: maps the arguments of all functions, (count,), to their values, (count,).

    Returns:
        (count,), the arguments of the minima.
    """
    low, high = np.full(count, _RANGE[0]), np.full(count, _RANGE[1])
    for _ in range(_SECTIONS):
        width = _GOLDEN * (high - low)
        left, right = high - width, low + width
        falls = loss(left) > loss(right)
        low, high = np.where(falls, left, low), np.where(falls, high, right)
    return (low + high) / 2


def pair_terms(log_sigma: np.ndarray, y_hat: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return d = r (y_i - y_j) and s = sqrt(sigma_i^2 + sigma_j^2) of pairs: (M,) float64 each."""
    y, square = y_hat.astype(np.float64), np.exp(2 * log_sigma.astype(np.float64))
    d = pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])
    return d, np.sqrt(square[pairs.i, pairs.au] + square[pairs.j, pairs.au])


def fit_ensemble_scale(log_sigma: np.ndarray, y_hat: np.ndarray, pairs: Pairs) -> float:
    """Return the factor of sigma, common to all AUs, that minimises the mean over AUs of the pair NLL; 1 without pairs."""
    if len(pairs) == 0:
        return 1.0
    d, s = pair_terms(log_sigma, y_hat, pairs)
    weight = 1 / np.bincount(pairs.au)[pairs.au]
    return float(
        np.exp(_minimise(lambda x: np.array([(weight * _negative_log_phi(d / s * np.exp(-x[0]))).sum()]), 1)[0])
    )
