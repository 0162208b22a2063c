"""The choice of the smoother's parameters by R² with the labels of fit, where y_hat and sigma are out of fold.

R² is the squared correlation between an AU's level and its smoothed deviation from the median of the video, over the frames
of all videos: the fraction of the level's variance that one linear function explains for all people. Pair accuracy is not
suitable, since it does not measure what smoothing costs: it ignores amplitudes, which decisions compare between videos, and
few pairs lie at the onset of an expression (docs/log/2026-11-30-smoother-by-r-squared.md). Maximum likelihood is not
suitable either, since errors under an occlusion last as long as expressions, so that it would choose no noise.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.mapping.smoother import TAU, Noise, decay, frame_interval, smooth_lanes, unit_noise, video_median

REACHES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""grid of `Noise.reach`, seconds"""
POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""grid of `Noise.power`"""
STRETCH = 1000
"""maximum number of frames of a stretch, half a minute or more"""
BUDGET = 40_000
"""number of frames on which the parameters are chosen"""


@dataclass(frozen=True)
class Choice:
    """The chosen parameters of a smoother, with the results of the grid search.

    Attributes:
        noise: the parameters.
        r_squared: (POWERS, REACHES) float64, mean R² over the AUs; one row if the noise is constant.
    """

    noise: Noise
    r_squared: np.ndarray

    def table(self) -> dict[str, object]:
        """Return the entry of smoother.json for a route."""
        edge = self.noise.reach in (REACHES[0], REACHES[-1]) or self.noise.power == POWERS[-1]
        grid = [
            {"power": power, "reach": reach, "r_squared": float(value)}
            for power, row in zip(POWERS, self.r_squared)
            for reach, value in zip(REACHES, row)
        ]
        chosen = float(self.r_squared.max())
        return {**vars(self.noise), "r_squared": chosen, "at_the_edge_of_the_grid": edge, "grid": grid}


class FitStretches:
    """Stretches of the videos of fit, each of at most STRETCH frames, about BUDGET frames in total.

    They are selected in rounds: first the stretch of every video in which most AUs have two levels, then the next one of
    every video, and so on. The order of the videos is random and does not depend on the data. With 12 AUs a choice takes
    about 4 s on one core, whatever the size of the corpus.

    Args:
        y_hat: (N, A) float32, out of fold on fit.
    """

    def __init__(self, frames: Frames, y_hat: np.ndarray) -> None:
        videos, fit = frames.slices(), frames.of_split("fit")
        medians = {k: video_median(y_hat[s]) for k, s in enumerate(videos) if fit[s].any()}
        self.variance = _variance(frames, y_hat, medians)
        """(A,) float64, V of the smoother"""
        self._stretches = _select(_cut(frames, list(medians)))
        centers = [medians[int(frames.video[s.start])] for s in self._stretches]
        center = np.array(centers).reshape(len(centers), y_hat.shape[1])
        self._y = self._pad([y_hat[s] for s in self._stretches]) - center
        level = self._pad([_known_levels(frames, s) for s in self._stretches])
        self._counted = np.isfinite(level) & np.isfinite(self._y)
        self._level = self._standardise(level)
        self._rho = np.nan_to_num(self._pad([decay(frames.time[s], TAU) for s in self._stretches]))
        intervals = [frame_interval(frames.time[videos[int(frames.video[s.start])]]) for s in self._stretches]
        self._interval = np.array(intervals).reshape(-1, 1)

    def _pad(self, parts: list[np.ndarray]) -> np.ndarray:
        """Stack the arrays (n, K) of all stretches as (T, stretches, K) float64, padded with NaN."""
        out = np.full((max(map(len, parts), default=0), len(parts), parts[0].shape[1] if parts else 1), np.nan)
        for lane, part in enumerate(parts):
            out[: len(part), lane] = part
        return out

    def raw_r_squared(self) -> float:
        """Return R² of y_hat without smoothing."""
        return self._r_squared(self._y)

    def choose(self, z: np.ndarray | None) -> Choice:
        """Choose the power and the reach with the highest R², among equal ones those that smooth least.

        Args:
            z: (N, A) float64, standardised log uncertainty; None: constant noise, with a power of 0.
        """
        powers = POWERS if z is not None else (0.0,)
        own = np.zeros_like(self._y) if z is None else self._pad([z[s] for s in self._stretches])
        r_squared = np.array([self._smooth_and_measure(own, power) for power in powers])
        row, column = np.unravel_index(np.argmax(r_squared), r_squared.shape)
        return Choice(Noise(REACHES[column], powers[row], tuple(map(float, self.variance))), r_squared)

    def _smooth_and_measure(self, z: np.ndarray, power: float) -> list[float]:
        """Return R² of the smoothed values for each of REACHES."""
        units = np.array([unit_noise(reach, TAU, 1.0) for reach in REACHES])[:, None, None] / self._interval
        shape = np.where(np.isnan(self._y), np.inf, self.variance * np.exp(power * np.nan_to_num(z)))
        noise = units * shape[:, None]
        values, _ = smooth_lanes(np.nan_to_num(self._y)[:, None], noise, self._rho[:, None], self.variance)
        return [self._r_squared(values[:, k]) for k in range(len(REACHES))]

    def _r_squared(self, values: np.ndarray) -> float:
        """Return the mean over AUs with two levels of the squared correlation of y - mu, (T, stretches, A), and the level."""
        varied = self._level.any(axis=(0, 1))
        correlation = (self._standardise(values) * self._level).sum(axis=(0, 1))[varied]
        return float((correlation**2).mean()) if varied.any() else 0.0

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        """Scale values (T, stretches, A) to mean 0 and sum of squares 1 over the counted cells of each AU; 0 elsewhere."""
        number = np.maximum(self._counted.sum(axis=(0, 1)), 1)
        mean = np.where(self._counted, values, 0.0).sum(axis=(0, 1)) / number
        deviation = np.where(self._counted, values - mean, 0.0)
        size = np.sqrt((deviation**2).sum(axis=(0, 1)))
        return deviation / np.where(size > 1e-9, size, np.inf)


def _known_levels(frames: Frames, rows: slice) -> np.ndarray:
    """Return the levels of a stretch, (n, A) float64; NaN without a label and in a frame that is not usable."""
    known = frames.usable[rows, None] & (frames.labels[rows] != NOT_ANNOTATED)
    return np.where(known, frames.labels[rows].astype(np.float64), np.nan)


def _variance(frames: Frames, y_hat: np.ndarray, medians: dict[int, np.ndarray]) -> np.ndarray:
    """Return the mean square of y_hat minus the median of its video over the faces of fit, (A,) float64."""
    total, count = np.zeros(y_hat.shape[1]), 0
    for video, rows in enumerate(frames.slices()):
        if video in medians:
            known = y_hat[rows][~np.isnan(y_hat[rows]).any(axis=1)]
            total += ((known - medians[video]) ** 2).sum(axis=0)
            count += len(known)
    return np.maximum(total / max(count, 1), 1e-9)


def _cut(frames: Frames, videos: list[int]) -> list[list[slice]]:
    """Cut each video into stretches of about equal length, at most STRETCH frames.

    Returns:
        For each video, the stretches in which some AU has two levels, sorted by the number of such AUs, largest first.
    """
    slices, usable, labels = frames.slices(), frames.usable, frames.labels

    def count_contrasts(rows: slice) -> int:
        own = labels[rows][usable[rows]]
        return int((own.max(axis=0, initial=-1) > np.where(own < 0, 127, own).min(axis=0, initial=127)).sum())

    ranked = []
    for rows in (slices[video] for video in videos):
        edges = np.linspace(rows.start, rows.stop, -(-(rows.stop - rows.start) // STRETCH) + 1).astype(int)
        stretches = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        counts = [count_contrasts(stretch) for stretch in stretches]
        ranked.append([stretches[k] for k in np.argsort(counts, kind="stable")[::-1] if counts[k]])
    return ranked


def _select(ranked: list[list[slice]]) -> list[slice]:
    """Select stretches in rounds, the first of every video, then the second of every video ..., until BUDGET is reached."""
    shuffled = [ranked[k] for k in np.random.default_rng(16).permutation(len(ranked))]
    in_order = [own[turn] for turn in range(max(map(len, ranked), default=0)) for own in shuffled if turn < len(own)]
    ends = np.cumsum([stretch.stop - stretch.start for stretch in in_order])
    return in_order[: int(np.searchsorted(ends, BUDGET)) + 1]
