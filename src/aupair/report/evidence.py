"""The tables of a report about pseudo-intensity and uncertainty: the benefit of sigma, of its guard and of the smoothers.

Most functions take the tree of metrics.json.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from aupair.aus import label_au
from aupair.report.formatting import EMPTY, number, percent
from aupair.report.tables import Table, with_interval

Tree = Mapping[str, Any]

ROUTES = {
    "constant": "smoothed, constant noise",
    "sigma": "smoothed by sigma",
    "quality": "smoothed by the landmarks' quality",
    "both": "smoothed by sigma and quality",
}
"""The routes that smooth y_hat, and their names in tables."""
EVIDENCE = (
    ("pair accuracy, uncovered and nearly frontal faces", "pair_accuracy.clear"),
    ("pair accuracy, all frames", "pair_accuracy.mean"),
    ("pair NLL with h (lower is better)", "uncertainty.pair_nll.h"),
    ("the same, h without its guard", "uncertainty.pair_nll.unguarded"),
    ("pair NLL, best constant sigma of fit", "uncertainty.pair_nll.constant"),
    ("pair NLL, best constant sigma of select", "uncertainty.pair_nll.constant_select"),
    ("AUROC of abs(d) for the order being right", "uncertainty.auroc_correct.margin"),
    ("AUROC of abs(d)/s for the order being right", "uncertainty.auroc_correct.margin_over_sigma"),
    ("gain in pair accuracy, most uncertain 20 % left out", "uncertainty.gain_at_80.sigma"),
    ("the same, random 20 %", "uncertainty.gain_at_80.random"),
    ("the same, most covered 20 %", "uncertainty.gain_at_80.cover"),
    ("Spearman of sigma with the misorder rate", "uncertainty.spearman_misorder.mean"),
    ("AUROC of sigma for the AU's own region hidden", "uncertainty.auroc_own_region.mean"),
    ("the same, against another region hidden", "uncertainty.auroc_other_region.mean"),
    ("AUROC of sigma for a turned face, uncovered", "uncertainty.auroc_turned.mean"),
    ("ECE of P(order) with h", "uncertainty.ece"),
    ("the same, h without its guard", "uncertainty.ece_unguarded"),
    ("ECE of P(order), best constant sigma of fit", "uncertainty.ece_constant"),
)
"""The figures of pseudo-intensity and uncertainty: their names in tables and their paths in metrics.json."""
GAINS = (
    (
        "pair NLL with h minus that with the best constant of fit (below 0 is better)",
        "uncertainty.pair_nll.less_constant",
    ),
    ("AUROC of abs(d)/s minus that of abs(d)", "uncertainty.auroc_correct.gain"),
)
"""The figures that have an interval: their names in tables and their paths in metrics.json."""


def uncertainty(metrics: Tree) -> Table:
    """Return the figures of pseudo-intensity and uncertainty on validation and on select.

    Figures that are undefined on both are left out, such as those that need the covers and the yaw of frames.
    """
    splits: tuple[Any, Any] = (metrics, metrics["select"])
    values = [(text, [reduce(getitem, path.split("."), tree) for tree in splits]) for text, path in EVIDENCE]
    lines = [[text, *map(number, pair)] for text, pair in values if pair != [None, None]]
    for text, path in GAINS:
        lines.append([text, *(with_interval(reduce(getitem, path.split("."), tree)) for tree in splits)])
    block = metrics["decisions"]
    only_validation = {
        "wrong decisions, all cells": percent(block["error"]),
        "wrong decisions, least confident 20 % left out": percent(block["error_at_80"]["confidence"]),
        "area under risk-coverage by confidence": number(block["aurc"]["confidence"]),
        "the same, by sigma alone": number(block["aurc"]["certainty"]),
        "the same, at random": number(block["aurc"]["random"]),
        "ECE of the confidence of a decision": number(block["confidence_ece"]),
        "Brier score of the confidence": number(block["confidence_brier"]),
    }
    lines += [[text, value, EMPTY] for text, value in only_validation.items()]
    return Table("Pseudo-intensity and uncertainty", ["figure", "validation", "select"], lines)


def uncertainty_of_aus(metrics: Tree) -> Table:
    """Return the figures of sigma and of the confidence for each AU on validation."""
    block, decisions = metrics["uncertainty"], metrics["decisions"]["per_au"]
    conditions = {name: block[f"auroc_{name}"]["per_au"] for name in ("own_region", "other_region", "turned")}
    regions = {name.replace("_", " "): per_au for name, per_au in conditions.items() if per_au}
    lines = []
    for au in metrics["aus"]:
        nll, right, own = block["pair_nll"]["per_au"][au], block["auroc_correct"]["per_au"][au], decisions[au]
        numbers = [nll["h"], nll["constant"], block["ece_per_au"][au]["h"], right["margin_over_sigma"], right["margin"]]
        numbers += [per_au[au] for per_au in regions.values()]
        area = (own["aurc"]["confidence"], own["aurc"]["random"], own["confidence_ece"])
        lines.append([au, *map(number, numbers), percent(own["error"]), *map(number, area)])
    head = [
        *("AU", "pair NLL", "constant", "ECE", "AUROC abs(d)/s", "abs(d)", *regions),
        *("wrong", "AURC", "random", "ECE of confidence"),
    ]
    return Table("Uncertainty of each AU on validation", head, lines)


def smoothers(metrics: Tree, numbers: Tree) -> Table:
    """Return the pair accuracy of y_hat and of its smoothed values, with the parameters of each smoother.

    Args:
        numbers: the entries of smoother.json by route.
    """
    splits = (metrics["pair_accuracy"], metrics["select"]["pair_accuracy"])
    lines = []
    for route in ("", *metrics["pair_accuracy"]["smoothed"]):
        figures = [split["smoothed"][route] if route else split for split in splits]
        own = numbers.get(route, {})
        cells = [number(side[key]) for side in figures for key in ("mean", "clear")]
        chosen = [number(own[key], 3) if key in own else EMPTY for key in ("r_squared", "reach", "power")]
        lines.append([ROUTES.get(route, route) if route else "y_hat, not smoothed", *cells, *chosen])
    head = ["", "validation", "clear frames", "select", "clear frames", "R² on fit", "reach (s)", "power"]
    return Table("Pair accuracy of y_hat and of its smoothed values", head, lines)


def guard(tree: Tree, aus: Sequence[str]) -> Table:
    """Return the strength of the guard for each AU, and the pair NLL on fit by which it was chosen.

    Args:
        tree: the entry `guard_of_aus` of h's about.json.
    """
    names = ("constant", "unguarded", "guarded")
    lines = []
    for k, au in enumerate(aus):
        strength = float(tree["strength"][k])
        losses = [number(tree["nll"][name][k]) for name in names]
        lines.append([label_au(au), percent(strength) if strength else "0: the constant", *losses])
    head = ["AU", "strength of sigma", "pair NLL, constant", "h", "h with its guard"]
    return Table("The guard of h, chosen on people of fit, out of fold", head, lines)
