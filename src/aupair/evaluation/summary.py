"""The main figures of an evaluation (summary.json), with which DVC compares experiments; metrics.json has all figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from aupair import store
from aupair.errors import ArtifactError

Tree = Mapping[str, Any]

_ROWS = {"P2": "", "P1": "_p1", "no-uncertainty": "_no_uncertainty"}
"""The rows of the score table in the summary, and the suffix of their figures' names; P2 is how the model decides."""
_FIGURES = {"rows": ("f1", "accuracy", "score"), "intensity_rows": ("icc", "mae")}
"""The figures of a row, by the list of rows in metrics.json."""
_COVERAGE = 0.8
"""The requested coverage of the summary's figures of abstention."""
_NEEDED = ("rows", "frames", "pair_accuracy", "uncertainty", "decisions", "chosen_on", "route")
"""The entries that metrics.json must have."""


def summarise(metrics: Tree) -> dict[str, float | None]:
    """Return the main figures of metrics.json under plain names, all on validation except for `f1_select`.

    Returns:
        f1, accuracy, score: those of P2, by which the model decides; `_p1`: with uncertainty for all AUs;
            `_no_uncertainty`: without it. For intensities icc and mae, too.
        f1_select: mean F1 of P2 on select; use it to compare settings, since nothing may be chosen on validation.
        pair_accuracy: the share of pairs of frames in the right order.
        pair_nll, pair_nll_constant: with sigma of h, and with the best constant sigma; lower is better.
        pair_ece, confidence_ece: calibration errors of P(the order is right) and of a decision's confidence.
        coverage_at_80, error_at_80: the share of decisions that `predict --coverage .8` keeps, and of wrong ones in it.
    """
    summary = dict(_figures_of_rows(metrics))
    (p2_select,) = (row for row in metrics["rows"] if (row["name"], row["split"]) == ("P2", "select"))
    (abstention,) = (row for row in metrics["decisions"]["abstention"] if round(row["asked"], 6) == _COVERAGE)
    uncertainty = metrics["uncertainty"]
    return summary | {
        "f1_select": p2_select["f1"],
        "pair_accuracy": metrics["pair_accuracy"]["mean"],
        "pair_nll": uncertainty["pair_nll"]["h"],
        "pair_nll_constant": uncertainty["pair_nll"]["constant"],
        "pair_ece": uncertainty["ece"],
        "confidence_ece": metrics["decisions"]["confidence_ece"],
        "coverage_at_80": abstention["coverage"],
        "error_at_80": abstention["error"],
    }


def _figures_of_rows(metrics: Tree) -> Iterator[tuple[str, float | None]]:
    """Yield the name and value of the figures of each row on validation, those of P2 first."""
    for key, figures in _FIGURES.items():
        rows = {row["name"]: row for row in metrics.get(key, ()) if row["split"] == "validation"}
        for name, suffix in _ROWS.items():
            if name in rows:
                yield from ((f"{figure}{suffix}", rows[name][figure]) for figure in figures)


_Figure = float | None


class _Row(store.Artifact):
    """A row of scores on one split; a figure is None where it is undefined."""

    name: str
    split: str
    f1: _Figure
    accuracy: _Figure
    score: _Figure
    per_au: dict[str, dict[str, Any]]


class _IntensityRow(store.Artifact):
    """A row of scores of intensities."""

    name: str
    split: str
    icc: _Figure
    mae: _Figure
    pcc: _Figure


class _Scores(store.Artifact):
    """The rows of scores in metrics.json."""

    rows: Annotated[tuple[_Row, ...], Field(min_length=1)]
    intensity_rows: tuple[_IntensityRow, ...] = ()


def read_scores(path: Path) -> dict[str, Any]:
    """Read metrics.json, and check only its rows of scores.

    Raises:
        ArtifactError: it is missing, is not JSON, or has no rows of scores.
    """
    store.read_record(path, _Scores)
    return dict(store.read_json(path))


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json.

    Raises:
        ArtifactError: it is missing, is not JSON, or is of an older version and lacks figures.
    """
    tree = store.read_json(path)
    missing = [name for name in _NEEDED if name not in tree] if isinstance(tree, dict) else _NEEDED
    if missing:
        got, todo = f"no {', '.join(missing)}", "run evaluate again"
        raise ArtifactError("not the metrics of this version of aupair", where=path, got=got, todo=todo)
    return read_scores(path)
