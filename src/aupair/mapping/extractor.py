"""The features of a frame, which relate it to its video. G is the paper's name for this step (section 3.3).

y' is y_hat, which is standardised when f is trained, scaled to -1..1 on the fit split; the certainty c is 1 for the
smallest sigma and 0 for the largest (`Statistics`). The features of a frame and AU are its own y' and c; their distribution
over the whole video (or all clips of the person); their distribution over windows of some seconds around the frame; and
their values some seconds before and after it. Each feature is a named column (`columns`); docs/method.md lists them and
their deviations from the paper. Columns of the group `plain` are computed from y' only; those of the group `uncertainty`
also use c. The mapping without uncertainty reads the `plain` columns, the mapping with uncertainty reads all columns.
`kind: histogram` computes the authors' features of 2020 instead, a baseline without uncertainty.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.histogram import histogram_columns
from aupair.mapping.windows import WindowSums, assign_bins, binned_percentiles
from aupair.params import DistributionFeatures, ExtractFeatures

Arrays = tuple[np.ndarray, np.ndarray]

GROUPS = ("plain", "uncertainty")
CDF_POINTS = 201
PIECE = 512
"""number of frames whose features are computed at once, few enough for the processor's cache"""


@dataclass(frozen=True)
class Statistics:
    """Statistics of y_hat and sigma on the fit split: G uses them to scale y_hat and to turn sigma into a certainty.

    They are computed from out-of-fold values: each frame is scored by networks that were not trained on its person.

    Attributes:
        y_min, y_max: (A,) float32, the lowest and highest y_hat of each AU.
        sigma_max: (A,) float32, the highest sigma of each AU.
        log_sigma: (A, CDF_POINTS) float32, quantiles of log sigma at evenly spaced probabilities from 0 to 1.
    """

    y_min: np.ndarray
    y_max: np.ndarray
    sigma_max: np.ndarray
    log_sigma: np.ndarray

    @classmethod
    def from_fit_frames(cls, y_hat: np.ndarray, sigma: np.ndarray) -> "Statistics":
        """Compute the statistics.

        Args:
            y_hat, sigma: (n, A) float, of the fit frames that have a face.

        Raises:
            ArtifactError: n is 0.
        """
        if len(y_hat) == 0:
            raise ArtifactError(
                "no frame of fit has a face", todo="look at the statuses that preprocess-faces reported"
            )
        quantiles = np.quantile(np.log(sigma.astype(np.float64)), np.linspace(0, 1, CDF_POINTS), axis=0).T
        return cls(*(a.astype(np.float32) for a in (y_hat.min(0), y_hat.max(0), sigma.max(0), quantiles)))

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors."""
        store.write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read statistics that `save` has written."""
        return cls(**store.read_arrays(path))

    def scale(self, y_hat: np.ndarray) -> np.ndarray:
        """Return y' = 2 (y_hat - min) / (max - min) - 1: (n, A) -> (n, A) float64, in [-1, 1] on fit (# authors)."""
        span = np.maximum(self.y_max - self.y_min, 1e-6).astype(np.float64)
        return 2 * (y_hat - self.y_min) / span - 1

    def certainty(self, sigma: np.ndarray, kind: str) -> np.ndarray:
        """Return the certainty of sigma, 0..1: (n, A) -> (n, A) float64; NaN where sigma is NaN.

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
    """Return the quantiles made strictly increasing, so that a constant sigma has a rank too."""
    return quantiles.astype(np.float64) + np.arange(len(quantiles)) * 1e-9


class Values(NamedTuple):
    """y' and certainty of n frames with a face, (n, A) float64 each."""

    y: np.ndarray
    c: np.ndarray


def columns(params: ExtractFeatures) -> list[tuple[str, str]]:
    """Return the name and the group of each column, `plain` or `uncertainty`."""
    no_frames = Values(np.zeros((0, 1)), np.zeros((0, 1)))
    empty = _FaceFrames(no_frames, no_frames, np.zeros(0), params)
    return [(name, group) for name, group, _ in _columns(empty, slice(0, 0))]


def pool_clips(clips: Iterable[Arrays]) -> Arrays:
    """Return y_hat and sigma, (m, A) each, of all frames with a face in a person's clips, (n, A) each."""
    parts = [(y_hat[ok], sigma[ok]) for y_hat, sigma in clips for ok in [~np.isnan(y_hat[:, 0])]]
    y_hat, sigma = (np.concatenate(part) for part in zip(*parts))
    return y_hat, sigma


