"""The metrics of an evaluation that are logged to MLflow, about fifty in groups; the artifact metrics.json has all of them.

The group is the part of the name before the slash. Figures of P2, by which the model decides, have no suffix; those of other
rows do: `validation/f1`, `validation/f1_p1`, `validation/f1_no_uncertainty`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]

_ROWS = {
    "P2": "", "P1": "_p1", "no-uncertainty": "_no_uncertainty", "best-constant": "_best_constant",
    "fit-median": "_fit_median", "fit-mean": "_fit_mean",
}  # fmt: skip
"""The rows of the score table that are logged, and the suffix of their figures' names."""
_FIGURES = {"rows": ("f1", "accuracy", "score"), "intensity_rows": ("icc", "mae")}

_OTHERS = {
    "pairs/accuracy": "pair_accuracy.mean",
    "pairs/accuracy_clear": "pair_accuracy.clear",
    "pairs/nll": "uncertainty.pair_nll.h",
    "pairs/nll_constant": "uncertainty.pair_nll.constant",
    "pairs/ece": "uncertainty.ece",
    "uncertainty/auroc_correct_margin": "uncertainty.auroc_correct.margin",
    "uncertainty/auroc_correct_margin_over_sigma": "uncertainty.auroc_correct.margin_over_sigma",
    "uncertainty/gain_at_80": "uncertainty.gain_at_80.sigma",
    "uncertainty/auroc_own_region": "uncertainty.auroc_own_region.mean",
    "uncertainty/auroc_turned": "uncertainty.auroc_turned.mean",
    "confidence/ece": "decisions.confidence_ece",
    "confidence/brier": "decisions.confidence_brier",
    "confidence/aurc": "decisions.aurc.confidence",
    "confidence/error": "decisions.error",
    "confidence/error_at_80": "decisions.error_at_80.confidence",
}
"""The name of each further metric, and its path in metrics.json."""

_PER_AU = "f1_of_each_au"
_NOT_IN_HEADLINE = ("select/", f"{_PER_AU}/", "validation/f1_best", "validation/accuracy_best", "validation/score_best")


def evaluation_metrics(metrics: Tree) -> dict[str, float]:
    """Return the metrics of the run of evaluate by name, without undefined ones."""
    pairs = [*_figures_of_rows(metrics), *((name, _value_at(metrics, path)) for name, path in _OTHERS.items())]
    return {name: float(value) for name, value in pairs if value is not None and math.isfinite(value)}


def headline_metrics(metrics: Tree) -> dict[str, float]:
    """Return the metrics by which flows are compared: means over AUs on validation, and F1 on select.

    Use `select/f1` to compare settings, since nothing may be chosen on validation.
    """
    numbers = evaluation_metrics(metrics)
    return {
        name: value for name, value in numbers.items() if name == "select/f1" or not name.startswith(_NOT_IN_HEADLINE)
    }


def _figures_of_rows(metrics: Tree) -> Iterator[tuple[str, float | None]]:
    """Yield the name and value of the figures of each row, and P2's F1 of each AU on validation."""
    for key, figures in _FIGURES.items():
        for row in metrics.get(key, ()):
            if row["name"] in _ROWS:
                name = _ROWS[row["name"]]
                yield from ((f"{row['split']}/{figure}{name}", row.get(figure)) for figure in figures)
            if key == "rows" and (row["name"], row["split"]) == ("P2", "validation"):
                yield from ((f"{_PER_AU}/{au}", row["per_au"][au]["f1"]) for au in row["per_au"])


def _value_at(tree: Any, path: str) -> float | None:
    """Return the value at a path such as `a.b.c`; None if it does not exist."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
