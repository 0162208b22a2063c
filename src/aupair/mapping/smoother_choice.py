"""The choice of the smoother's numbers by pair accuracy on fit, where y_hat and sigma are out of fold.

Maximum likelihood, which needs no labels, would choose no noise: errors under a cover last as long as expressions do.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aupair.data.frames import Frames
from aupair.mapping.smoother import TAU, Noise, decay, frame_interval, smooth_lanes, unit_noise, video_median
from aupair.ranking.pairs import draw_pairs

REACHES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""seconds"""
POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
STRETCH = 1000
"""frames of a video that are smoothed together, half a minute or more"""
BUDGET = 40_000
"""frames that the numbers are chosen on"""
PAIRS = 4000
"""pairs of frames for each AU"""
TOLERANCE = 0.001
"""difference of pair accuracy up to which two powers count as equally good"""


@dataclass(frozen=True)
class Choice:
    """The chosen numbers of a smoother and what they were chosen by.

    Attributes:
        noise: the numbers.
        accuracy: (POWERS, REACHES) float64, mean pair accuracy over the AUs; one row if the noise is constant.
    """

    noise: Noise
    accuracy: np.ndarray

    def table(self) -> dict[str, object]:
        """Return the content of smoother.json."""
        chosen = float(self.accuracy[POWERS.index(self.noise.power), REACHES.index(self.noise.reach)])
        edge = self.noise.reach in (REACHES[0], REACHES[-1]) or self.noise.power == POWERS[-1]
        grid = [
            {"power": power, "reach": reach, "pair_accuracy": float(value)}
            for power, row in zip(POWERS, self.accuracy)
            for reach, value in zip(REACHES, row)
        ]
        return {**vars(self.noise), "pair_accuracy": chosen, "at_the_edge_of_the_grid": edge, "grid": grid}


class FitStretches:
    """Stretches of the videos of fit, at most STRETCH frames each and BUDGET together, and pairs of their frames.

    Of every video first comes the stretch in which most AUs show two levels, then the next one, and so on, in an order of
    videos that does not depend on the data. With 12 AUs a choice takes about 4 s of one core, however large the corpus is.

    Args:
        y_hat: (N, A) float32, out of fold on fit.
    """

    def __init__(self, frames: Frames, y_hat: np.ndarray) -> None:
        videos, fit = frames.slices(), frames.of_split("fit")
        medians = {k: video_median(y_hat[s]) for k, s in enumerate(videos) if fit[s].any()}
        self.variance = _variance(frames, y_hat, medians)
        """V: (A,) float64"""
        self._stretches = _select(_cut(frames, list(medians)))
        rows = np.concatenate([np.arange(s.start, s.stop) for s in self._stretches] or [np.zeros(0, np.int64)])
        known = ~np.isnan(y_hat[rows]).any(axis=1)
        self._pairs = draw_pairs(_subset(frames, rows, self._stretches, known), "fit", PAIRS, (0, 16))
        lengths = [s.stop - s.start for s in self._stretches]
        self._frame = np.concatenate([np.arange(n) for n in lengths] or [rows])
        self._lane = np.repeat(np.arange(len(lengths)), lengths)
        centers = [medians[int(frames.video[s.start])] for s in self._stretches]
        self._center = np.array(centers).reshape(len(lengths), y_hat.shape[1])
        self._y = self._pad([y_hat[s] for s in self._stretches]) - self._center
        self._rho = np.nan_to_num(self._pad([decay(frames.time[s], TAU) for s in self._stretches]))
        intervals = [frame_interval(frames.time[videos[int(frames.video[s.start])]]) for s in self._stretches]
        self._interval = np.array(intervals).reshape(-1, 1)

    def _pad(self, parts: list[np.ndarray]) -> np.ndarray:
        """Return (n, K) of each stretch as (T, stretches, K) float64, NaN after its end."""
        out = np.full((max(map(len, parts), default=0), len(parts), parts[0].shape[1] if parts else 1), np.nan)
        for lane, part in enumerate(parts):
            out[: len(part), lane] = part
        return out

    def raw_accuracy(self) -> float:
        """Return the pair accuracy of y_hat itself."""
        return self._accuracy(self._y)

    def choose(self, z: np.ndarray | None) -> Choice:
        """Choose reach and power.

        The power is the smallest one with a reach that comes within TOLERANCE of the best point: along a ridge of the
        grid more power goes with less reach, and where fit has few people the highest point of it is chance.

        Args:
            z: (N, A) float64, standardised log uncertainty; None: the noise is constant, and so is the power, 0.
        """
        powers = POWERS if z is not None else (0.0,)
        own = np.zeros_like(self._y) if z is None else self._pad([z[s] for s in self._stretches])
        accuracy = np.array([self._accuracies(own, power) for power in powers])
        row = int(np.argmax(accuracy.max(axis=1) >= accuracy.max() - TOLERANCE))
        column = int(np.argmax(accuracy[row]))
        return Choice(Noise(REACHES[column], powers[row], tuple(map(float, self.variance))), accuracy)

    def _accuracies(self, z: np.ndarray, power: float) -> list[float]:
        """Return the pair accuracy with each of REACHES."""
        units = np.array([unit_noise(reach, TAU, 1.0) for reach in REACHES])[:, None, None] / self._interval
        shape = np.where(np.isnan(self._y), np.inf, self.variance * np.exp(power * np.nan_to_num(z)))
        noise = units * shape[:, None]
        values, _ = smooth_lanes(np.nan_to_num(self._y)[:, None], noise, self._rho[:, None], self.variance)
        return [self._accuracy(values[:, k]) for k in range(len(REACHES))]

    def _accuracy(self, values: np.ndarray) -> float:
        """Return the share of pairs in the right order, a mean over AUs with a pair: (T, stretches, A) less the medians."""
        pairs = self._pairs
        if not len(pairs):
            return 0.0
        high, low = (values[self._frame[rows], self._lane[rows], pairs.au] for rows in (pairs.i, pairs.j))
        difference = (high - low) * pairs.r
        right = np.bincount(pairs.au, (difference > 0) + 0.5 * (difference == 0))
        number = np.bincount(pairs.au)
        return float((right[number > 0] / number[number > 0]).mean())