class VideoFeatures:
    """The computation of the features of one video's frames.

    Values that depend on the whole video are computed once, in the constructor; they take about 300 bytes for each frame.

    Args:
        y_hat, sigma: (n, A), NaN where there is no face.
        time: (n,) seconds, increasing.
        pool: y_hat and sigma (m, A) of all frames with a face in all clips of the person, this video included, in any
            order. Percentiles, rank and histogram are computed over them; None: over this video alone.
    """

    def __init__(
        self,
        y_hat: np.ndarray,
        sigma: np.ndarray,
        time: np.ndarray,
        statistics: Statistics,
        params: ExtractFeatures,
        pool: Arrays | None = None,
    ) -> None:
        self._has_face = ~np.isnan(y_hat[:, 0])
        self.shape = (*y_hat.shape, len(columns(params)))
        """(n, A, F)"""
        self._scratch = np.empty((PIECE, *self.shape[1:]), np.float32)

        certainty = "quantile" if params.kind == "histogram" else params.certainty

        def scale(y: np.ndarray, s: np.ndarray) -> Values:
            return Values(statistics.scale(y), statistics.certainty(s, certainty))

        own = scale(y_hat[self._has_face], sigma[self._has_face])
        pooled = own if pool is None else scale(*pool)
        self._face_frames = _FaceFrames(own, pooled, time[self._has_face].astype(np.float64), params)

    def features(self, rows: slice = slice(None), out: np.ndarray | None = None) -> np.ndarray:
        """Return the features of some frames, or of all frames.

        The features of a frame do not depend on which other rows are asked for. Calls are quickest when each continues
        where the last one ended.

        Args:
            out: the array to write to; reusing one is quicker than allocating a new one.

        Returns:
            (rows, A, F) float32, NaN in frames without a face; the F columns are those of `columns(params)`.
        """
        first, end, _ = rows.indices(self.shape[0])
        if out is None:
            out = np.empty((end - first, *self.shape[1:]), np.float32)
        for start in range(first, end, PIECE):
            stop = min(start + PIECE, end)
            self._write(out[start - first : stop - first], start, stop)
        return out

    def _write(self, out: np.ndarray, start: int, stop: int) -> None:
        """Write the features of frames start to stop to `out`."""
        has_face = self._has_face[start:stop]
        first, count = int(np.count_nonzero(self._has_face[:start])), int(np.count_nonzero(has_face))
        features = out if count == len(has_face) else self._scratch[:count]
        if count:
            for k, (_, _, values) in enumerate(_columns(self._face_frames, slice(first, first + count))):
                features[:, :, k] = values
        if count < len(has_face):
            out[~has_face] = np.nan
            out[has_face] = features


