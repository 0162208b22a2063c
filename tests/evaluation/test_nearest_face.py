"""Frames without a face get the nearest frame's values, within their video."""

import numpy as np
import pytest

from aupair.evaluation.nearest_face import fill_nearest, nearest_face


def naive(ok: np.ndarray, video: np.ndarray) -> list[int]:
    """Look at every other frame; the earlier of two equally near ones."""
    source = []
    for n in range(len(ok)):
        near = [(abs(k - n), k) for k in range(len(ok)) if ok[k] and video[k] == video[n]]
        source.append(min(near)[1] if near else -1)
    return source


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_equals_a_naive_search(share: float) -> None:
    rng = np.random.default_rng([7, int(10 * share)])
    video = np.sort(rng.integers(0, 6, 80))
    ok = rng.random(80) < share
    assert nearest_face(ok, video).tolist() == naive(ok, video)


def test_no_value_crosses_a_video_and_a_video_without_a_face_stays_empty() -> None:
    values = np.array([[5.0], [np.nan], [np.nan], [2.0]])
    filled = fill_nearest(values, np.array([True, False, False, True]), np.array([0, 1, 1, 2]))
    assert np.isnan(filled[1:3]).all()
    assert filled[[0, 3], 0].tolist() == [5.0, 2.0]
    assert not (filled >= -1e9)[1:3].any()  # so that every decision there is "not active"


def test_nothing_in_nothing_out() -> None:
    assert fill_nearest(np.zeros((0, 3)), np.zeros(0, bool), np.zeros(0, int)).shape == (0, 3)
