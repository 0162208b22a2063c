"""The picture: its spans, and that it is drawn whatever the video is like."""

from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AUS
from aupair.inference.recognizer import Predictions, VideoPredictions
from aupair.inference.timeline import _thin, draw_timeline, spans

A = len(AUS)


def result(n: int, faces: bool = True) -> VideoPredictions:
    rng = np.random.default_rng(n)
    y_hat = np.where(faces, rng.normal(size=(n, A)), np.nan).astype(np.float32)
    decision = np.where(faces, y_hat > 0, -1).astype(np.int8)
    status = ["ok" if faces else "no_face"] * n
    said = Predictions(decision, y_hat, y_hat, np.abs(y_hat), np.clip(np.abs(y_hat), 0, 1))
    return VideoPredictions(np.arange(n, dtype=np.int32), np.arange(n) / 25, status, said)


def test_spans_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 50):
        mask, time = rng.random(n) < 0.5, np.arange(n) / 10
        covered = [any(start <= t < end - 1e-9 for start, end in spans(mask, time)) for t in time]
        assert covered == mask.tolist()


def test_a_run_ends_with_the_next_frame() -> None:
    time = np.array([0.0, 0.1, 0.2, 0.5])
    assert list(spans(np.array([True, True, False, True]), time)) == [(0.0, 0.2), (0.5, pytest.approx(0.6))]


def test_a_long_video_is_drawn_as_a_few_points() -> None:
    values = np.arange(5003.0)
    values[9:12] = np.nan
    for reduce, expected in ((None, np.nanmean), (np.fmin, np.nanmin), (np.fmax, np.nanmax)):
        got = _thin(values, reduce)
        assert len(got) == 1668
        assert np.isnan(got[3])  # of three frames without a face
        known = np.delete(np.arange(1668), 3)
        np.testing.assert_allclose(got[known], [expected(values[3 * k : 3 * k + 3]) for k in known])
    short = np.array([True, False])
    np.testing.assert_array_equal(_thin(short), [1.0, 0.0])


@pytest.mark.parametrize(("n", "faces"), [(1, True), (60, True), (5, False), (2100, True), (2100, False)])
def test_a_picture_of_any_video(tmp_path: Path, n: int, faces: bool) -> None:
    draw_timeline(tmp_path / "a.png", result(n, faces), "title", np.full((2, len(AUS)), 0.5))
    import cv2

    image = cv2.imread(str(tmp_path / "a.png"))
    assert image.shape == (1100, 1400, 3)
    grey = (image == 0xC4).all(axis=2).mean()
    assert (grey > 0.5) == (not faces), "a video without a face is grey all over"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
