"""The features that relate a frame to its video; G is the paper's name for this step (section 3.3).

y' is y_hat, or smoothed y_hat, scaled to -1..1 on the split fit. The certainty c is 1 for the smallest sigma and 0 for the
largest (`Statistics`). The features of a frame and AU are its y' and c; their distribution over the whole video (or all
clips of the person); their distribution over windows of a few seconds around the frame; and their values some seconds before
and after it. Each feature is a named column (`columns`); docs/method.md lists them and their deviations from the paper.
Columns of the group `plain` are computed from y' alone. Those of the group `uncertainty` also use c, and exist only if sigma
is given. `kind: histogram` computes the authors' features of 2020 instead, a baseline without uncertainty.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from aupair.mapping.histogram import histogram_columns
from aupair.mapping.statistics import Statistics
from aupair.mapping.windows import WindowSums, assign_bins, binned_percentiles
from aupair.params import DistributionFeatures, ExtractFeatures

PIECE = 512
"""number of frames whose features are computed at once, so that intermediate arrays fit into the processor's cache"""


class Values(NamedTuple):
    """Values of n frames with a face.

    Attributes:
        y: (n, A) float64, y'.
        c: (n, A) float64, certainty; None for no columns of uncertainty.
    """

    y: np.ndarray
    c: np.ndarray | None


class Scores(NamedTuple):
    """Values of n frames before they are scaled.

    Attributes:
        y: (n, A) float, y_hat or smoothed y_hat, NaN for frames without a face.
        sigma: (n, A) float; None for no columns of uncertainty.
    """

    y: np.ndarray
    sigma: np.ndarray | None


def columns(params: ExtractFeatures, uncertainty: bool) -> list[tuple[str, str]]:
    """Return the name and the group of each column, `plain` or `uncertainty`.

    Args:
        uncertainty: whether there are columns of uncertainty.
    """
    no_frames = Values(np.zeros((0, 1)), np.zeros((0, 1)) if uncertainty else None)
    empty = _FaceFrames(no_frames, no_frames, np.zeros(0), params)
    return [(name, group) for name, group, _ in _columns(empty, slice(0, 0))]


def pool_clips(clips: Iterable[Scores]) -> Scores:
    """Concatenate the values of all frames with a face in a person's clips, (m, A)."""
    parts = [(clip, ~np.isnan(clip.y[:, 0])) for clip in clips]
    sigma = [clip.sigma[ok] for clip, ok in parts if clip.sigma is not None]
    return Scores(np.concatenate([clip.y[ok] for clip, ok in parts]), np.concatenate(sigma) if sigma else None)


class VideoFeatures:
    """The computation of the features of one video's frames.

    Values that depend on the whole video are computed once, in the constructor; they take about 300 bytes per frame.

    Args:
        scores: the values of the n frames.
        time: (n,) seconds, increasing.
        pool: the values of all frames with a face in all clips of the person, including this video, in any order, over
            which percentiles, rank and histogram are computed; None: this video alone.
    """

    def __init__(
        self,
        scores: Scores,
        time: np.ndarray,
        statistics: Statistics,
        params: ExtractFeatures,
        pool: Scores | None = None,
    ) -> None:
        self._has_face = ~np.isnan(scores.y[:, 0])
        self.shape = (*scores.y.shape, len(columns(params, scores.sigma is not None)))
        """(n, A, F)"""
        self._scratch = np.empty((PIECE, *self.shape[1:]), np.float32)

        def scale(y: np.ndarray, sigma: np.ndarray | None) -> Values:
            kind = "quantile" if params.kind == "histogram" else params.certainty
            return Values(statistics.scale(y), None if sigma is None else statistics.certainty(sigma, kind))

        ok = self._has_face
        own = scale(scores.y[ok], None if scores.sigma is None else scores.sigma[ok])
        self._face_frames = _FaceFrames(own, own if pool is None else scale(*pool), time[ok].astype(np.float64), params)

    def features(self, rows: slice = slice(None), out: np.ndarray | None = None) -> np.ndarray:
        """Return the features of some or all frames.

        The features of a frame do not depend on the other requested rows. Consecutive ranges are computed fastest.

        Args:
            out: an array to write to; reusing one is faster than allocating a new one.

        Returns:
            (rows, A, F) float32, NaN for frames without a face; for the F columns see `columns`.
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
    """The n frames of a video with a face, and the values that are common to all of them.

    Args:
        own: y' and certainty of these frames.
        pool: y' and certainty of the frames over which percentiles, rank and histogram are computed.
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
        """Search `self.time` for moments (k, m), restricted to the range that contains them, which fits into the cache."""
        if not moments.size:
            return np.zeros(moments.shape, np.int64)
        low, high = np.searchsorted(self.time, [moments[:, 0].min(), moments[:, -1].max()], side)
        return low + np.searchsorted(self.time[low:high], moments, side)


