"""Measures of how useful sigma is: the likelihood of orders, right against wrong orders, and leaving out uncertain frames.

`pair_order` defines d, s and P(the order is right). The best constant sigma and the smoothed values of y_hat are treated as
fixed in resamples of the people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.abstention import DRAWS, leave_out
from aupair.evaluation.bootstrap import DIGITS, draw_resamples, paired_difference
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.metrics import auroc, by_au, figures_by_au, macro, mean_over_aus, spearman
from aupair.evaluation.pair_order import (
    Order,
    auroc_in_resamples,
    auroc_of_orders,
    best_constant_sigma,
    ece_of_orders,
    mean_in_resamples,
    order_bins,
    order_margins,
    pair_losses,
    pair_nll,
)
from aupair.evaluation.selection import Outputs, annotated_cells
from aupair.params import Evaluate
from aupair.ranking.pairs import Pairs

_LEFT_OUT = 0.2
"""the share of frames left out in gain_at_80"""


@dataclass(frozen=True)
class ScoredSplit:
    """The pseudo-intensities of all N frames, of which those of one split are measured.

    Attributes:
        frames: all N frames.
        split: the split that is measured.
        outputs: the outputs of all N frames.
        pairs: split -> its fixed pairs.
        conditions: None for data without conditions.csv.
        params: the settings of evaluate, for the number of resamples and the seed.
    """

    frames: Frames
    split: str
    outputs: Outputs
    pairs: Mapping[str, Pairs]
    conditions: Conditions | None
    params: Evaluate

    @property
    def y_hat(self) -> np.ndarray:
        """Return y_hat: (N, A) float32."""
        return self.outputs.y_hat

    @property
    def sigma(self) -> np.ndarray:
        """Return sigma: (N, A) float32."""
        return self.outputs.sigma

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
        return np.broadcast_to(best_constant_sigma(self.y_hat, self.pairs[split]), self.sigma.shape)


def score_figures(scored: ScoredSplit) -> dict[str, Any]:
    """Return the trees `pair_accuracy` and `uncertainty` of metrics.json for a split."""
    order = Order(scored.y_hat, scored.frames, scored.subset)
    return {"pair_accuracy": _pair_accuracy_figures(scored, order), "uncertainty": _uncertainty_figures(scored, order)}


def _pair_accuracy_figures(scored: ScoredSplit, order: Order) -> dict[str, Any]:
    """Return pair accuracy over all frames of the split, and over its clear ones (None without conditions).

    `smoothed` has both figures for y_hat as it is smoothed on each route that does so.
    """
    own = _pair_accuracy_of(scored, order)
    smoothed = {}
    for route, values in scored.outputs.smoothed.items():
        figures = _pair_accuracy_of(scored, Order(values, scored.frames, scored.subset))
        smoothed[route] = {name: figures[name] for name in ("clear", "mean")}
    return {**own, "smoothed": smoothed}


def _pair_accuracy_of(scored: ScoredSplit, order: Order) -> dict[str, Any]:
    """Return the pair accuracy of some values of the frames."""
    everywhere = order.accuracy(scored.subset)
    clear, clear_per_au = None, None
    if scored.conditions is not None:
        values = order.accuracy(scored.subset & scored.conditions.clear)
        clear, clear_per_au = macro(values), by_au(values, scored.aus)
    mean = {"clear": clear, "mean": macro(everywhere), "per_au": by_au(everywhere, scored.aus)}
    return {**mean, "clear_per_au": clear_per_au}


def _uncertainty_figures(scored: ScoredSplit, order: Order) -> dict[str, Any]:
    """Return the entry `uncertainty` of metrics.json: the figures of sigma, and those of constant sigmas as a baseline.

    The constant is the best one of each AU on fit; for the pair NLL there is a second one, the best on select.
    """
    y_hat, sigma, pairs = scored.y_hat, scored.sigma, scored.pairs[scored.split]
    constant = scored.best_constant("fit")
    rate = order.misorder_rate(scored.subset)
    rank = _spearman_misorder(sigma[scored.subset], rate[scored.subset])
    right = auroc_of_orders(y_hat, sigma, pairs)
    sigmas = {"h": sigma, "unguarded": scored.outputs.unguarded, "constant": constant}
    ece = {name: ece_of_orders(y_hat, own, pairs) for name, own in sigmas.items()}
    gains = _gains_in_resamples(scored, constant)
    return {
        "pair_nll": _pair_nll_figures(scored) | {"less_constant": gains["pair_nll"]},
        "auroc_correct": {name: macro(values) for name, values in right.items()}
        | {"gain": gains["auroc"], "per_au": figures_by_au(right, scored.aus)},
        "gain_at_80": _gains_of_leaving_out(scored, order),
        "spearman_misorder": {"mean": macro(rank), "per_au": by_au(rank, scored.aus)},
        **_auroc_of_conditions(scored),
        "ece": macro(ece["h"]),
        "ece_unguarded": macro(ece["unguarded"]),
        "ece_constant": macro(ece["constant"]),
        "ece_per_au": figures_by_au(ece, scored.aus),
        "reliability": {"h": order_bins(y_hat, sigma, pairs), "constant": order_bins(y_hat, constant, pairs)},
    }


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


def _pair_nll_figures(scored: ScoredSplit) -> dict[str, Any]:
    """Return the pair NLL with h, with h unguarded, and with constants; means are over AUs with pairs here, on fit and select."""
    sigmas = {"h": scored.sigma, "unguarded": scored.outputs.unguarded, "constant": scored.best_constant("fit")}
    sigmas["constant_select"] = scored.best_constant("select")
    values = {name: pair_nll(scored.y_hat, sigma, scored.pairs[scored.split]) for name, sigma in sigmas.items()}
    shared = np.isfinite(np.stack(list(values.values()))).all(0)
    means = {name: macro(np.where(shared, value, np.nan)) for name, value in values.items()}
    return {**means, "per_au": figures_by_au(values, scored.aus)}


def _gains_in_resamples(scored: ScoredSplit, constant: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the gains of sigma: pair NLL minus that of the best constant, and AUROC of |d|/s minus that of |d|.

    Each has difference, interval, probability, and the differences in the resamples, which are those of the score table.

    Args:
        constant: (N, A), the best constant of fit.
    """
    pairs, frames, aus = scored.pairs[scored.split], scored.frames, len(scored.aus)
    people = np.unique(annotated_cells(frames, scored.split).person)
    person = np.searchsorted(people, frames.subject[pairs.i])
    seed = (scored.params.seed, SPLITS.index(scored.split))
    weights = draw_resamples(len(people), scored.params.bootstrap, seed)
    losses = [pair_losses(scored.y_hat, sigma, pairs) for sigma in (scored.sigma, constant)]
    observed = [pair_nll(scored.y_hat, sigma, pairs) for sigma in (scored.sigma, constant)]
    draws = [mean_in_resamples(loss, pairs, person, weights, aus) for loss in losses]
    gains = {"pair_nll": _gain(observed, draws)}
    y, right = scored.y_hat.astype(np.float64), auroc_of_orders(scored.y_hat, scored.sigma, pairs)
    d = pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])
    margins, draws = order_margins(scored.y_hat, scored.sigma, pairs), []
    for name in ("margin_over_sigma", "margin"):
        of_aus = [(pairs.au == au) & (d != 0) for au in range(aus)]
        columns = [auroc_in_resamples(margins[name][own], d[own] > 0, person[own], weights) for own in of_aus]
        draws.append(np.stack(columns, axis=1))
    gains["auroc"] = _gain([right["margin_over_sigma"], right["margin"]], draws)
    return gains


def _gain(observed: list[np.ndarray], draws: list[np.ndarray]) -> dict[str, Any]:
    """Return the difference of two figures, means over the AUs that have both: (A,) each, and in resamples (B, A) each."""
    known = np.isfinite(observed[0] + observed[1])
    means = [macro(np.where(known, values, np.nan)) for values in observed]
    drawn = [mean_over_aus(np.where(known, values, np.nan)) for values in draws]
    difference = paired_difference(means[0], means[1], (drawn[0], drawn[1]))
    return {**difference, "draws": np.round(drawn[0] - drawn[1], DIGITS).tolist()}


def _gains_of_leaving_out(scored: ScoredSplit, order: Order) -> dict[str, float | None]:
    """Return the gain in mean pair accuracy when 20 % of each AU's labelled frames with a face are left out of its pairs.

    sigma: frames with the highest sigma of that AU. random: the mean of 20 draws, separate for each AU. cover: frames with
    the largest covered share of the face, the same for all AUs except for the random order of equally covered ones. The
    frames of all videos are ranked together.
    """
    rng = np.random.default_rng([scored.params.seed, SPLITS.index(scored.split)])
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
