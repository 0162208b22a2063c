"""How well levels 0..5 are met: ICC(3,1), MAE and PCC, from sums per video so that a bootstrap never walks frames again.

An output is the mapping's, clamped to 0..5 and not rounded. A frame without a face has that of the nearest frame of its
video that has one; in a video without any face every output is 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.data.levels import TOP
from aupair.evaluation.metrics import by_au, interval, macro, paired, resamples
from aupair.params import Evaluate

NOTHING = 1e-10
"""a variance below this share of the mean square is the rounding of a constant's"""


@dataclass(frozen=True)
class Sums:
    """How outputs met levels; the leading axes of `values` are videos, resamples, or nothing.

    Attributes:
        values: (..., A, 8) float64, sums over frames of 1, x, y, x^2, y^2, xy, |x - y| and |round(x) - y|, with the
            output x and the level y.
    """

    values: np.ndarray

    def weighted(self, weights: np.ndarray) -> "Sums":
        """Sum over videos with weights (..., V): how often each video was drawn."""
        return Sums(np.tensordot(weights, self.values, 1))

    def total(self) -> "Sums":
        """Sum over videos."""
        return Sums(self.values.sum(0))


def clamp(raw: np.ndarray) -> np.ndarray:
    """Give the intensity that raw outputs say, 0..5, unrounded; NaN stays NaN."""
    return np.clip(raw, 0, TOP)


def add_up(raw: np.ndarray, level: np.ndarray, video: np.ndarray) -> Sums:
    """Add up per video.

    Args:
        raw: (n, A) float, clamped here; NaN (a video without a face) is 0.
        level: (n, A) int, 0..5.
        video: (n,) int, any numbers; V of them are different.

    Returns:
        Sums with the leading axis V, in the order of the numbers.
    """
    names, index = np.unique(video, return_inverse=True)
    per_au = []
    for x, y in zip(np.nan_to_num(clamp(raw)).astype(np.float64).T, level.astype(np.float64).T):
        off, off_rounded = np.abs(x - y), np.abs(np.floor(x + 0.5) - y)
        terms = (np.ones_like(x), x, y, x * x, y * y, x * y, off, off_rounded)
        per_au.append(np.stack([np.bincount(index, term, len(names)) for term in terms], axis=1))
    return Sums(np.stack(per_au, axis=1))


def icc(sums: Sums) -> np.ndarray:
    """ICC(3,1) = (BMS - EMS) / (BMS + EMS): (..., A), -1..1; NaN where BMS + EMS = 0.

    Two judges, the output x and the level y, grade n frames. With centred sums BMS = (Sxx + Syy + 2 Sxy) / (2 (n - 1))
    between frames and EMS = (Sxx + Syy - 2 Sxy) / (2 (n - 1)): a judge's own offset is not counted, his own scale is.
    """
    sxx, syy, sxy = _centred(sums)
    bms, ems = sxx + syy + 2 * sxy, sxx + syy - 2 * sxy  # the common factor cancels
    return _ratio(bms - ems, bms + ems)


def pcc(sums: Sums) -> np.ndarray:
    """Pearson's correlation: (..., A), -1..1; NaN where the output or the level is constant."""
    sxx, syy, sxy = _centred(sums)
    return _ratio(sxy, np.sqrt(sxx * syy))


def mae(sums: Sums) -> np.ndarray:
    """The mean |output - level|: (..., A), 0..5."""
    return sums.values[..., 6] / sums.values[..., 0]


def mae_rounded(sums: Sums) -> np.ndarray:
    """The mean |rounded output - level|: (..., A), 0..5."""
    return sums.values[..., 7] / sums.values[..., 0]


COMPARED = (("P2", "P1"), ("P2", "no-uncertainty"), ("P1", "no-uncertainty"), ("P2", "fit-mean"))
FIGURES: dict[str, Callable[[Sums], np.ndarray]] = {"icc": icc, "mae": mae, "mae_rounded": mae_rounded, "pcc": pcc}


def constants(level: np.ndarray) -> dict[str, np.ndarray]:
    """Constant guesses from fit's levels (n, A): nothing, the level with the smallest MAE, the mean; (A,) each."""
    return {
        "all-zero": np.zeros(level.shape[1]),
        "fit-median": np.quantile(level, 0.5, axis=0, method="inverted_cdf").astype(np.float64),
        "fit-mean": level.mean(0),
    }


