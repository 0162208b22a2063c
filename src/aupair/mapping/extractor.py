"""G: what the video says about a frame (paper: section 3.3; columns and deviations in docs/method.md).

For each frame and AU: its own y' and certainty, the distribution over the video (or all clips of the person), over
windows around the frame, and the values some seconds before and after. Columns of the group `plain` need no
uncertainty: P2 reads those alone, P1 all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.histogram import histogram_2020
from aupair.params import ExtractFeatures

CDF_POINTS = 201
BINS = 16
"""a window's percentiles are taken over bins of 1/16 of its length: O(n), and no frame rate in them"""


@dataclass(frozen=True)
class Statistics:
    """What G takes from the fit split (out of fold), per AU.

    Attributes:
        y_min, y_max: (A,) float32, range of y_hat.
        sigma_max: (A,) float32.
        log_sigma: (A, CDF_POINTS) float32, quantiles of log sigma at 0..1.
    """

    y_min: np.ndarray
    y_max: np.ndarray
    sigma_max: np.ndarray
    log_sigma: np.ndarray

    @classmethod
    def of(cls, y_hat: np.ndarray, sigma: np.ndarray) -> "Statistics":
        """Take them from the fit frames with a face: y_hat, sigma (n, A).

        Raises:
            ArtifactError: there is no such frame.
        """
        if len(y_hat) == 0:
            raise ArtifactError(
                "no frame of fit has a face", todo="look at the statuses that preprocess-faces reported"
            )
        quantiles = np.quantile(np.log(sigma.astype(np.float64)), np.linspace(0, 1, CDF_POINTS), axis=0).T
        return cls(*(a.astype(np.float32) for a in (y_hat.min(0), y_hat.max(0), sigma.max(0), quantiles)))

    def save(self, path: Path) -> None:
        """Write them as safetensors."""
        store.write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote."""
        return cls(**store.read_arrays(path))

    def scaled(self, y_hat: np.ndarray) -> np.ndarray:
        """y' = 2 (y_hat - min) / (max - min) - 1: (n, A) -> (n, A) float64, in [-1, 1] on fit (# authors)."""
        span = np.maximum(self.y_max - self.y_min, 1e-6).astype(np.float64)
        return 2 * (y_hat - self.y_min) / span - 1

    def certainty(self, sigma: np.ndarray, kind: str) -> np.ndarray:
        """conf in 0..1: (n, A) -> (n, A) float64; NaN where sigma is.

        `quantile` is 1 - CDF_fit(log sigma) (# ours: one outlier cannot push all others to 1),
        `min_max` is clamp(1 - sigma / sigma_max, 0, 1) (# authors).
        """
        if kind == "min_max":
            return np.clip(1 - sigma.astype(np.float64) / self.sigma_max, 0, 1)
        grid = np.linspace(0, 1, CDF_POINTS)
        log_sigma = np.log(sigma.astype(np.float64))
        ranks = [np.interp(log_sigma[:, a], _increasing(q), grid) for a, q in enumerate(self.log_sigma)]
        return 1 - np.stack(ranks, axis=1)


def _increasing(quantiles: np.ndarray) -> np.ndarray:
    """Make quantiles strictly increasing, so that a constant sigma has a rank too."""
    return quantiles.astype(np.float64) + np.arange(len(quantiles)) * 1e-9


class Values(NamedTuple):
    """y' and certainty of n frames with a face, (n, A) float64 each."""

    y: np.ndarray
    c: np.ndarray


def columns(params: ExtractFeatures) -> list[tuple[str, str]]:
    """Name G's columns: (name, group), the group `plain` or `uncertainty`."""
    none = Values(np.zeros((0, 1)), np.zeros((0, 1)))
    return [(name, group) for name, group, _ in _columns(none, none, np.zeros(0), params)]


