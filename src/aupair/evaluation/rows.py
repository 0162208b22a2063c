"""The rows of the score table, for both targets: constant guesses, a row for each route, P1 and P2, with intervals.

On the split on which thresholds and mappings were chosen, intervals treat them as fixed. On the other split they are chosen
again in each resample, from resampled people of the first split, so that intervals include the variation of the choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aupair.aus import SPLITS
from aupair.evaluation import metrics
from aupair.evaluation.bootstrap import DIGITS, draw_resamples, paired_difference, percentile_interval
from aupair.evaluation.choice import Choice
from aupair.evaluation.counting import count_in_resamples
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import RAW, Cells
from aupair.params import Evaluate

SCORED_SPLITS = SPLITS[1:]
"""the splits that get rows: select and validation"""
ROUTE_ROWS = {
    RAW: "no-uncertainty",
    "constant": "constant-noise",
    "columns": "uncertainty-columns",
    "sigma": "sigma",
    "quality": "quality",
    "both": "both",
}
"""route -> the name of its row; the route that decides with uncertainty has the row P1"""
_BY_SIGMA = ("columns", "sigma", "both")
"""the routes that need h"""
CONSTANTS = ("all-zero", "all-one", "best-constant", "fit-median", "fit-mean")
"""the rows of constant guesses, which do not use the video"""


@dataclass(frozen=True)
class _Candidate:
    """A row that is not scored yet, on the n annotated frames of a split.

    Attributes:
        chosen_on: the split on which its choices were made; None for a row without a choice.
        output: (n, A) float.
        thresholds: (A,) float, active where output >= threshold.
        route: the route of the output; None for a constant, P2 for the choice between two routes.
    """

    chosen_on: str | None
    output: np.ndarray
    thresholds: np.ndarray
    route: str | None = None


@dataclass(frozen=True)
class _Target:
    """The parts of a target's rows; its sums are `Counts` of decisions or `LevelSums`.

    Attributes:
        constants: constant guesses (A,) by name, from the annotated frames of fit.
        add_up: returns the sums of a candidate for each person.
        add_up_resampled: returns the sums of each route, and of P2, in resamples in which all is chosen again.
        means: figures over all AUs from sums, (...,) each; they get an interval.
        each_au: figures of each AU from sums, (..., A) each; they get an interval.
        without_interval: more figures of each AU, (A,) each, from the total of a candidate.
        baseline: the constant that P2 is compared with.
        figures: the means by which rows are compared.
    """

    constants: Callable[[Cells], dict[str, np.ndarray]]
    add_up: Callable[[_Candidate, Cells], Any]
    add_up_resampled: Callable[[Mapping[str, np.ndarray], Cells, np.ndarray, Choice], Mapping[str, Any]]
    means: Callable[[Any], dict[str, np.ndarray]]
    each_au: Callable[[Any], dict[str, np.ndarray]]
    without_interval: Callable[[Any, _Candidate, Cells], dict[str, np.ndarray]]
    baseline: str
    figures: tuple[str, ...]


class ScoredRows(NamedTuple):
    """The rows of a target.

    Attributes:
        rows: those of select and validation, as metrics.json has them.
        comparisons: the differences of some of them: name (`P2-P1.score`), split, a, b, figure, difference (a minus b),
            interval and probability (a is higher).
        people: of each row of validation, `counts`, for each person the numbers of its sums, and `draws`, the first
            of the target's figures in each resample.
    """

    rows: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    people: dict[str, dict[str, Any]]


def score_rows(
    target: str, cells: dict[str, Cells], raws: Mapping[str, np.ndarray], choice: Choice, params: Evaluate
) -> ScoredRows:
    """Return a target's rows of select and validation, and the comparisons of some of them.

    All rows of a split use the same resamples, so that differences between rows have intervals, too.

    Args:
        target: occurrence, or intensity.
        cells: the annotated frames of each split.
        raws: outputs of each route, (N, A), filled over frames without a face.
        choice: thresholds and mappings.
    """
    parts = _TARGETS[target]
    scored = ScoredRows([], [], {})
    for split in SCORED_SPLITS:
        own = cells[split]
        weights = draw_resamples(own.people, params.bootstrap, (params.seed, SPLITS.index(split)))
        resampled = {} if split == choice.chosen_on else parts.add_up_resampled(raws, own, weights, choice)
        totals, draws = {}, {}
        for name, candidate in _candidates(parts, cells["fit"], own, raws, choice).items():
            sums = parts.add_up(candidate, own)
            drawn = resampled.get(candidate.route or "") or sums.weighted(weights)
            totals[name], draws[name] = parts.means(sums.total()), parts.means(drawn)
            row: dict[str, Any] = {"name": name, "split": split, "chosen_on": candidate.chosen_on}
            row |= {key: float(value) for key, value in totals[name].items()}
            row["intervals"] = {key: percentile_interval(values) for key, values in draws[name].items()}
            columns = parts.without_interval(sums.total(), candidate, own)
            row |= {key: metrics.macro(values) for key, values in columns.items() if key in _MEANS_OF_COLUMNS}
            scored.rows.append(row | {"per_au": _each_au(parts, own.aus, sums, drawn, columns)})
            if split == "validation":
                scored.people[name] = _of_people(sums, draws[name][parts.figures[0]])
        for a, b in _compared_rows(parts, totals):
            for key in parts.figures:
                about = {"name": f"{a}-{b}.{key}", "split": split, "a": a, "b": b, "figure": key}
                pair = (draws[a][key], draws[b][key])
                scored.comparisons.append(about | paired_difference(totals[a][key], totals[b][key], pair))
    return scored


def route_rows(routes: Sequence[str], with_route: str) -> dict[str, str]:
    """Return the route of each row that one route decides, P1 the last."""
    return {ROUTE_ROWS[route]: route for route in ROUTE_ROWS if route in routes and route != with_route} | {
        ROUTE_ROWS[RAW]: RAW,
        "P1": with_route,
    }


def parts_of_row(name: str, with_route: str) -> tuple[str, ...]:
    """Return the parts of the recognizer that a row needs: some of f, h and mapping."""
    if name in CONSTANTS:
        return ()
    route = {row: route for route, row in ROUTE_ROWS.items()}.get(name, with_route)
    return ("f", "h", "mapping") if route in _BY_SIGMA else ("f", "mapping")


def _candidates(
    parts: _Target, fit: Cells, own: Cells, raws: Mapping[str, np.ndarray], choice: Choice
) -> dict[str, _Candidate]:
    """Return the rows by name: constants, a row for each route, and P2."""
    shape = own.truth.shape
    rows = {}
    for name, guess in parts.constants(fit).items():
        output = np.broadcast_to(guess.astype(np.float64), shape)
        chosen = None if name.startswith("all-") else "fit"
        rows[name] = _Candidate(chosen, output, np.full(shape[1], 0.5))
    for name, route in route_rows(list(raws), choice.with_route).items():
        rows[name] = _Candidate(choice.chosen_on, raws[route][own.rows], choice.thresholds[route], route)
    uses = choice.uses_uncertainty
    output = np.where(uses, raws[choice.with_route][own.rows], raws[RAW][own.rows])
    rows["P2"] = _Candidate(choice.chosen_on, output, choice.chosen_thresholds(uses), "P2")
    return rows


def _compared_rows(parts: _Target, names: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of existing rows that are compared."""
    with_uncertainty = [("P1", ROUTE_ROWS[route]) for route in ROUTE_ROWS]
    pairs = [*with_uncertainty, ("P2", "P1"), ("P2", ROUTE_ROWS[RAW]), ("P2", parts.baseline)]
    return [(a, b) for a, b in pairs if b in names]


