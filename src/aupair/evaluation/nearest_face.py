"""Values for frames without a face, taken from the nearest frame of the video that has one."""

import numpy as np


def nearest_face(ok: np.ndarray, video: np.ndarray) -> np.ndarray:
    """Return for every frame the row of the nearest frame of its video that has a face.

    Rows are consecutive frames, so that the nearest row is the nearest frame; of two equally near ones, the earlier is used.

    Args:
        ok: (N,) bool, there is a face.
        video: (N,) int, sorted.

    Returns:
        (N,) int64, a row; the frame's own where it is ok; -1 where the video has no face at all.
    """
    n = len(ok)
    row = np.arange(n)
    before = np.maximum.accumulate(np.where(ok, row, -1))
    after = np.minimum.accumulate(np.where(ok, row, n)[::-1])[::-1]
    has_before = (before >= 0) & (video[before] == video)
    has_after = (after < n) & (video[np.minimum(after, n - 1)] == video)
    source = np.where(has_before & (~has_after | (row - before <= after - row)), before, after)
    return np.where(has_before | has_after, source, -1)


def fill_nearest(values: np.ndarray, ok: np.ndarray, video: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Return for every frame the values of the nearest frame of its video that has a face.

    Frames without a face are annotated, too, and a challenge requires a row for each of them. Comparisons with NaN are
    false, so that with `empty` NaN all decisions of a video without any face are "not active".

    Args:
        values: (N, ...) of any type that holds `empty`.
        ok: (N,) bool, there is a face.
        video: (N,) int, sorted.
        empty: the value for a video without a face.
    """
    if not len(values):
        return values.copy()
    source = nearest_face(ok, video)
    filled = values[source]
    filled[source < 0] = empty
    return filled
