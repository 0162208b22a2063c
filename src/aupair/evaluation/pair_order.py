"""Pair accuracy, the share of all pairs of a video's frames that y_hat orders correctly, computed without listing them."""

from collections.abc import Iterator

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames


class Order:
    """Frames sorted once by video and y_hat, so that the pairs of any subset are counted without sorting again.

    A pair is two frames of one video with different levels. It is in the wrong order where the frame with the higher
    level has the lower y_hat; a tie counts 1/2.

    Args:
        y_hat: (N, A) float, finite where the frame is usable.
        within: (N,) bool, the frames of which subsets are counted; a frame without a face or without a label of the AU
            never counts.
    """

    def __init__(self, y_hat: np.ndarray, frames: Frames, within: np.ndarray) -> None:
        rows = np.flatnonzero(within & frames.usable)
        video = frames.video[rows]
        new_video = np.diff(video, prepend=-1) != 0
        self._shape = y_hat.shape
        self._first, self._end = _runs(new_video)
        self._columns = []
        for au in range(y_hat.shape[1]):
            value = y_hat[rows, au]
            order = np.lexsort((value, video))
            tied, beyond = _runs(new_video | (np.diff(value[order], prepend=0) != 0))
            self._columns.append((rows[order], frames.labels[rows[order], au], tied, beyond))

    def accuracy(self, counted: np.ndarray) -> np.ndarray:
        """Return the share of pairs in the right order, pooled over videos: (A,), 0..1; NaN for an AU without a pair.

        Args:
            counted: (N,) or (N, A) bool, the frames that count.
        """
        wrong, pairs = np.zeros((2, self._shape[1]))
        for au, _, wrong_here, pairs_here in self._count(counted):
            wrong[au] += wrong_here.sum()
            pairs[au] += pairs_here.sum()
        return 1 - _share(wrong, pairs)

    def misorder_rate(self, counted: np.ndarray) -> np.ndarray:
        """Return the share of a frame's pairs in the wrong order: (N, A), 0..1; NaN for a frame without a pair.

        Args:
            counted: (N,) or (N, A) bool, the frames that count.
        """
        wrong, pairs = np.zeros((2, *self._shape))
        for au, rows, wrong_here, pairs_here in self._count(counted):
            wrong[rows, au], pairs[rows, au] = wrong_here, pairs_here
        return _share(wrong, pairs)

    def _count(self, counted: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield for each AU and level: AU, rows (n,), and for each row its pairs in the wrong order and all of them."""
        counted = np.broadcast_to(counted if counted.ndim == 2 else counted[:, None], self._shape)
        for au, (rows, level, tied, beyond) in enumerate(self._columns):
            use = counted[rows, au] & (level != NOT_ANNOTATED)
            for own in np.unique(level[use]):
                at = np.flatnonzero(use & (level == own))
                first, end, start, stop = self._first[at], self._end[at], tied[at], beyond[at]
                lower, higher = (np.concatenate([[0], np.cumsum(use & other)]) for other in (level < own, level > own))
                # pairs with frames of a lower level above this one, and of a higher level below it; ties are from start to stop
                wrong = (
                    lower[end] - (lower[stop] + lower[start]) / 2 + (higher[stop] + higher[start]) / 2 - higher[first]
                )
                yield au, rows[at], wrong, lower[end] - lower[first] + higher[end] - higher[first]


def _runs(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each index the start of its run and of the next run, (n,) int32; first: (n,) bool, starts a run."""
    starts = np.flatnonzero(first).astype(np.int32)
    run = np.cumsum(first) - 1
    return starts[run], np.append(starts[1:], np.int32(len(first)))[run]


def _share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return part / total, NaN where the total is 0."""
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)
