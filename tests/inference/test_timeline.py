"""The picture of a video's predictions is drawn whatever the video is like."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.aus import AUS
from aupair.inference.predictions import Predictions, VideoPredictions
from aupair.inference.timeline import prediction_series, save_timeline

A = len(AUS)


def result(n: int, faces: bool = True) -> VideoPredictions:
    rng = np.random.default_rng(n)
    y_hat = np.where(faces, rng.normal(size=(n, A)), np.nan).astype(np.float32)
    decision = np.where(faces, y_hat > 0, -1).astype(np.int8)
    predictions = Predictions(decision, y_hat, y_hat, np.abs(y_hat), np.clip(np.abs(y_hat), 0, 1))
    status = ["ok" if faces else "no_face"] * n
    return VideoPredictions(np.arange(n, dtype=np.int32), np.arange(n) / 25, status, predictions)


@pytest.mark.parametrize(("n", "faces"), [(1, True), (60, True), (5, False), (2100, True), (2100, False)])
def test_a_picture_of_any_video(tmp_path: Path, n: int, faces: bool) -> None:
    save_timeline(tmp_path / "a.png", result(n, faces), "title", np.full((2, A), 0.5))
    image = cv2.imread(str(tmp_path / "a.png"))
    grey = (image == 0xD9).all(axis=2).mean()
    assert (grey > 0.5) == (not faces), "a video without a face is grey all over"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_abstained_decisions_are_marked_only_where_limits_are_given() -> None:
    predictions = result(50)
    strips = prediction_series(predictions, np.full((2, A), 0.5)).strips
    np.testing.assert_array_equal(strips["abstained"][0][0], predictions.predictions.confidence < 0.5)
    np.testing.assert_array_equal(strips["active"][0][0], predictions.predictions.decision == 1)
    assert list(prediction_series(predictions).strips) == ["active"]
