"""The rows of the table: constant guesses and the three ways to decide, each with intervals over videos."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from aupair.aus import AUS, SPLITS
from aupair.evaluation.baselines import constants
from aupair.evaluation.metrics import (
    HEADLINE,
    Counts,
    accuracy,
    average_precision,
    balanced_accuracy,
    count,
    f1,
    headline,
    interval,
    macro,
    paired,
    resamples,
)
from aupair.evaluation.selection import Cells, Choice
from aupair.params import Evaluate

JUDGED = SPLITS[1:]
"""The splits that get rows."""
OURS = ("no-uncertainty", "P1", "P2")
"""All AUs without uncertainty; all with it; as chosen for each AU."""
COMPARED = (("P2", "P1"), ("P2", "no-uncertainty"), ("P1", "no-uncertainty"), ("P2", "best-constant"))


def judge(
    cells: dict[str, Cells], raws: tuple[np.ndarray, np.ndarray], choice: Choice, chosen_on: str, params: Evaluate
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Give the rows of select and validation, and how far some of them are above others.

    All rows of a split are resampled alike, so that their differences have intervals of their own.

    Args:
        cells: the annotated frames of each split.
        raws: outputs without and with uncertainty, each (N, A), filled over frames without a face.
        choice: thresholds and variants.
        chosen_on: the split that they were chosen on.
    """
    rows, comparisons = [], []
    for split in JUDGED:
        own = cells[split]
        weights = resamples(len(np.unique(own.video)), params.bootstrap, (params.seed, SPLITS.index(split)))
        counted = {}
        for name, decisions, score in _candidates(cells["fit"], own, raws, choice):
            counted[name] = count(decisions, own.truth, own.video)
            marks = {"name": name, "split": split, "chosen_on": _chosen_on(name, chosen_on)}
            rows.append(marks | _row(counted[name], weights, score, own.truth))
        comparisons += _compare(counted, weights, split)
    return rows, comparisons


def _candidates(
    fit: Cells, own: Cells, raws: tuple[np.ndarray, np.ndarray], choice: Choice
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Give name, decisions (n, A) bool and scores to rank by (n, A) of every row."""
    for name, guess in constants(fit.truth).items():
        decisions = np.broadcast_to(guess, own.truth.shape)
        yield name, decisions, decisions.astype(np.float64)
    none = np.zeros(len(AUS), bool)
    for name, uses in zip(OURS, (none, ~none, choice.uses_uncertainty)):
        raw = np.where(uses, raws[1][own.rows], raws[0][own.rows])
        yield name, raw >= choice.chosen_thresholds(uses), raw


def _row(counts: Counts, weights: np.ndarray, score: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Give the figures of one row; counts per video, weights (B, V), score and truth (n, A)."""
    total = counts.total()
    drawn = headline(counts.weighted(weights))
    of_aus = f1(counts.weighted(weights))
    balanced = balanced_accuracy(total)
    precision = np.array([average_precision(score[:, au], truth[:, au]) for au in range(len(AUS))])
    columns = {
        "f1": f1(total),
        "accuracy": accuracy(total),
        "balanced_accuracy": balanced,
        "average_precision": precision,
        "positives": truth.mean(0),
    }
    return {
        **{name: float(value) for name, value in headline(total).items()},
        "balanced_accuracy": macro(balanced),
        "average_precision": macro(precision),
        "intervals": {name: interval(drawn[name]) for name in HEADLINE},
        "per_au": {
            au: {key: float(values[index]) for key, values in columns.items()}
            | {"f1_interval": interval(of_aus[:, index])}
            for index, au in enumerate(AUS)
        },
    }


def _compare(counted: dict[str, Counts], weights: np.ndarray, split: str) -> list[dict[str, Any]]:
    """Give `comparisons` of a split: score and mean F1 of one row less those of another, see `metrics.paired`.

    Each has name (`P2-P1.score`), split, a, b, figure, difference (a less b), interval and probability (a is better).
    """
    totals = {name: headline(counts.total()) for name, counts in counted.items()}
    drawn = {name: headline(counts.weighted(weights)) for name, counts in counted.items()}
    return [
        {"name": f"{a}-{b}.{figure}", "split": split, "a": a, "b": b, "figure": figure}
        | paired(totals[a][figure], totals[b][figure], (drawn[a][figure], drawn[b][figure]))
        for a, b in COMPARED
        for figure in ("score", "f1")
    ]


def _chosen_on(name: str, chosen_on: str) -> str | None:
    """On which split the row's choices were made; None for a row without a choice."""
    if name in OURS:
        return chosen_on
    return "fit" if name == "best-constant" else None