def _each_au(
    parts: _Target, aus: Sequence[str], sums: Any, drawn: Any, columns: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Return AU -> figure -> value, with intervals from the sums in resamples for the figures in `each_au`."""
    trees: dict[str, dict[str, Any]] = {key: metrics.by_au(values, aus) for key, values in columns.items()}
    draws = parts.each_au(drawn)
    for key, values in parts.each_au(sums.total()).items():
        trees[key] = metrics.by_au(values, aus)
        trees[f"{key}_interval"] = {au: percentile_interval(own) for au, own in zip(trees[key], draws[key].T)}
    return {au: {key: tree[au] for key, tree in trees.items()} for au in aus}


def _of_people(sums: Any, draws: np.ndarray) -> dict[str, Any]:
    """Return the sums of each person, flattened over AUs, and a figure in each resample."""
    first: np.ndarray = next(iter(vars(sums).values()))
    return {"counts": first.reshape(len(first), -1).tolist(), "draws": np.round(draws, DIGITS).tolist()}


def constant_decisions(truth: np.ndarray, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Return constant guesses, (A,) bool each: all inactive, all active, and the better of both for each AU.

    Every table shows these baselines, since they score high on rare AUs. The better guess has the higher 1/2 (F1 + accuracy)
    on the labelled cells of `fit`, truth and counted (n, A) bool; it is inactive on a tie, or without a label.
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


def _sum_in_resamples(
    raws: Mapping[str, np.ndarray], cells: Cells, weights: np.ndarray, choice: Choice
) -> dict[str, metrics.LevelSums]:
    """Return the sums of the levels of each route, and of P2, in resamples in which the mappings are chosen again."""
    sums = {
        route: metrics.sum_levels(raw[cells.rows], cells.level, cells.person, cells.counted).weighted(weights)
        for route, raw in raws.items()
    }
    uses = choice.resampled.uses_uncertainty[..., None]
    sums["P2"] = metrics.LevelSums(np.where(uses, sums[choice.with_route].values, sums[RAW].values))
    return sums


_TARGETS = {
    "occurrence": _Target(
        constants=lambda fit: constant_decisions(fit.truth, fit.counted),
        add_up=lambda row, cells: metrics.count_decisions(
            row.output >= row.thresholds, cells.truth, cells.person, cells.counted
        ),
        add_up_resampled=count_in_resamples,
        means=metrics.challenge_figures,
        each_au=lambda counts: {"f1": metrics.f1(counts)},
        without_interval=_decision_columns,
        baseline="best-constant",
        figures=("f1", "score"),
    ),
    "intensity": _Target(
        constants=lambda fit: _constant_levels(fit.level, fit.counted),
        add_up=lambda row, cells: metrics.sum_levels(row.output, cells.level, cells.person, cells.counted),
        add_up_resampled=_sum_in_resamples,
        means=lambda sums: {name: metrics.mean_over_aus(figure(sums)) for name, figure in _LEVEL_FIGURES.items()},
        each_au=lambda sums: {name: figure(sums) for name, figure in _LEVEL_FIGURES.items()},
        without_interval=lambda *_: {},
        baseline="fit-mean",
        figures=("icc",),
    ),
}
