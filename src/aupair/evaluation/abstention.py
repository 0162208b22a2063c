"""The risk and the scores of the decisions that remain when the least confident ones are left out.

A decision that is left out is not counted at all, neither as an error nor as an inactive cell. A ranking of the decisions
is useful if it leads to better scores than leaving out the same number at random. A ranking that mixes an AU's active and
inactive decisions leaves out active ones first: there are fewer errors, but F1 falls, too, since hardly any active cell
remains. `predict` therefore leaves out the same share of both, and so does the ranking `confidence` of `selective_risk`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation import metrics
from aupair.evaluation.confidence import QUANTILES, Confidence
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import Cells
from aupair.params import Evaluate

_SHARES = (0.0, 0.1, 0.2, 0.5)
"""shares left out: the coverages are 1, .9, .8 and .5"""
_RANKINGS = ("confidence", "confidence-ungrouped", "certainty", "random")
"""the rankings, by which each AU leaves out: the least confident of its active and of its inactive decisions, the same share
of both; the least confident of all its decisions; those with the highest sigma; random ones"""
DRAWS = 20
"""number of random draws, whose mean is the row `random`"""
_COMPARED_SHARE = 0.2
"""the share at which confidence is compared with random abstention"""


@dataclass(frozen=True)
class Decisions:
    """The decisions for the n annotated frames of one split that have a face; other frames have no confidence.

    Attributes:
        active: (n, A) bool, whether the AU was decided to be active.
        truth: (n, A) bool, whether the AU is active.
        video: (n,) int32.
        rankings: values to rank the cells by, (n, A) each; the lowest are left out first. confidence: P(the decision
            is right); margin: the distance to the threshold; certainty: the rank of -sigma within its AU, since
            sigmas of different AUs are not compared.
    """

    active: np.ndarray
    truth: np.ndarray
    video: np.ndarray
    rankings: dict[str, np.ndarray]

    @property
    def wrong(self) -> np.ndarray:
        """Return which decisions are wrong: (n, A) bool."""
        return self.active != self.truth


def rank_decisions(
    frames: Frames, cells: Cells, active: np.ndarray, confidence: np.ndarray, margin: np.ndarray, sigma: np.ndarray
) -> Decisions:
    """Return the decisions on the cells' frames with a face, with their rankings; the arrays are (N, A)."""
    with_face = frames.ok[cells.rows]
    rows = cells.rows[with_face]
    rankings = {"confidence": confidence[rows], "margin": margin[rows], "certainty": -rankdata(sigma[rows], axis=0)}
    return Decisions(active[rows], cells.truth[with_face], cells.video[with_face], rankings)


def decision_figures(decisions: Decisions, confidence: Confidence, params: Evaluate) -> dict[str, Any]:
    """Return errors, risk at coverages and the confidence's calibration: the tree `decisions` of metrics.json.

    Returns:
        For all cells, and below `per_au` for each AU's,
            error: the share of wrong cells;
            error_at_80: the risk at coverage .8, for each ranking;
            aurc: the area under risk-coverage for each ranking; `random`: of random abstention, the error itself;
                `best`: with every wrong cell left out first;
            auroc_right: the probability that the ranking puts a right cell above a wrong one;
            confidence_ece, confidence_brier: of the confidence, 15 bins of [0, 1];
            risk_coverage: coverage (20,) .05 ... 1 and risk (20,), for each ranking;
        for all cells also their number, `cells`, `reliability`: claimed, observed, share, (15,) each, and the trees
        `selective` and `abstention`, which `_selective_risk` and `_abstention_at_limits` describe.
    """
    wrong, pooled = decisions.wrong, {name: values.ravel() for name, values in decisions.rankings.items()}
    columns = (
        (au, wrong[:, k], {name: values[:, k] for name, values in decisions.rankings.items()})
        for k, au in enumerate(AUS)
    )
    bins = metrics.calibration_bins(pooled["confidence"], ~wrong.ravel())
    return {
        "cells": int(wrong.size),
        **_ranking_figures(wrong.ravel(), pooled),
        "reliability": {name: values.tolist() for name, values in bins.items()},
        "per_au": {au: _ranking_figures(errors, rankings) for au, errors, rankings in columns},
        "selective": _selective_risk(decisions, params),
        "abstention": _abstention_at_limits(decisions, confidence),
    }