def extract(
    y_hat: np.ndarray,
    sigma: np.ndarray,
    time: np.ndarray,
    statistics: Statistics,
    params: ExtractFeatures,
    pool: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute G for the frames of one video.

    Args:
        y_hat, sigma: (n, A), NaN where there is no face.
        time: (n,) seconds, increasing.
        pool: y_hat and sigma (m, A) of all frames with a face of the person, this video's among them, over which
            percentiles, rank and histogram are taken; without it the video's own. Its order does not matter.

    Returns:
        (n, A, F) float32, NaN rows where there is no face. F and its order: `columns(params)`.
    """
    known = ~np.isnan(y_hat[:, 0])
    out = np.full((*y_hat.shape, len(columns(params))), np.nan, np.float32)
    if known.any():
        own, whole = (
            Values(statistics.scaled(y), statistics.certainty(s, params.certainty))
            for y, s in ((y_hat[known], sigma[known]), (y_hat[known], sigma[known]) if pool is None else pool)
        )
        for k, (_, _, values) in enumerate(_columns(own, whole, time[known].astype(np.float64), params)):
            out[:, :, k][known] = values
    return out


def _columns(
    own: Values, pool: Values, time: np.ndarray, params: ExtractFeatures
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Give every column of the frames with a face: name, group, values (n, A)."""
    if params.kind == "histogram":
        for name, values in histogram_2020(own.y, pool.y, params.neutral):
            yield name, "plain", values
        return
    yield "own.y", "plain", own.y
    yield "own.rank", "plain", _rank(own.y, pool.y)
    yield "own.certainty", "uncertainty", own.c
    for name, group, row in _neutral(pool, params):
        yield name, group, np.broadcast_to(row, own.y.shape)
    for length in params.windows:
        yield from _window(own.y, own.c, time, length, params.window_percentiles)
    yield from _context(own.y, own.c, time, params)


def _rank(y: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """The share of the pool's values that lie below one's own, ties half: (n, A), (m, A) -> (n, A)."""
    ordered = np.sort(pool, axis=0)
    below = [
        (np.searchsorted(ordered[:, a], y[:, a], "left") + np.searchsorted(ordered[:, a], y[:, a], "right")) / 2
        for a in range(y.shape[1])
    ]
    return np.stack(below, axis=1) / max(len(pool), 1)


def _neutral(pool: Values, params: ExtractFeatures) -> Iterator[tuple[str, str, np.ndarray]]:
    """Percentiles of y' over the pool, then over the frames that reach each certainty, and their share (# authors).

    An empty set takes the percentiles of the next lower threshold and the share 0. Rows (A,), named after the pool.
    """
    y, c = pool
    base = np.percentile(y, params.percentiles, axis=0) if len(y) else np.zeros((len(params.percentiles), y.shape[1]))
    for p, row in zip(params.percentiles, base):
        yield f"{params.neutral}.p{p:g}", "plain", row
    for threshold in params.thresholds:
        sure = c >= threshold
        some = sure.any(axis=0) if len(y) else np.zeros(y.shape[1], bool)
        if some.any():
            selected = np.nanpercentile(np.where(sure | ~some, y, np.nan), params.percentiles, axis=0)
            base = np.where(some, selected, base)
        for p, row in zip(params.percentiles, base):
            yield f"{params.neutral}.sure{threshold:g}.p{p:g}", "uncertainty", row
        share = sure.mean(axis=0) if len(y) else np.zeros(y.shape[1])
        yield f"{params.neutral}.sure{threshold:g}.share", "uncertainty", share


def _window(
    y: np.ndarray, c: np.ndarray, time: np.ndarray, length: float, percentiles: tuple[float, ...]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Mean, standard deviation and percentiles over the frames within length / 2, plain and weighted by certainty.

    # ours: the paper's text speaks of variance and distribution in windows of a few seconds, its code has neither.
    """
    weight = c + 1e-3  # a window of which nothing is sure is weighed evenly
    low = np.searchsorted(time, time - length / 2 - 1e-9)
    high = np.searchsorted(time, time + length / 2 + 1e-9, "right")
    for group, w in (("plain", np.ones_like(y)), ("uncertainty", weight)):
        total, first, second = (_between(a, low, high) for a in (w, w * y, w * y * y))
        mean = first / total
        yield f"window{length:g}.{group}.mean", group, mean
        yield f"window{length:g}.{group}.sd", group, np.sqrt(np.maximum(second / total - mean**2, 0))
        for p, values in zip(percentiles, _window_percentiles(y, w, time, length, percentiles)):
            yield f"window{length:g}.{group}.p{p:g}", group, values
    yield f"window{length:g}.certainty", "uncertainty", _between(c, low, high) / (high - low)[:, None]


def _between(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Sum values[low:high] for each row by one cumulative sum."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return sums[high] - sums[low]


def _window_percentiles(
    y: np.ndarray, w: np.ndarray, time: np.ndarray, length: float, percentiles: tuple[float, ...]
) -> list[np.ndarray]:
    """Weighted percentiles of the means of the bins around a frame's own, BINS / 2 each way.

    The percentile p is the smallest bin mean up to which p % of the window's weight lies.
    """
    if len(y) == 0:
        return [y for _ in percentiles]
    bin_of = np.floor((time - time[0]) / (length / BINS) + 1e-9).astype(np.int64)
    bins, start = np.unique(bin_of, return_index=True)  # bins without a frame are not there
    weight = np.add.reduceat(w, start, axis=0)
    mean = np.add.reduceat(w * y, start, axis=0) / weight
    offsets = np.arange(-(BINS // 2), BINS // 2 + 1)
    wanted = bins[:, None] + offsets
    index = np.searchsorted(bins, wanted).clip(max=len(bins) - 1)
    there = (bins[index] == wanted)[..., None]
    window_weight = np.where(there, weight[index], 0.0)
    window_mean = np.where(there, mean[index], np.inf)
    order = np.argsort(window_mean, axis=1, kind="stable")
    ordered = np.take_along_axis(window_mean, order, axis=1)
    reach = np.cumsum(np.take_along_axis(window_weight, order, axis=1), axis=1)
    inverse = np.searchsorted(bins, bin_of)
    result = []
    for p in percentiles:
        at = (reach < p / 100 * reach[:, -1:] * (1 - 1e-12)).sum(axis=1, keepdims=True)
        result.append(np.take_along_axis(ordered, at, axis=1)[:, 0][inverse])
    return result


def _context(
    y: np.ndarray, c: np.ndarray, time: np.ndarray, params: ExtractFeatures
) -> Iterator[tuple[str, str, np.ndarray]]:
    """y' and certainty k steps before and after, gaps and ends filled outward from the frame itself (# authors).

    Only frames with a face are rows here, so that the last row not after t + k step is that fill, likewise before.
    """
    step = params.context / max(params.context_points, 1)
    for k in range(1, params.context_points + 1):
        after = np.searchsorted(time, time + k * step + 1e-9, "right") - 1
        before = np.searchsorted(time, time - k * step - 1e-9)
        for name, index in ((f"+{k * step:g}s", after), (f"-{k * step:g}s", before)):
            yield f"context{name}.y", "plain", y[index]
            yield f"context{name}.certainty", "uncertainty", c[index]
