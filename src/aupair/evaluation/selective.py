"""The selective table: how good are the decisions that are kept when each AU abstains from a share of its own?

What is left out counts nowhere, neither as an error nor as an inactive cell. A way to abstain is worth something where
it beats leaving out as many at random. Ways that rank an AU's active and inactive decisions together leave out active
ones first: errors fall, and F1 with them, since hardly any active cell is kept. `predict` therefore abstains from the
same share of both, and so does `confidence` here.
"""

from typing import Any

import numpy as np
from scipy.stats import rankdata

from aupair.aus import AUS, SPLITS
from aupair.evaluation.confidence import QUANTILES, Confidence
from aupair.evaluation.decisions import Decided
from aupair.evaluation.metrics import Counts, accuracy, count, f1, macro, paired, resamples
from aupair.evaluation.uncertainty import leave_out
from aupair.params import Evaluate

LEFT_OUT = (0.0, 0.1, 0.2, 0.5)
"""shares left out: the coverages are 1, .9, .8 and .5"""
JUDGED_AT = 0.2
"""the share at which confidence is compared with random abstention"""
WAYS = ("confidence", "confidence-ungrouped", "certainty", "random")
"""each AU leaves out: the least confident of its active and of its inactive decisions, the same share of both; the
least confident of all its decisions; those with the highest sigma; any"""
DRAWS = 20
"""random draws; their mean is the row `random`"""


def selective(found: Decided, params: Evaluate) -> dict[str, Any]:
    """Give the tree `decisions.selective` of metrics.json.

    Returns:
        table: a row for each way and coverage: name, way, coverage, mean F1, accuracy over the kept cells, and per_au
            f1, accuracy, and positives: the share of active cells among the kept.
        gain_at_80: f1 and accuracy of `confidence` less those of `random` at coverage .8: difference, interval,
            probability; a paired bootstrap over videos, in which the cells that are kept stay the same.
    """
    table, at_80 = [], {}
    for way in WAYS:
        for share in LEFT_OUT:
            counts = _kept_counts(found, way, share, params.seed)
            table.append({"name": f"{way}-{round(100 * (1 - share))}", "way": way, "coverage": 1 - share})
            table[-1] |= _row([part.total() for part in counts])
            if share == JUDGED_AT:
                at_80[way] = counts
    weights = resamples(len(np.unique(found.video)), params.bootstrap, (params.seed, SPLITS.index("validation")))
    gains = {}
    for name, figure in (("f1", f1), ("accuracy", accuracy)):
        whole = [np.mean([figure(part.total()).mean() for part in at_80[way]]) for way in ("confidence", "random")]
        drawn = [
            np.mean([figure(part.weighted(weights)).mean(-1) for part in at_80[way]], axis=0)
            for way in ("confidence", "random")
        ]
        gains[name] = paired(whole[0], whole[1], (drawn[0], drawn[1]))
    return {"table": table, "gain_at_80": gains}


def abstention(found: Decided, confidence: Confidence) -> list[dict[str, Any]]:
    """Say what `predict --abstain` does on the judged cells, by the limits found on select: `decisions.abstention`.

    Returns:
        For each share: name, asked (the coverage asked for), coverage (of all cells), risk_select, risk_bound (its 95 %
        upper bound), and error, f1 (mean) and accuracy (mean over AUs) over the cells that are kept.
    """
    rows = []
    for share in LEFT_OUT:
        limits, k = confidence.limits(share), round(share * (QUANTILES - 1))
        kept = found.trust["confidence"] >= np.where(found.decisions, limits[1], limits[0])
        counts = count(found.decisions, found.truth, found.video, kept).total()
        risks = {"risk_select": confidence.risks, "risk_bound": confidence.bounds}
        rows.append(
            {
                "name": str(round(100 * (1 - share))),
                "asked": 1 - share,
                "coverage": float(kept.mean()),
                **{name: float(values[k]) for name, values in risks.items() if values is not None},
                "error": float(found.wrong[kept].mean()) if kept.any() else float("nan"),
                "f1": float(f1(counts).mean()),
                "accuracy": macro(accuracy(counts)),
            }
        )
    return rows


def _kept_counts(found: Decided, way: str, share: float, seed: int) -> list[Counts]:
    """Count the kept cells per video: once, or for each random draw."""
    rng, everything = np.random.default_rng([seed, DRAWS]), np.ones(len(found.truth), bool)
    doubt = _doubt(found, way)
    kept = (leave_out(doubt, everything, share, rng) for _ in range(DRAWS if way == "random" else 1))
    return [count(found.decisions, found.truth, found.video, own) for own in kept]


def _doubt(found: Decided, way: str) -> np.ndarray:
    """What a way to abstain leaves out first: (n, A), highest first."""
    if way == "random":
        return np.zeros(found.truth.shape)
    if way != "confidence":
        return -found.trust[way.removesuffix("-ungrouped")]
    doubt, confidence = np.empty(found.truth.shape), found.trust["confidence"]
    for au, active in enumerate(found.decisions.T):
        for side in (active, ~active):
            doubt[side, au] = (rankdata(-confidence[side, au]) - 0.5) / max(side.sum(), 1)
    return doubt


def _row(draws: list[Counts]) -> dict[str, Any]:
    """Give the figures of a row, the mean over draws: counts without a leading axis."""
    columns = {
        "f1": np.mean([f1(part) for part in draws], axis=0),
        "accuracy": np.mean([accuracy(part) for part in draws], axis=0),
        "positives": np.mean([_positives(part) for part in draws], axis=0),
    }
    return {
        "f1": float(columns["f1"].mean()),
        "accuracy": float(columns["accuracy"].mean()),
        "per_au": {au: {name: float(values[k]) for name, values in columns.items()} for k, au in enumerate(AUS)},
    }


def _positives(counts: Counts) -> np.ndarray:
    """The share of active cells: (A,)."""
    tp, _, fn, _ = np.moveaxis(counts.cells, -1, 0)
    return (tp + fn) / counts.cells.sum(-1)
