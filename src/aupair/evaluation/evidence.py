"""What stands beside the scores: pair accuracy and what sigma is worth; abstaining is in `decisions`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.metrics import by_au, macro, per_au
from aupair.evaluation.pair_order import Order, misorder_rate, pair_accuracy
from aupair.evaluation.uncertainty import (
    auroc_between,
    auroc_correct,
    best_constant_sigma,
    ece_of_order,
    leave_out,
    oriented,
    pair_nll,
    reliability,
    spearman_misorder,
)
from aupair.ranking.pairs import Pairs

LEFT_OUT = 0.2
"""the share of frames left out in gain_at_80"""
DRAWS = 20
"""random draws whose mean gain is the reference"""


FixedPairs = Mapping[str, Pairs]
"""split -> its fixed pairs"""


@dataclass(frozen=True)
class Scored:
    """The frames of one split with their pseudo-intensities.

    Attributes:
        frames: all N of them.
        split: which are judged.
        y_hat, sigma: (N, A) float32.
        pairs: the fixed pairs of each split.
        conditions: None for data without conditions.csv.
        seed: of the random draws.
    """

    frames: Frames
    split: str
    y_hat: np.ndarray
    sigma: np.ndarray
    pairs: FixedPairs
    conditions: Conditions | None
    seed: int

    @property
    def subset(self) -> np.ndarray:
        """(N,) bool: the frames under test."""
        return self.frames.of_split(self.split) & self.frames.usable


def pair_evidence(scored: Scored) -> dict[str, Any]:
    """Pair accuracy over all frames of the split, and over its clear ones (None without conditions)."""
    everywhere = pair_accuracy(scored.y_hat, scored.frames, scored.subset)
    clear, clear_per_au = None, None
    if scored.conditions is not None:
        values = pair_accuracy(scored.y_hat, scored.frames, scored.subset & scored.conditions.clear)
        clear, clear_per_au = macro(values), by_au(values)
    return {"clear": clear, "mean": macro(everywhere), "per_au": by_au(everywhere), "clear_per_au": clear_per_au}


def uncertainty_evidence(scored: Scored) -> dict[str, Any]:
    """What sigma is worth on a split; the constants it must beat were chosen on fit (and, beside it, on select)."""
    y_hat, sigma, pairs = scored.y_hat, scored.sigma, scored.pairs[scored.split]
    rate = misorder_rate(y_hat, scored.frames, scored.subset)
    rank = spearman_misorder(sigma[scored.subset], rate[scored.subset])
    right = auroc_correct(y_hat, sigma, pairs)
    ece = {"h": ece_of_order(y_hat, sigma, pairs), "constant": ece_of_order(y_hat, _constant(scored, "fit"), pairs)}
    return {
        "pair_nll": _nll(scored),
        "auroc_correct": {name: macro(values) for name, values in right.items()} | {"per_au": per_au(right)},
        "gain_at_80": _gains(scored),
        "spearman_misorder": {"mean": macro(rank), "per_au": by_au(rank)},
        **_told_apart(scored),
        "ece": macro(ece["h"]),
        "ece_constant": macro(ece["constant"]),
        "ece_per_au": per_au(ece),
        "reliability": reliability_curve(scored),
    }


def reliability_curve(scored: Scored) -> dict[str, dict[str, list[float]]]:
    """Claimed and observed P(order) of h and of the best constant sigma of fit, all AUs' fixed pairs pooled.

    Returns:
        {h, constant}: {claimed, observed, share}, (15,) each, over equal bins of [.5, 1]; NaN in an empty one.
    """
    pairs = scored.pairs[scored.split]
    curves = {}
    for name, sigma in (("h", scored.sigma), ("constant", _constant(scored, "fit"))):
        p, right = oriented(scored.y_hat, sigma, pairs)
        known = np.isfinite(p)
        bins = reliability(p[known], right[known])
        curves[name] = {key: values.tolist() for key, values in zip(("claimed", "observed", "share"), bins)}
    return curves


def _nll(scored: Scored) -> dict[str, Any]:
    """Pair NLL with h and with constants; macro over the AUs that have pairs here, on fit and on select."""
    pairs = scored.pairs[scored.split]
    values = {"h": pair_nll(scored.y_hat, scored.sigma, pairs)}
    for name, split in (("constant", "fit"), ("constant_select", "select")):
        values[name] = pair_nll(scored.y_hat, _constant(scored, split), pairs)
    shared = np.isfinite(np.stack(list(values.values()))).all(0)
    macros = {name: macro(np.where(shared, value, np.nan)) for name, value in values.items()}
    return {**macros, "per_au": per_au(values)}


def _constant(scored: Scored, split: str) -> np.ndarray:
    """The constant sigma of each AU that is best on a split's pairs: (N, A)."""
    return np.broadcast_to(best_constant_sigma(scored.y_hat, scored.pairs[split]), scored.sigma.shape)


def _gains(scored: Scored) -> dict[str, float | None]:
    """The gain in mean pair accuracy when 20 % of the split's usable frames are left out of the pairs of each AU.

    sigma: those with the highest sigma of that AU. random: the mean of 20 draws, each AU its own. cover: those with
    the largest share of the face covered, the same for all AUs but for the order of equally covered ones, which is
    random. The frames of all videos are ranked together.
    """
    rng = np.random.default_rng([scored.seed, SPLITS.index(scored.split)])
    subset = scored.subset
    order = Order(scored.y_hat, scored.frames, subset)
    whole = order.accuracy(subset)

    def gained(score: np.ndarray) -> float:
        return macro(order.accuracy(leave_out(score, subset, LEFT_OUT, rng)) - whole)

    cover = None
    if scored.conditions is not None:
        covered = np.nan_to_num(scored.conditions.covered)
        cover = gained(np.broadcast_to(covered[:, None], scored.sigma.shape))
    equal = np.zeros(scored.sigma.shape)
    random = float(np.mean([gained(equal) for _ in range(DRAWS)]))
    return {"sigma": gained(scored.sigma), "random": random, "cover": cover}


def _told_apart(scored: Scored) -> dict[str, Any]:
    """AUROC of sigma for one kind of frames against another, frames with a face, annotated or not; None if unknown.

    auroc_own_region: the AU's own region hidden, against nothing over the face and nearly frontal.
    auroc_other_region: the AU's own region hidden, against another AU's hidden and the own not at all.
    auroc_turned: a turned face against a nearly frontal one, both with nothing over the face.
    """
    names = ("auroc_own_region", "auroc_other_region", "auroc_turned")
    conditions = scored.conditions
    if conditions is None:
        return {name: {"mean": None, "per_au": None} for name in names}
    seen = scored.frames.of_split(scored.split) & scored.frames.ok
    uncovered = (conditions.covered == 0)[:, None]
    kinds = (
        (conditions.own_hidden, conditions.clear[:, None]),
        (conditions.own_hidden, conditions.other_hidden),
        (uncovered & conditions.turned[:, None], uncovered & ~conditions.turned[:, None]),
    )
    found = {}
    for name, (high, low) in zip(names, kinds):
        values = auroc_between(scored.sigma[seen], high[seen], low[seen])
        found[name] = {"mean": macro(values), "per_au": by_au(values)}
    return found