def _ranking_figures(wrong: np.ndarray, rankings: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the figures that are described in `decision_figures` for some cells: wrong (n,) bool, rankings (n,) each."""
    ranked = {name: _ranked_risk(wrong, values) for name, values in rankings.items()}
    curves = {name: _risk_at_coverages(risk) for name, risk in ranked.items()}
    p = rankings["confidence"]
    areas = {name: float(risk.mean()) for name, risk in ranked.items()}
    best = float(_ranked_risk(wrong, (~wrong).astype(np.float64)).mean())
    return {
        "error": float(wrong.mean()),
        "error_at_80": {name: curve["risk"][15] for name, curve in curves.items()},  # 16 of 20 points
        "aurc": {**areas, "random": float(wrong.mean()), "best": best},
        "auroc_right": {name: metrics.auroc(values, ~wrong) for name, values in rankings.items()},
        "confidence_ece": metrics.expected_calibration_error(p, ~wrong),
        "confidence_brier": float(np.mean((p - ~wrong) ** 2)),
        "risk_coverage": curves,
    }


def _ranked_risk(wrong: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Return the share of wrong decisions among the k highest, for every k: (n,). Its mean is the area under the curve.

    Equal values are in random order; the mean over all such orders is returned. A ranking without information has
    the overall share of wrong decisions at every k, as random abstention has.

    Args:
        wrong: (n,) bool.
        ranking: (n,) float; the lowest are left out first.
    """
    _, group, size = np.unique(-ranking, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(group, wrong) / size, size)
    return np.cumsum(expected) / np.arange(1, len(wrong) + 1)


def _risk_at_coverages(risk: np.ndarray) -> dict[str, list[float]]:
    """Return coverage .05, .1 ... 1 and the risk at each of them, from the risks (n,) of `_ranked_risk`."""
    coverage = np.arange(1, 21) / 20
    place = np.maximum(np.ceil(coverage * len(risk)).astype(int), 1) - 1
    return {"coverage": coverage.tolist(), "risk": risk[place].tolist()}


def _selective_risk(decisions: Decisions, params: Evaluate) -> dict[str, Any]:
    """Return the tree `decisions.selective` of metrics.json.

    Returns:
        table: a row for each ranking and coverage: name, way (the ranking), coverage, mean F1, accuracy over the kept
            cells, and per_au f1, accuracy, and positives: the share of active cells among the kept.
        gain_at_80: f1 and accuracy of `confidence` minus those of `random` at coverage .8: difference, interval,
            probability; a paired bootstrap over videos, in which the cells that are kept stay the same.
    """
    table, compared = [], {}
    for ranking in _RANKINGS:
        for share in _SHARES:
            counts = _count_kept(decisions, ranking, share, params.seed)
            row = {"name": f"{ranking}-{round(100 * (1 - share))}", "way": ranking, "coverage": 1 - share}
            table.append(row | _selective_row([part.total() for part in counts]))
            if share == _COMPARED_SHARE:
                compared[ranking] = counts
    seed = (params.seed, SPLITS.index("validation"))
    weights = metrics.draw_resamples(len(np.unique(decisions.video)), params.bootstrap, seed)
    gains = {}
    for name, figure in (("f1", metrics.f1), ("accuracy", metrics.accuracy)):
        sides = [compared[ranking] for ranking in ("confidence", "random")]
        observed = [np.mean([figure(part.total()).mean() for part in side]) for side in sides]
        drawn = [np.mean([figure(part.weighted(weights)).mean(-1) for part in side], axis=0) for side in sides]
        gains[name] = metrics.paired_difference(observed[0], observed[1], (drawn[0], drawn[1]))
    return {"table": table, "gain_at_80": gains}


def _abstention_at_limits(decisions: Decisions, confidence: Confidence) -> list[dict[str, Any]]:
    """Return the effect of `predict --abstain` with the limits of select: `decisions.abstention` of metrics.json.

    Returns:
        For each share: name, asked (the coverage asked for), coverage (of all cells), risk_select, risk_bound (its 95 %
        upper bound), and error, f1 (mean) and accuracy (mean over AUs) over the cells that are kept.
    """
    rows = []
    for share in _SHARES:
        limits, k = confidence.limits(share), round(share * (QUANTILES - 1))
        selected = decisions.rankings["confidence"] >= np.where(decisions.active, limits[1], limits[0])
        counts = metrics.count_decisions(decisions.active, decisions.truth, decisions.video, selected).total()
        risks = {"risk_select": confidence.risks, "risk_bound": confidence.bounds}
        rows.append(
            {
                "name": str(round(100 * (1 - share))),
                "asked": 1 - share,
                "coverage": float(selected.mean()),
                **{name: float(values[k]) for name, values in risks.items() if values is not None},
                "error": float(decisions.wrong[selected].mean()) if selected.any() else float("nan"),
                "f1": float(metrics.f1(counts).mean()),
                "accuracy": metrics.macro(metrics.accuracy(counts)),
            }
        )
    return rows


def leave_out(score: np.ndarray, usable: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which frames remain, (N, A) bool, if for each AU a share of usable frames with the highest score is left out.

    Args:
        score: (N, A) float without NaN; equal scores are ordered at random.
        usable: (N,) bool.
    """
    rows = np.flatnonzero(usable)
    number = len(rows) - int(share * len(rows))
    selected = np.zeros(score.shape, bool)
    for au in range(score.shape[1]):
        selected[rows, au] = _lowest(number, score[rows, au], rng.random(len(rows)))
    return selected


def _lowest(number: int, *keys: np.ndarray) -> np.ndarray:
    """Return which `number` of n items come first by the keys, then by place, (n,) bool, without sorting them all.

    Args:
        keys: (n,) each, the most important first.
    """
    first = np.ones(len(keys[0]), bool)
    if number < len(first):
        edge = np.partition(keys[0], max(number - 1, 0))[max(number - 1, 0)]
        first = keys[0] < edge
        tied = np.flatnonzero(keys[0] == edge)
        missing = number - int(first.sum())
        first[tied[_lowest(missing, *(key[tied] for key in keys[1:]))] if keys[1:] else tied[:missing]] = True
    return first


def _count_kept(decisions: Decisions, ranking: str, share: float, seed: int) -> list[Counts]:
    """Count the right and wrong decisions among the kept cells of each video.

    Returns:
        One entry, or one for each random draw where `ranking` is random.
    """
    rng, everything = np.random.default_rng([seed, DRAWS]), np.ones(len(decisions.truth), bool)
    order = _leaving_order(decisions, ranking)
    draws = DRAWS if ranking == "random" else 1
    selected = (leave_out(order, everything, share, rng) for _ in range(draws))
    return [metrics.count_decisions(decisions.active, decisions.truth, decisions.video, own) for own in selected]


def _leaving_order(decisions: Decisions, ranking: str) -> np.ndarray:
    """Return a value for each cell, (n, A); the cells with the highest values are left out first."""
    if ranking == "random":
        return np.zeros(decisions.truth.shape)
    if ranking != "confidence":
        return -decisions.rankings[ranking.removesuffix("-ungrouped")]
    order, confidence = np.empty(decisions.truth.shape), decisions.rankings["confidence"]
    for au, active in enumerate(decisions.active.T):
        for side in (active, ~active):
            order[side, au] = (rankdata(-confidence[side, au]) - 0.5) / max(side.sum(), 1)
    return order


def _selective_row(draws: list[Counts]) -> dict[str, Any]:
    """Return the figures of a row, the mean over draws: counts without a leading axis."""
    columns = {
        "f1": np.mean([metrics.f1(part) for part in draws], axis=0),
        "accuracy": np.mean([metrics.accuracy(part) for part in draws], axis=0),
        "positives": np.mean([part.cells[:, [0, 2]].sum(-1) / part.cells.sum(-1) for part in draws], axis=0),
    }
    means = {name: float(columns[name].mean()) for name in ("f1", "accuracy")}
    return {**means, "per_au": metrics.figures_by_au(columns)}
