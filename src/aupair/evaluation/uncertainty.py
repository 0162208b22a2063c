"""Measures of how useful sigma is: the likelihood of orders, right against wrong orders, and leaving out uncertain frames.

For a pair of frames i, j whose order is r: d = r (y_hat_i - y_hat_j), s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6), and
P(the order is right) = Phi(d / s).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.abstention import DRAWS, leave_out
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.metrics import (
    auroc,
    by_au,
    calibration_bins,
    expected_calibration_error,
    figures_by_au,
    macro,
    spearman,
)
from aupair.evaluation.pair_order import Order
from aupair.ranking.pairs import Pairs

_EPSILON = 1e-6
"""added under the root of s, as in the loss"""
_SIGMA_RANGE = (1e-2, 1e2)
"""the range of the search for the best constant sigma, in units of the standardised y_hat"""
_LEFT_OUT = 0.2
"""the share of frames left out in gain_at_80"""


@dataclass(frozen=True)
class ScoredSplit:
    """The pseudo-intensities of all N frames, of which those of one split are measured.

    Attributes:
        frames: all N frames.
        split: the split that is measured.
        y_hat, sigma: (N, A) float32.
        pairs: split -> its fixed pairs.
        conditions: None for data without conditions.csv.
        seed: of the random draws.
    """

    frames: Frames
    split: str
    y_hat: np.ndarray
    sigma: np.ndarray
    pairs: Mapping[str, Pairs]
    conditions: Conditions | None
    seed: int

    @property
    def subset(self) -> np.ndarray:
        """Return which frames belong to the split and have a face and the label of at least one AU: (N,) bool."""
        return self.frames.of_split(self.split) & self.frames.usable

    @property
    def aus(self) -> tuple[str, ...]:
        """Return the names of the AUs."""
        return self.frames.aus

    def best_constant(self, split: str) -> np.ndarray:
        """Return the constant sigma of each AU that is best on a split's pairs: (N, A)."""
        return np.broadcast_to(_best_constant_sigma(self.y_hat, self.pairs[split]), self.sigma.shape)


def score_figures(scored: ScoredSplit) -> dict[str, Any]:
    """Return the trees `pair_accuracy` and `uncertainty` of metrics.json for a split."""
    order = Order(scored.y_hat, scored.frames, scored.subset)
    return {"pair_accuracy": _pair_accuracy_figures(scored, order), "uncertainty": _uncertainty_figures(scored, order)}


def _pair_accuracy_figures(scored: ScoredSplit, order: Order) -> dict[str, Any]:
    """Return pair accuracy over all frames of the split, and over its clear ones (None without conditions)."""
    everywhere = order.accuracy(scored.subset)
    clear, clear_per_au = None, None
    if scored.conditions is not None:
        values = order.accuracy(scored.subset & scored.conditions.clear)
        clear, clear_per_au = macro(values), by_au(values, scored.aus)
    return {
        "clear": clear,
        "mean": macro(everywhere),
        "per_au": by_au(everywhere, scored.aus),
        "clear_per_au": clear_per_au,
    }


def _uncertainty_figures(scored: ScoredSplit, order: Order) -> dict[str, Any]:
    """Return the entry `uncertainty` of metrics.json: the figures of sigma, and those of constant sigmas as a baseline.

    The constant is the best one of each AU on fit; for the pair NLL there is a second one, the best on select.
    """
    y_hat, sigma, pairs = scored.y_hat, scored.sigma, scored.pairs[scored.split]
    constant = scored.best_constant("fit")
    rate = order.misorder_rate(scored.subset)
    rank = _spearman_misorder(sigma[scored.subset], rate[scored.subset])
    right = _auroc_of_orders(y_hat, sigma, pairs)
    ece = {"h": _ece_of_orders(y_hat, sigma, pairs), "constant": _ece_of_orders(y_hat, constant, pairs)}
    return {
        "pair_nll": _pair_nll_figures(scored),
        "auroc_correct": {name: macro(values) for name, values in right.items()}
        | {"per_au": figures_by_au(right, scored.aus)},
        "gain_at_80": _gains_of_leaving_out(scored, order),
        "spearman_misorder": {"mean": macro(rank), "per_au": by_au(rank, scored.aus)},
        **_auroc_of_conditions(scored),
        "ece": macro(ece["h"]),
        "ece_constant": macro(ece["constant"]),
        "ece_per_au": figures_by_au(ece, scored.aus),
        "reliability": {"h": _order_bins(y_hat, sigma, pairs), "constant": _order_bins(y_hat, constant, pairs)},
    }


