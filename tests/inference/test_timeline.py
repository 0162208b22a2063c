"""The picture of a video's predictions is drawn whatever the video is like."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from aupair.aus import AFFWILD2, label_au
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.timeline import _prediction_series, save_prediction_picture, save_timeline
from aupair.report.figures import Drawing
from bundle_parts import AU_SETS

A = len(AFFWILD2)


def result(n: int, faces: bool = True, aus: tuple[str, ...] = AFFWILD2) -> VideoPredictions:
    rng = np.random.default_rng(n)
    y_hat = np.where(faces, rng.normal(size=(n, len(aus))), np.nan).astype(np.float32)
    decision = np.where(faces, y_hat > 0, -1).astype(np.int8)
    scores = VideoScores(np.arange(n) / 25, ["ok" if faces else "no_face"] * n, y_hat, np.abs(y_hat))
    return VideoPredictions(aus, scores, decision, y_hat, np.clip(np.abs(y_hat), 0, 1))


@pytest.mark.parametrize(("n", "faces"), [(1, True), (60, True), (5, False), (2100, True), (2100, False)])
def test_a_picture_of_any_video(tmp_path: Path, n: int, faces: bool) -> None:
    save_timeline(tmp_path / "a.png", result(n, faces), "title", np.full((2, A), 0.5))
    image = cv2.imread(str(tmp_path / "a.png"))
    grey = (image == 0xD9).all(axis=2).mean()
    assert (grey > 0.5) == (not faces), "a video without a face is grey all over"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_note_is_below_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Drawing, "save_png", lambda drawing, path: titles.append(drawing.title))
    for note in ("", "Differs."):
        save_timeline(tmp_path / "a.png", result(3), "clip", note=note)
    assert titles == ["clip: 3 frames, 3 with a face", "clip: 3 frames, 3 with a face\nDiffers."]


@pytest.mark.parametrize("aus", [*AU_SETS.values(), AFFWILD2[:5]], ids=lambda aus: f"{len(aus)} AUs")
def test_each_au_has_a_panel_of_the_same_size_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aus: tuple[str, ...]
) -> None:
    drawings: list[Drawing] = []
    monkeypatch.setattr(Drawing, "save_png", lambda drawing, path: drawings.append(drawing))
    save_timeline(tmp_path / "a.png", result(30, aus=aus), "title", np.full((2, len(aus)), 0.5))
    figure = drawings[0].figure
    figure.draw_without_rendering()
    assert [axis.get_title("left") for axis in figure.axes] == [label_au(au) for au in aus]
    heights = [axis.get_position().height * figure.get_figheight() for axis in figure.axes]
    assert max(heights) - min(heights) < 0.01
    assert min(heights) > 0.75, "inches: else the names of the strips overlap"
    assert sum(heights) > 1.2, "the label of the y axis is that long"
    label = next(text for text in figure.texts if text.get_text().startswith("y_hat"))
    boxes = [part.get_window_extent() for part in (label, *figure.legends)] + [a.get_tightbbox() for a in figure.axes]
    for box, other in combinations(boxes, 2):
        assert not box.overlaps(other)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 for box in boxes)
    assert max(box.y1 for box in boxes) < figure.bbox.y1 - 0.02 * figure.bbox.height - 0.14 * figure.dpi, "the title"


def test_the_picture_of_readme_has_faces_above_the_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [None if k == 3 else np.full((16, 16, 3), 5 * k, np.uint8) for k in range(40)]
    monkeypatch.setattr("aupair.faces.video.iter_faces", lambda *_: (SimpleNamespace(image=image) for image in images))
    recognizer: Any = SimpleNamespace(
        params=SimpleNamespace(preprocess_faces=None),
        score_rows=list,
        decide_video=lambda rows: result(len(rows)),
        aus=AFFWILD2,
        limits=lambda share: np.full((2, A), share),
    )
    save_prediction_picture(tmp_path / "a.png", recognizer, Path("a.mp4"), "title", ["AU1", "AU4"])
    picture = cv2.imread(str(tmp_path / "a.png"))
    for grey in (5 * 2, 5 * 37):  # the first and the last of ten
        assert (abs(picture.astype(int) - grey).max(axis=2) <= 2).mean() > 0.005


def test_abstained_decisions_are_marked_only_where_limits_are_given() -> None:
    predictions = result(50)
    strips = _prediction_series(predictions, np.full((2, A), 0.5)).strips
    np.testing.assert_array_equal(strips["abstained"][0][0], predictions.confidence < 0.5)
    np.testing.assert_array_equal(strips["active"][0][0], predictions.decision == 1)
    assert list(_prediction_series(predictions).strips) == ["active"]