def _columns(frames: _FaceFrames, rows: slice) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield name, group and values of every column of some frames with a face: (rows, A), or (A,) if common to all rows."""
    yield "own.y", "plain", frames.own.y[rows]
    if frames.params.kind == "distribution":
        yield "own.rank", "plain", frames.rank[rows]
        if frames.own.c is not None:
            yield "own.certainty", "uncertainty", frames.own.c[rows]
    yield from frames.shared
    if frames.params.kind == "distribution":
        yield from _windows(frames, frames.params, rows)
        yield from _context(frames, frames.params, rows)


def _rank(y: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Return the fraction of the pool's values below each value, with ties counted half: (n, A), (m, A) -> (n, A) float32."""
    out = np.empty(y.shape, np.float32)
    for au in range(y.shape[1]):
        values, counts = np.unique(pool[:, au], return_counts=True)
        below = np.concatenate([[0], np.cumsum(counts)])
        at = np.searchsorted(values, y[:, au])
        tied = values.take(at, mode="clip") == y[:, au]
        out[:, au] = (below[at] + below[at + tied]) / 2 / max(len(pool), 1)
    return out


def _pool_percentiles(pool: Values, params: DistributionFeatures) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield percentiles of y' over the pool, from which the mapping can infer the person's neutral face (# authors).

    The percentiles over all frames are followed, for each threshold, by those over the frames of at least that certainty
    and the fraction of these frames. Without such frames, the percentiles are those of the next lower threshold, and the
    fraction is 0. Each column is (A,).
    """
    y, c = pool
    base = np.percentile(y, params.percentiles, axis=0) if len(y) else np.zeros((len(params.percentiles), y.shape[1]))
    for p, row in zip(params.percentiles, base):
        yield f"{params.neutral}.p{p:g}", "plain", row
    if c is None:
        return
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
    """Yield mean, standard deviation and percentiles over the window of each frame, unweighted and weighted by certainty.

    The window contains the frames within length / 2 seconds. Ours: the paper describes variance and distribution in windows
    of a few seconds; the authors' code has neither.
    """
    half = np.array(params.windows) / 2
    low, high = frames.before(rows, half), frames.after(rows, half)
    if low.size:
        frames.sums.prepare(int(low.min()), int(high.max()))
    for k, length in enumerate(params.windows):
        y, y_y, *weighted = frames.sums.between(low[k], high[k])
        number = (high[k] - low[k])[:, None]
        ranked = binned_percentiles(*frames.own, frames.bins[k], rows, params.window_percentiles)
        sums = [("plain", number, y, y_y), *([("uncertainty", *weighted[:3])] if weighted else [])]
        for own, (group, total, first, second) in zip(ranked, sums):
            mean = first / total
            yield f"window{length:g}.{group}.mean", group, mean
            yield f"window{length:g}.{group}.sd", group, np.sqrt(np.maximum(second / total - mean**2, 0))
            for p, values in zip(params.window_percentiles, own):
                yield f"window{length:g}.{group}.p{p:g}", group, values
        if weighted:
            yield f"window{length:g}.certainty", "uncertainty", weighted[3] / number


def _context(frames: _FaceFrames, params: DistributionFeatures, rows: slice) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield y' and certainty at evenly spaced times before and after each frame (# authors).

    The value at t + k is that of the last frame with a face at or before t + k, the value at t - k that of the first frame
    with a face at or after t - k. Hence the nearest value on the side of t fills gaps without a face and times beyond the
    ends of the video.
    """
    step = params.context / max(params.context_points, 1)
    seconds = np.arange(1, params.context_points + 1) * step
    after, before = frames.after(rows, seconds) - 1, frames.before(rows, seconds)
    for k, away in enumerate(seconds):
        for name, index in ((f"+{away:g}s", after[k]), (f"-{away:g}s", before[k])):
            yield f"context{name}.y", "plain", frames.own.y[index]
            if frames.own.c is not None:
                yield f"context{name}.certainty", "uncertainty", frames.own.c[index]