def judge(
    frames: Frames, raws: tuple[np.ndarray, np.ndarray], uses: np.ndarray, chosen_on: str, params: Evaluate
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Give the rows of select and validation, and how far the ICC of some of them is above that of others.

    All rows of a split are resampled alike, and as those of occurrence.

    Args:
        raws: outputs without and with uncertainty, each (N, A), filled over frames without a face.
        uses: (A,) bool, the AU is decided with uncertainty.
        chosen_on: the split that they were chosen on.
    """
    rows, comparisons = [], []
    fit = frames.labels[_annotated(frames, "fit")]
    for split in SPLITS[1:]:
        own = _annotated(frames, split)
        level, video = frames.labels[own], frames.video[own]
        weights = resamples(len(np.unique(video)), params.bootstrap, (params.seed, SPLITS.index(split)))
        added = {}
        for name, marked, output in _candidates(fit, own, raws, uses, chosen_on):
            added[name] = add_up(output, level, video)
            marks = {"name": name, "split": split, "chosen_on": marked}
            rows.append(marks | _row(added[name], weights))
        comparisons += _compare(added, weights, split)
    return rows, comparisons


def _annotated(frames: Frames, split: str) -> np.ndarray:
    """The rows of a split's annotated frames, those without a face included."""
    return np.flatnonzero(frames.of_split(split) & (frames.labels[:, 0] >= 0))


def _candidates(
    fit: np.ndarray, own: np.ndarray, raws: tuple[np.ndarray, np.ndarray], uses: np.ndarray, chosen_on: str
) -> Iterator[tuple[str, str | None, np.ndarray]]:
    """Give of every row its name, where it was chosen, and its outputs (n, A)."""
    for name, guess in constants(fit).items():
        yield name, None if name == "all-zero" else "fit", np.broadcast_to(guess, (len(own), len(guess)))
    none = np.zeros(len(uses), bool)
    for name, with_uncertainty in (("no-uncertainty", none), ("P1", ~none), ("P2", uses)):
        yield name, chosen_on, np.where(with_uncertainty, raws[1][own], raws[0][own])


def _row(sums: Sums, weights: np.ndarray) -> dict[str, Any]:
    """Give the figures of one row, means over the AUs that have a value; sums per video, weights (B, V)."""
    total, drawn = sums.total(), sums.weighted(weights)
    means: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    columns: dict[str, dict[str, Any]] = {}
    for name, figure in FIGURES.items():
        values, draws = figure(total), figure(drawn)
        means[name] = macro(values)
        intervals[name] = _interval(_mean(draws))
        columns[name] = by_au(values)
        columns[f"{name}_interval"] = {au: _interval(own) for au, own in zip(columns[name], draws.T)}
    per_au = {au: {name: column[au] for name, column in columns.items()} for au in columns["icc"]}
    return {**means, "intervals": intervals, "per_au": per_au}


def _compare(added: dict[str, Sums], weights: np.ndarray, split: str) -> list[dict[str, Any]]:
    """Give comparisons of a split, like those of `rows`: the mean ICC of one row less that of another."""
    totals = {name: np.array(macro(icc(sums.total()))) for name, sums in added.items()}
    drawn = {name: np.nan_to_num(_mean(icc(sums.weighted(weights)))) for name, sums in added.items()}
    return [
        {"name": f"{a}-{b}.icc", "split": split, "a": a, "b": b, "figure": "icc"}
        | paired(totals[a], totals[b], (drawn[a], drawn[b]))
        for a, b in COMPARED
    ]


def _mean(draws: np.ndarray) -> np.ndarray:
    """The means (B,) over the AUs that have a value, of (B, A); NaN where none has."""
    known = np.isfinite(draws)
    return _ratio(np.where(known, draws, 0).sum(-1), known.sum(-1))


def _interval(values: np.ndarray) -> list[float]:
    """The interval of the bootstrap values (B,) that are defined; NaN twice where none is."""
    known = values[np.isfinite(values)]
    return interval(known) if len(known) else [float("nan")] * 2


def _centred(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sxx, Syy, Sxy, each (..., A): sums of squares and products of the distances from the means."""
    n, x, y, xx, yy, xy = np.moveaxis(sums.values[..., :6], -1, 0)
    sxx, syy = xx - x * x / n, yy - y * y / n
    sxx, syy = np.where(sxx > NOTHING * xx, sxx, 0.0), np.where(syy > NOTHING * yy, syy, 0.0)
    return sxx, syy, np.where((sxx > 0) & (syy > 0), xy - x * y / n, 0.0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
