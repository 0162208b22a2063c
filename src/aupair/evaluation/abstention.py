"""Selective risk: the errors and scores of the decisions that remain when the least confident ones are left out.

A decision that is left out is not counted, neither as an error nor as an inactive cell. A ranking of the decisions is useful
if it leads to better scores than leaving out the same number at random. A ranking that mixes an AU's active and inactive
decisions leaves out active ones first: the number of errors falls, but so does F1, since hardly any active cell remains.
`predict` therefore leaves out the same share of both, and so does the ranking `confidence`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation import metrics
from aupair.evaluation.bootstrap import draw_resamples, paired_difference
from aupair.evaluation.confidence import QUANTILES, Confidence
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import Cells
from aupair.params import Evaluate

_SHARES = (0.0, 0.1, 0.2, 0.5)
"""shares left out: the coverages are 1, .9, .8 and .5"""
_RANKINGS = ("confidence", "confidence-ungrouped", "certainty", "random")
"""the rankings; an AU leaves out: the least confident of its active and of its inactive decisions, the same share of both;
the least confident of all its decisions; those with the highest sigma; random ones"""
DRAWS = 20
"""number of random draws, whose mean is the row `random`"""
_COMPARED_SHARE = 0.2
"""the share at which confidence is compared with random abstention"""


@dataclass(frozen=True)
class Decisions:
    """The decisions for the n frames of one split that have a face and the label of at least one AU.

    Attributes:
        aus: the names of the AUs.
        active: (n, A) bool, whether the AU was decided to be active.
        truth: (n, A) bool, whether the AU is active.
        counted: (n, A) bool, whether there is a label.
        person: (n,) int32.
        rankings: values to rank the cells by, (n, A) each; the lowest are left out first. confidence: P(the decision
            is right); margin: the distance to the threshold; certainty: the rank of -sigma among the n frames, since
            sigmas of different AUs are not compared.
    """

    aus: tuple[str, ...]
    active: np.ndarray
    truth: np.ndarray
    counted: np.ndarray
    person: np.ndarray
    rankings: dict[str, np.ndarray]

    @property
    def wrong(self) -> np.ndarray:
        """Return which decisions are wrong: (n, A) bool, meaningful only where there is a label."""
        return self.active != self.truth

    def count(self, selected: np.ndarray) -> Counts:
        """Count right and wrong decisions among selected cells, (n, A) bool, for each person."""
        return metrics.count_decisions(self.active, self.truth, self.person, self.counted & selected)


def rank_decisions(
    frames: Frames, cells: Cells, active: np.ndarray, confidence: np.ndarray, margin: np.ndarray, sigma: np.ndarray
) -> Decisions:
    """Return the decisions on the cells' frames with a face, with their rankings; the arrays are (N, A)."""
    with_face = frames.ok[cells.rows]
    rows = cells.rows[with_face]
    rankings = {"confidence": confidence[rows], "margin": margin[rows], "certainty": -rankdata(sigma[rows], axis=0)}
    labels = cells.truth[with_face], cells.counted[with_face], cells.person[with_face]
    return Decisions(cells.aus, active[rows], *labels, rankings)


def decision_figures(decisions: Decisions, confidence: Confidence, params: Evaluate) -> dict[str, Any]:
    """Return errors, risk at coverages and the confidence's calibration: the tree `decisions` of metrics.json.

    Returns:
        For all labelled cells, and below `per_au` for each AU's,
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
    counted, wrong = decisions.counted, decisions.wrong
    pooled = {name: values[counted] for name, values in decisions.rankings.items()}
    per_au = {}
    for k, (au, use) in enumerate(zip(decisions.aus, counted.T)):
        own = {name: values[use, k] for name, values in decisions.rankings.items()}
        per_au[au] = _ranking_figures(wrong[use, k], own)
    bins = metrics.calibration_bins(pooled["confidence"], ~wrong[counted])
    return {
        "cells": int(counted.sum()),
        **_ranking_figures(wrong[counted], pooled),
        "reliability": {name: values.tolist() for name, values in bins.items()},
        "per_au": per_au,
        "selective": _selective_risk(decisions, params),
        "abstention": _abstention_at_limits(decisions, confidence),
    }


def _ranking_figures(wrong: np.ndarray, rankings: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the figures described in `decision_figures` for n cells: wrong (n,) bool, rankings (n,) each; NaN for n = 0."""
    ranked = {name: _ranked_risk(wrong, values) for name, values in rankings.items()}
    curves = {name: _risk_at_coverages(risk) for name, risk in ranked.items()}
    p = rankings["confidence"]
    areas = {name: _mean(risk) for name, risk in ranked.items()}
    best = _mean(_ranked_risk(wrong, (~wrong).astype(np.float64)))
    return {
        "error": _mean(wrong),
        "error_at_80": {name: curve["risk"][15] for name, curve in curves.items()},  # 16 of 20 points
        "aurc": {**areas, "random": _mean(wrong), "best": best},
        "auroc_right": {name: metrics.auroc(values, ~wrong) for name, values in rankings.items()},
        "confidence_ece": metrics.expected_calibration_error(p, ~wrong),
        "confidence_brier": _mean((p - ~wrong) ** 2),
        "risk_coverage": curves,
    }


def _mean(values: np.ndarray) -> float:
    """Return the mean of (n,) values; NaN for n = 0."""
    return float(values.mean()) if len(values) else float("nan")


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
    """Return coverage .05, .1 ... 1 and the risk at each of them, from the risks (n,) of `_ranked_risk`; NaN for n = 0."""
    coverage = np.arange(1, 21) / 20
    place = np.maximum(np.ceil(coverage * len(risk)).astype(int), 1) - 1
    risks = risk[place] if len(risk) else np.full(len(place), np.nan)
    return {"coverage": coverage.tolist(), "risk": risks.tolist()}


