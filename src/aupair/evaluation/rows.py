"""The rows of the score table, for both targets: constant guesses and the three ways to decide, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import SPLITS
from aupair.evaluation import metrics
from aupair.evaluation.bootstrap import draw_resamples, paired_difference, percentile_interval
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import Cells, Choice
from aupair.params import Evaluate

SCORED_SPLITS = SPLITS[1:]
"""the splits that get rows: select and validation"""
OURS = ("no-uncertainty", "P1", "P2")
"""the rows: no AU uses uncertainty, all AUs do, or those for which it helps"""


@dataclass(frozen=True)
class _Candidate:
    """A row that is not scored yet, on the n annotated frames of a split.

    Attributes:
        chosen_on: the split on which its choices were made; None for a row without a choice.
        output: (n, A) float.
        thresholds: (A,) float, active where output >= threshold.
    """

    chosen_on: str | None
    output: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True)
class _Target:
    """The parts of a target's rows; its sums are `Counts` of decisions or `LevelSums`.

    Attributes:
        constants: constant guesses (A,) by name, from the annotated frames of fit.
        add_up: returns the sums of a candidate for each person.
        means: figures over all AUs from sums, (...,) each; they get an interval.
        each_au: figures of each AU from sums, (..., A) each; they get an interval.
        without_interval: more figures of each AU, (A,) each, from the total of a candidate.
        compared: pairs of rows; figures: the means by which they are compared.
    """

    constants: Callable[[Cells], dict[str, np.ndarray]]
    add_up: Callable[[_Candidate, Cells], Any]
    means: Callable[[Any], dict[str, np.ndarray]]
    each_au: Callable[[Any], dict[str, np.ndarray]]
    without_interval: Callable[[Any, _Candidate, Cells], dict[str, np.ndarray]]
    compared: tuple[tuple[str, str], ...]
    figures: tuple[str, ...]


def score_rows(
    target: str, cells: dict[str, Cells], raws: tuple[np.ndarray, np.ndarray], choice: Choice, params: Evaluate
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a target's rows of select and validation, and the comparisons of some of them.

    All rows of a split use the same resamples, so that their differences have intervals of their own. A comparison has
    name (`P2-P1.score`), split, a, b, figure, difference (a minus b), interval and probability (a is higher).

    Args:
        target: occurrence, or intensity.
        cells: the annotated frames of each split.
        raws: outputs without and with uncertainty, each (N, A), filled over frames without a face.
        choice: thresholds and mappings.
    """
    parts = _TARGETS[target]
    rows, comparisons = [], []
    for split in SCORED_SPLITS:
        own = cells[split]
        weights = draw_resamples(len(np.unique(own.person)), params.bootstrap, (params.seed, SPLITS.index(split)))
        totals, draws = {}, {}
        for name, candidate in _candidates(parts, cells["fit"], own, raws, choice).items():
            sums = parts.add_up(candidate, own)
            totals[name], draws[name] = parts.means(sums.total()), parts.means(sums.weighted(weights))
            row: dict[str, Any] = {"name": name, "split": split, "chosen_on": candidate.chosen_on}
            row |= {key: float(value) for key, value in totals[name].items()}
            row["intervals"] = {key: percentile_interval(values) for key, values in draws[name].items()}
            columns = parts.without_interval(sums.total(), candidate, own)
            row |= {key: metrics.macro(values) for key, values in columns.items() if key in _MEANS_OF_COLUMNS}
            rows.append(row | {"per_au": _each_au(parts, own.aus, sums, weights, columns)})
        for a, b in parts.compared:
            for key in parts.figures:
                about = {"name": f"{a}-{b}.{key}", "split": split, "a": a, "b": b, "figure": key}
                pair = (draws[a][key], draws[b][key])
                comparisons.append(about | paired_difference(totals[a][key], totals[b][key], pair))
    return rows, comparisons


def _candidates(
    parts: _Target, fit: Cells, own: Cells, raws: tuple[np.ndarray, np.ndarray], choice: Choice
) -> dict[str, _Candidate]:
    """Return the rows by name: constants, and all ways to use the two mappings."""
    shape = own.truth.shape
    rows = {}
    for name, guess in parts.constants(fit).items():
        output = np.broadcast_to(guess.astype(np.float64), shape)
        chosen = None if name.startswith("all-") else "fit"
        rows[name] = _Candidate(chosen, output, np.full(shape[1], 0.5))
    nowhere = np.zeros(shape[1], bool)
    for name, uses in zip(OURS, (nowhere, ~nowhere, choice.uses_uncertainty)):
        output = np.where(uses, raws[1][own.rows], raws[0][own.rows])
        rows[name] = _Candidate(choice.chosen_on, output, choice.chosen_thresholds(uses))
    return rows


