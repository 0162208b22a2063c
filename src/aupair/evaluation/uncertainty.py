"""Is sigma worth anything? Judged by the likelihood of orders, by telling right from wrong, by leaving frames out.

d = r (y_hat_i - y_hat_j), s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6), P(the order is right) = Phi(d / s).
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr
from scipy.stats import rankdata

from aupair.ranking.pairs import Pairs

EPSILON = 1e-6
"""added under the root of s, as in the loss"""
SIGMA_RANGE = (1e-2, 1e2)
"""where the best constant sigma is searched for, in units of the standardised y_hat"""
BINS = 15


def difference(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """d = r (y_hat_i - y_hat_j): (M,) float64, positive where the order is right."""
    y = y_hat.astype(np.float64)
    return pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])


def scale(sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6): (M,) float64."""
    square = sigma.astype(np.float64) ** 2
    return np.sqrt(square[pairs.i, pairs.au] + square[pairs.j, pairs.au] + EPSILON)


def pair_nll(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Mean -log Phi(d / s) of each AU's pairs: (A,), lower is better; NaN for an AU without pairs.

    Args:
        y_hat, sigma: (N, A) float.
    """
    loss = -log_ndtr(difference(y_hat, pairs) / scale(sigma, pairs))
    return _mean_per_au(loss, pairs.au, y_hat.shape[1])


def best_constant_sigma(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The one sigma that minimises an AU's pair NLL: (A,), within SIGMA_RANGE; NaN for an AU without pairs.

    -log Phi(d u) is convex in u = 1/s, so that the minimum over log sigma is the only one.
    """
    d, best = difference(y_hat, pairs), np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au):
        own = d[pairs.au == au]

        def loss(log_sigma: float, own: np.ndarray = own) -> float:
            return -float(log_ndtr(own / np.sqrt(2 * np.exp(2 * log_sigma) + EPSILON)).mean())

        best[au] = np.exp(minimize_scalar(loss, bounds=np.log(SIGMA_RANGE), method="bounded").x)
    return best


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive scores above a negative, a tie 1/2; NaN where either is missing.

    Args:
        score: (n,) float.
        positive: (n,) bool.
    """
    p = int(positive.sum())
    n = len(positive) - p
    if p == 0 or n == 0:
        return float("nan")
    return float((rankdata(score)[positive].sum() - p * (p + 1) / 2) / (p * n))


def auroc_correct(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, np.ndarray]:
    """Do |d| and |d|/s tell right orders (positives) from wrong ones? Each (A,); pairs with d = 0 are left out."""
    d, s = difference(y_hat, pairs), scale(sigma, pairs)
    untied = d != 0
    result = {}
    for name, score in (("margin", np.abs(d)), ("margin_over_sigma", np.abs(d) / s)):
        values = np.full(y_hat.shape[1], np.nan)
        for au in np.unique(pairs.au):
            own = untied & (pairs.au == au)
            values[au] = auroc(score[own], d[own] > 0)
        result[name] = values
    return result


def ece_of_order(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Expected calibration error of P(order), each pair oriented by the sign of its y_hat difference: (A,), 0..1.

    Oriented so, P = Phi(|d|/s) is in [.5, 1], cut into 15 equal bins; an exact tie is right by 1/2.
    """
    p, right = oriented(y_hat, sigma, pairs)
    values = np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au[np.isfinite(p)]):
        own = pairs.au == au
        claimed, observed, share = reliability(p[own], right[own])
        values[au] = np.nansum(share * np.abs(claimed - observed))
    return values