def pair_nll(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the mean -log Phi(d / s) of each AU's pairs: (A,), lower is better; NaN for an AU without pairs.

    Args:
        y_hat, sigma: (N, A) float.
    """
    loss = -log_ndtr(_difference(y_hat, pairs) / _scale(sigma, pairs))
    number = np.bincount(pairs.au, minlength=y_hat.shape[1])
    return np.bincount(pairs.au, loss, y_hat.shape[1]) / np.where(number > 0, number, np.nan)


def _best_constant_sigma(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the one sigma that minimises an AU's pair NLL: (A,), within _SIGMA_RANGE; NaN for an AU without pairs.

    -log Phi(d u) is convex in u = 1/s, so that the minimum over log sigma is the only one.
    """
    d, best = _difference(y_hat, pairs), np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au):
        own = d[pairs.au == au]

        def loss(log_sigma: float, own: np.ndarray = own) -> float:
            return -float(log_ndtr(own / np.sqrt(2 * np.exp(2 * log_sigma) + _EPSILON)).mean())

        best[au] = np.exp(minimize_scalar(loss, bounds=np.log(_SIGMA_RANGE), method="bounded").x)
    return best


def _auroc_of_orders(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, np.ndarray]:
    """Return the AUROC of |d| and of |d| / s for right orders against wrong ones: (A,) each; d = 0 is left out."""
    d, s = _difference(y_hat, pairs), _scale(sigma, pairs)
    untied = d != 0
    result = {}
    for name, score in (("margin", np.abs(d)), ("margin_over_sigma", np.abs(d) / s)):
        values = np.full(y_hat.shape[1], np.nan)
        for au in np.unique(pairs.au):
            own = untied & (pairs.au == au)
            values[au] = auroc(score[own], d[own] > 0)
        result[name] = values
    return result


def _ece_of_orders(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the expected calibration error of P(order), each pair oriented by its y_hat difference: (A,), 0..1.

    With this orientation P = Phi(|d| / s) is in [.5, 1], which is divided into 15 equal bins; an exact tie is right by 1/2.
    """
    p, right = _oriented(y_hat, sigma, pairs)
    values = np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au[np.isfinite(p)]):
        own = pairs.au == au
        values[au] = expected_calibration_error(p[own], right[own], low=0.5)
    return values


def _spearman_misorder(sigma: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the rank correlation of sigma (N, A) and misorder rate (N, A), over frames with a rate: (A,), -1..1."""
    return np.array([spearman(s[known], m[known]) for s, m in zip(sigma.T, rate.T) for known in [np.isfinite(m)]])


def _auroc_between(sigma: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return the AUROC of sigma for the frames of one kind, `high`, against another: (A,), NaN without both kinds.

    Args:
        sigma: (n, A) float.
        high, low: (n, A) bool, or (n, 1) if the same for all AUs; a frame of neither kind does not count.
    """
    high, low = np.broadcast_to(high, sigma.shape), np.broadcast_to(low, sigma.shape)
    either = high | low
    return np.array([auroc(s[use], h[use]) for s, h, use in zip(sigma.T, high.T, either.T)])


def _difference(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return d = r (y_hat_i - y_hat_j): (M,) float64, positive where the order is right."""
    y = y_hat.astype(np.float64)
    return pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])