class _FaceFrames:
    """The n frames of a video that have a face, with the values that columns share over all of them.

    Args:
        own: y' and certainty of these frames.
        pool: y' and certainty of the frames that percentiles, rank and histogram are computed over.
        time: (n,) seconds.
    """

    def __init__(self, own: Values, pool: Values, time: np.ndarray, params: ExtractFeatures) -> None:
        self.own, self.time, self.params = own, time, params
        if params.kind == "histogram":
            self.shared = [(name, "plain", row) for name, row in histogram_columns(pool.y, params.neutral)]
            return
        self.rank = _rank(own.y, pool.y)
        self.shared = list(_pool_percentiles(pool, params))
        self.sums = WindowSums(*own)
        self.bins = [assign_bins(time, length) for length in params.windows]

    def before(self, rows: slice, seconds: np.ndarray) -> np.ndarray:
        """Return the first frame at or after each row's time minus `seconds` (k,): (k, m) int64."""
        return self._search(self.time[rows] - seconds[:, None] - 1e-9, "left")

    def after(self, rows: slice, seconds: np.ndarray) -> np.ndarray:
        """Return the first frame after each row's time plus `seconds` (k,), or n: (k, m) int64."""
        return self._search(self.time[rows] + seconds[:, None] + 1e-9, "right")

    def _search(self, moments: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        """Search `self.time` for moments (k, m), only in the range that contains them, which fits into the cache."""
        if not moments.size:
            return np.zeros(moments.shape, np.int64)
        low, high = np.searchsorted(self.time, [moments[:, 0].min(), moments[:, -1].max()], side)
        return low + np.searchsorted(self.time[low:high], moments, side)


def _columns(frames: _FaceFrames, rows: slice) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield every column of some frames with a face: name, group, values (rows, A), or (A,) if all rows share them."""
    y, c = (values[rows] for values in frames.own)
    yield "own.y", "plain", y
    if frames.params.kind == "distribution":
        yield "own.rank", "plain", frames.rank[rows]
        yield "own.certainty", "uncertainty", c
    yield from frames.shared
    if frames.params.kind == "distribution":
        yield from _windows(frames, frames.params, rows)
        yield from _context(frames, frames.params, rows)


def _rank(y: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Return the share of the pool's values below each value, equal ones counted half: (n, A), (m, A) -> (n, A) float32."""
    out = np.empty(y.shape, np.float32)
    for au in range(y.shape[1]):
        values, counts = np.unique(pool[:, au], return_counts=True)
        below = np.concatenate([[0], np.cumsum(counts)])
        at = np.searchsorted(values, y[:, au])
        tied = values.take(at, mode="clip") == y[:, au]
        out[:, au] = (below[at] + below[at + tied]) / 2 / max(len(pool), 1)
    return out


def _pool_percentiles(pool: Values, params: DistributionFeatures) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield percentiles of y' over the pool, which contains the person's neutral face (# authors).

    First come the percentiles over all frames; then, for each threshold, those over the frames of at least that certainty,
    and the share of these frames. If there are none, the percentiles are those of the next lower threshold, and the share
    is 0. Each column is (A,).
    """
    y, c = pool
    base = np.percentile(y, params.percentiles, axis=0) if len(y) else np.zeros((len(params.percentiles), y.shape[1]))
    for p, row in zip(params.percentiles, base):
        yield f"{params.neutral}.p{p:g}", "plain", row
    for threshold in params.thresholds:
        certain = c >= threshold
        some = certain.any(axis=0) if len(y) else np.zeros(y.shape[1], bool)
        if some.any():
            selected = np.nanpercentile(np.where(certain | ~some, y, np.nan), params.percentiles, axis=0)
            base = np.where(some, selected, base)
        for p, row in zip(params.percentiles, base):
            yield f"{params.neutral}.sure{threshold:g}.p{p:g}", "uncertainty", row
        share = certain.mean(axis=0) if len(y) else np.zeros(y.shape[1])
        yield f"{params.neutral}.sure{threshold:g}.share", "uncertainty", share


def _windows(frames: _FaceFrames, params: DistributionFeatures, rows: slice) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield mean, standard deviation and percentiles over the frames within length / 2, plain and weighted by certainty.

    Ours: the paper describes variance and distribution in windows of a few seconds; the authors' code has neither.
    """
    half = np.array(params.windows) / 2
    low, high = frames.before(rows, half), frames.after(rows, half)
    if low.size:
        frames.sums.prepare(int(low.min()), int(high.max()))
    for k, length in enumerate(params.windows):
        y, y_y, w, w_y, w_y_y, c = frames.sums.between(low[k], high[k])
        number = (high[k] - low[k])[:, None]
        ranked = binned_percentiles(*frames.own, frames.bins[k], rows, params.window_percentiles)
        for group, own, total, first, second in zip(GROUPS, ranked, (number, w), (y, w_y), (y_y, w_y_y)):
            mean = first / total
            yield f"window{length:g}.{group}.mean", group, mean
            yield f"window{length:g}.{group}.sd", group, np.sqrt(np.maximum(second / total - mean**2, 0))
            for p, values in zip(params.window_percentiles, own):
                yield f"window{length:g}.{group}.p{p:g}", group, values
        yield f"window{length:g}.certainty", "uncertainty", c / number


def _context(frames: _FaceFrames, params: DistributionFeatures, rows: slice) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield y' and certainty at evenly spaced times before and after each frame (# authors).

    The value at t + k is that of the last frame with a face up to t + k, the value at t - k that of the first one from
    t - k on. Gaps without a face, and the times beyond both ends of the video, thus repeat the nearest value on the frame's side.
    """
    step = params.context / max(params.context_points, 1)
    seconds = np.arange(1, params.context_points + 1) * step
    after, before = frames.after(rows, seconds) - 1, frames.before(rows, seconds)
    for k, away in enumerate(seconds):
        for name, index in ((f"+{away:g}s", after[k]), (f"-{away:g}s", before[k])):
            yield f"context{name}.y", "plain", frames.own.y[index]
            yield f"context{name}.certainty", "uncertainty", frames.own.c[index]