def oriented(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """P(order) = Phi(|d|/s), (M,) in [.5, 1], and whether that order is right, (M,): 1, 0, or 1/2 for a tie."""
    d, s = difference(y_hat, pairs), scale(sigma, pairs)
    return ndtr(np.abs(d) / s), 0.5 * (np.sign(d) + 1)


def reliability(
    p: np.ndarray, right: np.ndarray, low: float = 0.5, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group probabilities (n,) in [low, 1] into equal bins.

    Returns:
        claimed, observed: (bins,) mean probability and mean outcome, NaN in empty bins; share: (bins,) sums to 1.
    """
    index = np.clip(((p - low) / (1 - low) * bins).astype(int), 0, bins - 1)
    number = np.bincount(index, minlength=bins)
    below = np.where(number > 0, number, np.nan)
    claimed, observed = np.bincount(index, p, bins) / below, np.bincount(index, right, bins) / below
    return claimed, observed, number / max(len(p), 1)


def leave_out(score: np.ndarray, usable: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Leave out, for each AU, the share of usable frames with the highest score: (N, A) bool, what is kept.

    Args:
        score: (N, A) float without NaN; equal scores are ordered at random.
        usable: (N,) bool, the frames under test.
    """
    rows = np.flatnonzero(usable)
    count = len(rows) - int(share * len(rows))
    kept = np.zeros(score.shape, bool)
    for au in range(score.shape[1]):
        kept[rows, au] = _lowest(count, score[rows, au], rng.random(len(rows)))
    return kept


def _lowest(count: int, *keys: np.ndarray) -> np.ndarray:
    """Which `count` of n come first by the keys, (n,) each, one after the other, then by place: (n,) bool; no sorting."""
    kept = np.ones(len(keys[0]), bool)
    if count < len(kept):
        edge = np.partition(keys[0], max(count - 1, 0))[max(count - 1, 0)]
        kept = keys[0] < edge
        tied = np.flatnonzero(keys[0] == edge)
        left = count - int(kept.sum())
        kept[tied[_lowest(left, *(key[tied] for key in keys[1:]))] if keys[1:] else tied[:left]] = True
    return kept


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """The rank correlation of two (n,) arrays, ties at their mean rank; NaN where one is constant or n < 2."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def spearman_misorder(sigma: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """How sigma (N, A) goes with the misorder rate (N, A), over the frames that have a rate: (A,), -1..1."""
    return np.array([spearman(s[known], m[known]) for s, m in zip(sigma.T, rate.T) for known in [np.isfinite(m)]])


def auroc_between(sigma: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Does sigma tell one kind of frames, `high`, from another, `low`? (A,), NaN without both kinds.

    Args:
        sigma: (n, A) float.
        high, low: (n, A) bool, or (n, 1) for all AUs alike; a frame of neither kind is not judged.
    """
    high, low = np.broadcast_to(high, sigma.shape), np.broadcast_to(low, sigma.shape)
    judged = high | low
    return np.array([auroc(s[use], h[use]) for s, h, use in zip(sigma.T, high.T, judged.T)])


def ranked_risk(wrong: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """The share of wrong decisions among the k most trusted, for every k: (n,).

    Equally trusted ones are in random order: the mean over all such orders is given.

    Args:
        wrong: (n,) bool.
        trust: (n,) float, higher for more trusted.
    """
    _, group, size = np.unique(-trust, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(group, wrong) / size, size)
    return np.cumsum(expected) / np.arange(1, len(wrong) + 1)


def risk_coverage(risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of wrong decisions among the most trusted ones: coverage (100,) .01..1 and risk (100,).

    Args:
        risk: (n,), what `ranked_risk` gives.
    """
    coverage = np.arange(1, 101) / 100
    return coverage, risk[np.maximum(np.ceil(coverage * len(risk)).astype(int), 1) - 1]


def aurc(wrong: np.ndarray, trust: np.ndarray) -> float:
    """The area under the risk-coverage curve: the mean risk over all coverages, 0..1, lower is better.

    A trust that knows nothing has the share of wrong decisions, as random abstention has.
    """
    return float(ranked_risk(wrong, trust).mean())


def _mean_per_au(values: np.ndarray, au: np.ndarray, width: int) -> np.ndarray:
    """The mean of pair values of each AU: (width,), NaN without pairs."""
    number = np.bincount(au, minlength=width)
    return np.bincount(au, values, width) / np.where(number > 0, number, np.nan)