def _scale(sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6): (M,) float64."""
    square = sigma.astype(np.float64) ** 2
    return np.sqrt(square[pairs.i, pairs.au] + square[pairs.j, pairs.au] + _EPSILON)


def _oriented(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return P(order) = Phi(|d| / s), (M,) in [.5, 1], and whether that order is right, (M,): 1, 0, or 1/2 for a tie."""
    d, s = _difference(y_hat, pairs), _scale(sigma, pairs)
    return ndtr(np.abs(d) / s), 0.5 * (np.sign(d) + 1)


def _order_bins(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, list[float]]:
    """Return claimed and observed P(order) and the share of pairs in 15 bins of [.5, 1], all AUs' pairs pooled."""
    p, right = _oriented(y_hat, sigma, pairs)
    known = np.isfinite(p)
    return {name: values.tolist() for name, values in calibration_bins(p[known], right[known], low=0.5).items()}


def _pair_nll_figures(scored: ScoredSplit) -> dict[str, Any]:
    """Return the pair NLL with h and with constants; means over the AUs that have pairs here, on fit and on select."""
    sigmas = {"h": scored.sigma, "constant": scored.best_constant("fit")}
    sigmas["constant_select"] = scored.best_constant("select")
    values = {name: pair_nll(scored.y_hat, sigma, scored.pairs[scored.split]) for name, sigma in sigmas.items()}
    shared = np.isfinite(np.stack(list(values.values()))).all(0)
    means = {name: macro(np.where(shared, value, np.nan)) for name, value in values.items()}
    return {**means, "per_au": figures_by_au(values, scored.aus)}


def _gains_of_leaving_out(scored: ScoredSplit, order: Order) -> dict[str, float | None]:
    """Return the gain in mean pair accuracy when 20 % of each AU's labelled frames with a face are left out of its pairs.

    sigma: frames with the highest sigma of that AU. random: the mean of 20 draws, separate for each AU. cover: frames with
    the largest covered share of the face, the same for all AUs except for the random order of equally covered ones. The
    frames of all videos are ranked together.
    """
    rng = np.random.default_rng([scored.seed, SPLITS.index(scored.split)])
    labelled = scored.subset[:, None] & scored.frames.labelled
    of_all_frames = order.accuracy(labelled)

    def gain(score: np.ndarray) -> float:
        return macro(order.accuracy(leave_out(score, labelled, _LEFT_OUT, rng)) - of_all_frames)

    cover = None
    if scored.conditions is not None:
        covered = np.nan_to_num(scored.conditions.covered)
        cover = gain(np.broadcast_to(covered[:, None], scored.sigma.shape))
    equal = np.zeros(scored.sigma.shape)
    random = float(np.mean([gain(equal) for _ in range(DRAWS)]))
    return {"sigma": gain(scored.sigma), "random": random, "cover": cover}


def _auroc_of_conditions(scored: ScoredSplit) -> dict[str, Any]:
    """Return the AUROC of sigma for one kind of frames with a face against another; None without conditions.

    auroc_own_region: the AU's own region hidden, against a nearly frontal face with nothing over it.
    auroc_other_region: the AU's own region hidden, against only another AU's region hidden.
    auroc_turned: a turned face against a nearly frontal one, both with nothing over the face.
    """
    names = ("auroc_own_region", "auroc_other_region", "auroc_turned")
    conditions = scored.conditions
    if conditions is None:
        return {name: {"mean": None, "per_au": None} for name in names}
    rows = scored.frames.of_split(scored.split) & scored.frames.ok
    uncovered = (conditions.covered == 0)[:, None]
    kinds = (
        (conditions.own_hidden, conditions.clear[:, None]),
        (conditions.own_hidden, conditions.other_hidden),
        (uncovered & conditions.turned[:, None], uncovered & ~conditions.turned[:, None]),
    )
    figures = {}
    for name, (high, low) in zip(names, kinds):
        values = _auroc_between(scored.sigma[rows], high[rows], low[rows])
        figures[name] = {"mean": macro(values), "per_au": by_au(values, scored.aus)}
    return figures