def _variance(frames: Frames, y_hat: np.ndarray, medians: dict[int, np.ndarray]) -> np.ndarray:
    """Return the mean square of y_hat less its video's median over the faces of fit, (A,) float64."""
    total, count = np.zeros(y_hat.shape[1]), 0
    for video, rows in enumerate(frames.slices()):
        if video in medians:
            known = y_hat[rows][~np.isnan(y_hat[rows]).any(axis=1)]
            total += ((known - medians[video]) ** 2).sum(axis=0)
            count += len(known)
    return np.maximum(total / max(count, 1), 1e-9)


def _cut(frames: Frames, videos: list[int]) -> list[list[slice]]:
    """Return each video's stretches in which an AU shows two levels, those with most such AUs first.

    They are of about equal length, at most STRETCH frames.
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
    """Return stretches up to BUDGET: the first of every video, then the second of every video, and so on."""
    shuffled = [ranked[k] for k in np.random.default_rng(16).permutation(len(ranked))]
    in_turn = [own[turn] for turn in range(max(map(len, ranked), default=0)) for own in shuffled if turn < len(own)]
    ends = np.cumsum([stretch.stop - stretch.start for stretch in in_turn])
    return in_turn[: int(np.searchsorted(ends, BUDGET)) + 1]


def _subset(frames: Frames, rows: np.ndarray, stretches: list[slice], known: np.ndarray) -> Frames:
    """Return the frames of the stretches, each as a video of its own; only those with a known y_hat have a face."""
    video = np.repeat(np.arange(len(stretches), dtype=np.int32), [s.stop - s.start for s in stretches])
    columns = {key: getattr(frames, key)[rows] for key in ("subject", "split", "frame", "time", "labels")}
    columns["ok"] = frames.ok[rows] & known
    return Frames(frames.aus, tuple(map(str, range(len(stretches)))), frames.subjects, video, **columns)
