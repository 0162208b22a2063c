"""Sums and percentiles over windows of a few seconds around each frame, computed for some rows at a time.

The results have the same bits whether rows are computed in pieces or all at once.
"""

import numpy as np

BINS = 16
"""number of bins of a window; percentiles over bins take O(n) time and do not depend on the frame rate"""
LEAST_WEIGHT = 1e-3
"""weight of a frame with a certainty of 0, so that a window without any certain frame has a mean"""
STEP = 4096
"""number of rows summed at once"""


class WindowSums:
    """Sums of y, y^2, w, w y, w y^2 and c over ranges of rows, with w = c + .001; without c, only of y and y^2.

    They are differences of one cumulative sum over all rows, only a part of which is in memory.

    Args:
        y, c: (n, A) float64.
    """

    def __init__(self, y: np.ndarray, c: np.ndarray | None) -> None:
        self._y, self._c = y, c
        self._restart()

    def _restart(self) -> None:
        self._first, self._table = 0, np.zeros((1, 2 if self._c is None else 6, self._y.shape[1]))

    def prepare(self, first: int, end: int) -> None:
        """Compute the cumulative sums of rows first to end; this is fast if the last call ended near `first`."""
        if first < self._first:
            self._restart()
        while (computed := self._first + len(self._table) - 1) < end:
            rows = slice(computed, min(computed + STEP, end))
            terms = np.concatenate(
                [self._table[-1:], _terms(self._y[rows], None if self._c is None else self._c[rows])]
            )
            table = self._table[max(first - self._first, 0) : -1]
            self._first = max(self._first, min(first, computed))
            self._table = np.concatenate([table, np.cumsum(terms, axis=0)])

    def between(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return the sums of rows low to high (exclusive), (m,) int each, within the prepared rows: (6 or 2, m, A)."""
        sums = self._table[high - self._first]
        sums -= self._table[low - self._first]
        return sums.swapaxes(0, 1)


def _terms(y: np.ndarray, c: np.ndarray | None) -> np.ndarray:
    """Return the terms of the sums: (m, A) each -> (m, 6 or 2, A)."""
    out = np.empty((len(y), 2 if c is None else 6, y.shape[1]))
    out[:, 0], out[:, 1] = y, y * y
    if c is not None:
        w = c + LEAST_WEIGHT
        out[:, 2], out[:, 3], out[:, 5] = w, w * y, c
        out[:, 4] = out[:, 3] * y
    return out


def assign_bins(time: np.ndarray, length: float) -> np.ndarray:
    """Return the number of each frame's bin: (n,) -> (n,) int64.

    A bin is 1/16 of `length` seconds long; bins are counted from the time of the first frame.
    """
    return np.floor((time - time[:1]) / (length / BINS) + 1e-9).astype(np.int64)


def binned_percentiles(
    y: np.ndarray, c: np.ndarray | None, bin_of: np.ndarray, rows: slice, percentiles: tuple[float, ...]
) -> list[list[np.ndarray]]:
    """Return percentiles of bin means over the window of each row, unweighted and weighted by c + .001.

    The window of a row is its bin and BINS / 2 bins on each side. The percentile p is the smallest bin mean such that the
    bins with means up to it have p % of the window's weight.

    Args:
        y, c: (n, A) float64, for all rows; without c, only the unweighted percentiles are computed.
        bin_of: (n,) int64, the bin of each row.
        rows: the m rows whose percentiles are computed.

    Returns:
        The unweighted percentiles and, with c, the weighted ones: (m, A) for each percentile.
    """
    if rows.stop <= rows.start:
        return [[y[:0] for _ in percentiles] for _ in range(1 if c is None else 2)]
    reach = BINS // 2
    own = bin_of[rows]
    near = slice(*np.searchsorted(bin_of, [own[0] - reach, own[-1] + reach + 1]))
    edges = np.flatnonzero(np.diff(bin_of[near], prepend=-1 - reach))
    bins = bin_of[near][edges]  # bins without a frame are missing
    here = slice(*np.searchsorted(bins, [own[0], own[-1] + 1]))
    around = bins[here, None] + np.arange(-reach, reach + 1)
    index = np.searchsorted(bins, around).clip(max=len(bins) - 1)
    exists = bins[index] == around
    inverse = np.searchsorted(bins[here], own)
    size = np.diff(edges, append=near.stop - near.start)[:, None].astype(np.float64)
    weighted = [(np.broadcast_to(size, (len(edges), y.shape[1])), y[near])]
    if c is not None:
        weight = c[near] + LEAST_WEIGHT
        weighted.append((np.add.reduceat(weight, edges, axis=0), weight * y[near]))
    results = []
    for mass, first in weighted:
        mean = np.add.reduceat(first, edges, axis=0) / mass
        means, masses = np.where(exists, mean.T[:, index], np.inf), np.where(exists, mass.T[:, index], 0.0)
        results.append([values.T[inverse] for values in _weighted(means, masses, percentiles)])
    return results


def _weighted(values: np.ndarray, weight: np.ndarray, percentiles: tuple[float, ...]) -> list[np.ndarray]:
    """Return weighted percentiles over the last axis: (A, m, K) each -> (A, m) for each percentile."""
    lanes = np.arange(values.shape[0] * values.shape[1]).reshape(*values.shape[:2], 1) * values.shape[2]
    order = np.argsort(values, axis=-1, kind="stable") + lanes
    ordered, sums = values.take(order), np.cumsum(weight.take(order), axis=-1)
    results = []
    for p in percentiles:
        at = (sums < p / 100 * sums[..., -1:] * (1 - 1e-12)).sum(axis=-1, keepdims=True)
        results.append(ordered.take(at + lanes)[..., 0])
    return results
