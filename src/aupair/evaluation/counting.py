"""Counts of decisions in resamples of the people, each with its own choice of thresholds and mappings."""

from collections.abc import Mapping

import numpy as np

from aupair.evaluation.choice import Choice
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import RAW, Cells


def count_in_resamples(
    raws: Mapping[str, np.ndarray], cells: Cells, weights: np.ndarray, choice: Choice
) -> dict[str, Counts]:
    """Count the decisions of each route, and of P2, in every resample, with the choices of that resample.

    Args:
        raws: outputs of each route, (N, A), filled over frames without a face.
        cells: the frames that are counted, of P people.
        weights: (B, P) int, how often each person was drawn.
        choice: the choices in B resamples of the people of another split.

    Returns:
        Counts with the leading axis B.
    """
    resampled, complete = choice.resampled, cells.complete
    outputs = {route: raw[cells.rows] for route, raw in raws.items()}
    exact = _count_exact(outputs, cells, weights, choice)
    frames = weights @ np.bincount(cells.index[complete], minlength=cells.people)
    counts = {}
    for route, output in outputs.items():
        thresholds = resampled.thresholds[route]
        labelled = all_labelled = _count_cells(output, cells, cells.counted, thresholds, weights)
        if not complete.all():
            all_labelled = _count_cells(output, cells, cells.counted & complete[:, None], thresholds, weights)
        counts[route] = Counts(labelled, all_labelled, exact[route], frames)
    sides = counts[choice.with_route], counts[RAW]
    uses = resampled.uses_uncertainty[..., None]
    labelled, all_labelled = (
        np.where(uses, *(getattr(side, name) for side in sides)) for name in ("cells", "complete")
    )
    return {**counts, "P2": Counts(labelled, all_labelled, exact["P2"], frames)}


def _count_cells(
    output: np.ndarray, cells: Cells, counted: np.ndarray, thresholds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return tp, fp, fn, tn of each AU in B resamples, each with its own thresholds (B, A): (B, A, 4) int64."""
    columns = []
    for au, own in enumerate(thresholds.T):
        sides = []
        for truth in (True, False):
            rows = counted[:, au] & (cells.truth[:, au] == truth)
            reached, number = _count_reached(output[rows, au], cells.index[rows], own, cells.people)
            active = np.einsum("bp,bp->b", weights, reached)
            sides += [active, weights @ number - active]
        columns.append(np.stack([sides[0], sides[2], sides[1], sides[3]], axis=1))
    return np.stack(columns, axis=1)


def _count_reached(
    output: np.ndarray, index: np.ndarray, thresholds: np.ndarray, people: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count each person's outputs at or above each threshold, (B, P), and all outputs, (P,); NaN is below all thresholds."""
    order = np.lexsort((output, index))
    edges = np.searchsorted(index[order], np.arange(people + 1))
    reached = np.empty((len(thresholds), people), np.int64)
    for k in range(people):
        own = output[order[edges[k] : edges[k + 1]]]
        known = len(own) - int(np.isnan(own).sum())  # NaN is sorted last
        reached[:, k] = known - np.searchsorted(own[:known], thresholds, "left")
    return reached, np.diff(edges)


def _count_exact(
    outputs: Mapping[str, np.ndarray], cells: Cells, weights: np.ndarray, choice: Choice
) -> dict[str, np.ndarray]:
    """Count the complete frames in which all AUs are right, in every resample: (B,) int64 of each route and of P2."""
    resampled, complete = choice.resampled, cells.complete
    columns = {route: np.ascontiguousarray(output[complete].T) for route, output in outputs.items()}
    truth, index = np.ascontiguousarray(cells.truth[complete].T), cells.index[complete]
    exact = {name: np.zeros(len(weights), np.int64) for name in (*outputs, "P2")}
    for draw, own in enumerate(weights):
        right = {
            route: (output >= resampled.thresholds[route][draw][:, None]) == truth for route, output in columns.items()
        }
        uses = resampled.uses_uncertainty[draw][:, None]
        right["P2"] = np.where(uses, right[choice.with_route], right[RAW])
        for name, cells_right in right.items():
            exact[name][draw] = own @ np.bincount(index[cells_right.all(axis=0)], minlength=cells.people)
    return exact