def _each_au(
    parts: _Target, aus: Sequence[str], sums: Any, weights: np.ndarray, columns: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Return AU -> figure -> value, with intervals from resamples by weights (B, P) for the figures in `each_au`."""
    trees: dict[str, dict[str, Any]] = {key: metrics.by_au(values, aus) for key, values in columns.items()}
    draws = parts.each_au(sums.weighted(weights))
    for key, values in parts.each_au(sums.total()).items():
        trees[key] = metrics.by_au(values, aus)
        trees[f"{key}_interval"] = {au: percentile_interval(own) for au, own in zip(trees[key], draws[key].T)}
    return {au: {key: tree[au] for key, tree in trees.items()} for au in aus}


def constant_decisions(truth: np.ndarray, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Return constant guesses, (A,) bool each: all inactive, all active, the better one for each AU.

    On rare AUs they score high, so every table shows them. The better one has the higher 1/2 (F1 + accuracy) on the labelled
    cells of `fit`, truth and counted (n, A) bool; inactive on a tie, or without a label.
    """
    one_person = np.zeros(len(truth), int)
    guesses = [np.full(truth.shape[1], guess) for guess in (False, True)]
    counts = [metrics.count_decisions(np.broadcast_to(g, truth.shape), truth, one_person, counted) for g in guesses]
    scores = [metrics.au_score(part.total()) for part in counts]
    return {"all-zero": guesses[0], "all-one": guesses[1], "best-constant": scores[1] > scores[0]}


def _constant_levels(level: np.ndarray, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Return constant guesses, (A,) float64 each: 0, the level of `fit` with the smallest MAE, the mean level.

    Args:
        level: (n, A) int.
        counted: (n, A) bool; an AU without a label has the guess 0.
    """
    columns = [own[use] if use.any() else np.zeros(1) for own, use in zip(level.T, counted.T)]
    return {
        "all-zero": np.zeros(level.shape[1]),
        "fit-median": np.array([np.quantile(own, 0.5, method="inverted_cdf") for own in columns], np.float64),
        "fit-mean": np.array([own.mean() for own in columns]),
    }


_MEANS_OF_COLUMNS = ("balanced_accuracy", "average_precision")
"""the figures without an interval whose mean over AUs is part of the row"""
_LEVEL_FIGURES = {"icc": metrics.icc, "mae": metrics.mae, "mae_rounded": metrics.mae_rounded, "pcc": metrics.pcc}


def _decision_columns(total: Counts, row: _Candidate, cells: Cells) -> dict[str, np.ndarray]:
    """Return the figures of each AU's decisions that have no interval, (A,) each."""
    columns = zip(row.output.T, cells.truth.T, cells.counted.T)
    return {
        "accuracy": metrics.accuracy(total),
        "balanced_accuracy": metrics.balanced_accuracy(total),
        "average_precision": np.array([metrics.average_precision(x[use], y[use]) for x, y, use in columns]),
        "positives": metrics.positives(total),
    }


_TARGETS = {
    "occurrence": _Target(
        constants=lambda fit: constant_decisions(fit.truth, fit.counted),
        add_up=lambda row, cells: metrics.count_decisions(
            row.output >= row.thresholds, cells.truth, cells.person, cells.counted
        ),
        means=metrics.challenge_figures,
        each_au=lambda counts: {"f1": metrics.f1(counts)},
        without_interval=_decision_columns,
        compared=(("P2", "P1"), ("P2", "no-uncertainty"), ("P1", "no-uncertainty"), ("P2", "best-constant")),
        figures=("score", "f1"),
    ),
    "intensity": _Target(
        constants=lambda fit: _constant_levels(fit.level, fit.counted),
        add_up=lambda row, cells: metrics.sum_levels(row.output, cells.level, cells.person, cells.counted),
        means=lambda sums: {name: metrics.mean_over_aus(figure(sums)) for name, figure in _LEVEL_FIGURES.items()},
        each_au=lambda sums: {name: figure(sums) for name, figure in _LEVEL_FIGURES.items()},
        without_interval=lambda *_: {},
        compared=(("P2", "P1"), ("P2", "no-uncertainty"), ("P1", "no-uncertainty"), ("P2", "fit-mean")),
        figures=("icc",),
    ),
}
