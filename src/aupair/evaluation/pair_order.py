"""Does y_hat put the frames of a video in the right order? Over all pairs, without listing them."""

import numpy as np

from aupair.data.frames import Frames


def misorders(y_hat: np.ndarray, frames: Frames, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count for each frame and AU its pairs, and those in the wrong order (a tie counts 1/2).

    A pair is two frames of one video with different levels, both in the subset. O(n log n) for a video, AU and level.

    Args:
        y_hat: (N, A) float, finite where the frame is usable.
        subset: (N,) or (N, A) bool; frames without a face or annotation never count.

    Returns:
        wrong (N, A) and pairs (N, A), float64; 0 outside of the subset.
    """
    subset = subset if subset.ndim == 2 else subset[:, None]
    inside = np.broadcast_to(subset & frames.usable[:, None], y_hat.shape)
    wrong, pairs = np.zeros(y_hat.shape), np.zeros(y_hat.shape)
    for rows in frames.slices():
        for au in range(y_hat.shape[1]):
            mine = rows.start + np.flatnonzero(inside[rows, au])
            wrong[mine, au], pairs[mine, au] = _misorders(y_hat[mine, au], frames.labels[mine, au])
    return wrong, pairs


class Order:
    """Frames sorted once by video and y_hat, so that the pairs of any part of them are counted without sorting again.

    Args:
        y_hat: (N, A) float, finite where the frame is usable.
        within: (N,) bool, the frames of which parts will be asked for; those without a face or annotation never count.
    """

    def __init__(self, y_hat: np.ndarray, frames: Frames, within: np.ndarray) -> None:
        rows = np.flatnonzero(within & frames.usable)
        video = frames.video[rows]
        fresh = np.diff(video, prepend=-1) != 0
        self._first, self._end = _runs(fresh)
        self._columns = []
        for au in range(y_hat.shape[1]):
            value = y_hat[rows, au]
            order = np.lexsort((value, video))
            tied, beyond = _runs(fresh | (np.diff(value[order], prepend=0) != 0))
            mine = rows[order]
            self._columns.append((mine, frames.labels[mine, au], tied, beyond))

    def accuracy(self, kept: np.ndarray) -> np.ndarray:
        """The share of pairs in the right order, pooled over videos: (A,), 0..1; NaN for an AU without a pair.

        A pair is two frames of one video with different levels, both kept; a tie counts 1/2.

        Args:
            kept: (N,) or (N, A) bool.
        """
        wrong, pairs = np.zeros((2, len(self._columns)))
        for au, (rows, level, tied, beyond) in enumerate(self._columns):
            use = kept[rows] if kept.ndim == 1 else kept[rows, au]
            for high in np.unique(level)[1:]:
                lower = np.concatenate([[0], np.cumsum(use & (level < high))])
                at = np.flatnonzero(use & (level == high))
                above, level_with = lower[self._end[at]] - lower[beyond[at]], lower[beyond[at]] - lower[tied[at]]
                wrong[au] += above.sum() + level_with.sum() / 2
                pairs[au] += (lower[self._end[at]] - lower[self._first[at]]).sum()
        return 1 - _share(wrong, pairs)


def _runs(fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each place's run, of which the first is `fresh`, (n,) bool: where it starts, and where the next does; int32."""
    starts = np.flatnonzero(fresh).astype(np.int32)
    run = np.cumsum(fresh) - 1
    return starts[run], np.append(starts[1:], np.int32(len(fresh)))[run]


def pair_accuracy(y_hat: np.ndarray, frames: Frames, subset: np.ndarray) -> np.ndarray:
    """What `Order.accuracy` says of one subset, (N,) or (N, A) bool."""
    within = subset if subset.ndim == 1 else np.any(subset, axis=1)
    return Order(y_hat, frames, np.asarray(within)).accuracy(subset)


def misorder_rate(y_hat: np.ndarray, frames: Frames, subset: np.ndarray) -> np.ndarray:
    """The share of a frame's pairs in the wrong order: (N, A), 0..1; NaN for a frame without a pair."""
    return _share(*misorders(y_hat, frames, subset))


def _misorders(value: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`misorders` of one video and AU: values (n,), levels (n,)."""
    wrong, pairs = np.zeros(len(value)), np.zeros(len(value))
    for here in np.unique(level):
        mine = level == here
        lower, higher = np.sort(value[level < here]), np.sort(value[level > here])
        wrong[mine] = len(lower) - _below(lower, value[mine]) + _below(higher, value[mine])
        pairs[mine] = len(lower) + len(higher)
    return wrong, pairs


def _below(ordered: np.ndarray, value: np.ndarray) -> np.ndarray:
    """How many of the sorted numbers are below each value, ties counting 1/2."""
    return 0.5 * (np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right"))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