def _selective_risk(decisions: Decisions, params: Evaluate) -> dict[str, Any]:
    """Return the tree `decisions.selective` of metrics.json.

    Returns:
        table: a row for each ranking and coverage: name, way (the ranking), coverage, mean F1, accuracy over the kept
            cells, and per_au f1, accuracy, and positives: the share of active cells among the kept.
        gain_at_80: f1 and accuracy of `confidence` minus those of `random` at coverage .8: difference, interval,
            probability; a paired bootstrap over people, in which the cells that are kept stay the same.
    """
    table, compared = [], {}
    for ranking in _RANKINGS:
        for share in _SHARES:
            counts = _count_kept(decisions, ranking, share, params.seed)
            row = {"name": f"{ranking}-{round(100 * (1 - share))}", "way": ranking, "coverage": 1 - share}
            table.append(row | _selective_row([part.total() for part in counts], decisions.aus))
            if share == _COMPARED_SHARE:
                compared[ranking] = counts
    seed = (params.seed, SPLITS.index("validation"))
    weights = draw_resamples(len(np.unique(decisions.person)), params.bootstrap, seed)
    gains = {}
    for name, figure in (("f1", metrics.f1), ("accuracy", metrics.accuracy)):
        sides = [compared[ranking] for ranking in ("confidence", "random")]
        observed = [np.mean([metrics.macro(figure(part.total())) for part in side]) for side in sides]
        drawn = [
            np.mean([metrics.mean_over_aus(figure(part.weighted(weights))) for part in side], axis=0) for side in sides
        ]
        gains[name] = paired_difference(observed[0], observed[1], (drawn[0], drawn[1]))
    return {"table": table, "gain_at_80": gains}


def _abstention_at_limits(decisions: Decisions, confidence: Confidence) -> list[dict[str, Any]]:
    """Return the effect of `predict --abstain` with the limits of select: `decisions.abstention` of metrics.json.

    Returns:
        For each share: name, asked (the requested coverage), coverage (of all cells), risk_select, risk_bound (its 95 %
        upper bound), and error, f1 (mean) and accuracy (mean over AUs) over the cells that are kept.
    """
    rows = []
    for share in _SHARES:
        limits, k = confidence.limits(share), round(share * (QUANTILES - 1))
        selected = decisions.rankings["confidence"] >= np.where(decisions.active, limits[1], limits[0])
        counts = decisions.count(selected).total()
        risks = {"risk_select": confidence.risks, "risk_bound": confidence.bounds}
        rows.append(
            {
                "name": str(round(100 * (1 - share))),
                "asked": 1 - share,
                "coverage": _mean(selected[decisions.counted]),
                **{name: float(values[k]) for name, values in risks.items() if values is not None},
                "error": _mean(decisions.wrong[selected & decisions.counted]),
                "f1": metrics.macro(metrics.f1(counts)),
                "accuracy": metrics.macro(metrics.accuracy(counts)),
            }
        )
    return rows


def leave_out(score: np.ndarray, usable: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which cells remain, (N, A) bool, if a share of each AU's usable cells with the highest score is left out.

    Args:
        score: (N, A) float without NaN where usable; equal scores are ordered at random.
        usable: (N, A) bool.
    """
    rows = np.flatnonzero(usable.any(axis=1))
    selected = np.zeros(score.shape, bool)
    for au in range(score.shape[1]):
        # one draw for each row, with or without a label, so that the draws of the other AUs do not depend on it
        chance, use = rng.random(len(rows)), usable[rows, au]
        own = rows[use]
        selected[own, au] = _lowest(len(own) - int(share * len(own)), score[own, au], chance[use])
    return selected


def _lowest(number: int, *keys: np.ndarray) -> np.ndarray:
    """Select the `number` of n items that come first by the keys, then by index: (n,) bool; avoids a full sort.

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
    """Count the right and wrong decisions among the kept cells of each person.

    Returns:
        One entry, or one for each random draw where `ranking` is random.
    """
    rng = np.random.default_rng([seed, DRAWS])
    order = _leaving_order(decisions, ranking)
    draws = DRAWS if ranking == "random" else 1
    return [decisions.count(leave_out(order, decisions.counted, share, rng)) for _ in range(draws)]


def _leaving_order(decisions: Decisions, ranking: str) -> np.ndarray:
    """Return a value for each labelled cell, (n, A); the cells with the highest values are left out first."""
    if ranking == "random":
        return np.zeros(decisions.truth.shape)
    if ranking != "confidence":
        return -decisions.rankings[ranking.removesuffix("-ungrouped")]
    order, confidence = np.zeros(decisions.truth.shape), decisions.rankings["confidence"]
    for au, (active, use) in enumerate(zip(decisions.active.T, decisions.counted.T)):
        for side in (use & active, use & ~active):
            order[side, au] = (rankdata(-confidence[side, au]) - 0.5) / max(side.sum(), 1)
    return order


def _selective_row(draws: list[Counts], aus: tuple[str, ...]) -> dict[str, Any]:
    """Return the figures of a row, the mean over draws: counts without a leading axis."""
    figures = {"f1": metrics.f1, "accuracy": metrics.accuracy, "positives": metrics.positives}
    columns = {name: np.mean([figure(part) for part in draws], axis=0) for name, figure in figures.items()}
    means = {name: metrics.macro(columns[name]) for name in ("f1", "accuracy")}
    return {**means, "per_au": metrics.figures_by_au(columns, aus)}
