"""Landmarks are found in two passes, with boxes computed from the first one's points."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from aupair.errors import ArtifactError
from aupair.faces import landmarks
from aupair.faces.landmarks import box_of_landmarks, dlib_box, find_landmarks, interocular, load_predictor


@pytest.fixture(scope="module")
def predictor() -> object:
    return load_predictor()


FACE = np.array([182.0, 63, 269, 174])
"""The box of the astronaut by MTCNN."""


def test_points_lie_where_the_portrait_has_them(predictor: object) -> None:
    points, disagreement = find_landmarks(predictor, data.astronaut(), FACE)
    assert points.shape == (68, 2)
    np.testing.assert_allclose(points[36:42].mean(0), (205, 103), atol=5)
    np.testing.assert_allclose(points[42:48].mean(0), (248, 104), atol=5)
    np.testing.assert_allclose(points[48:].mean(0), (226, 145), atol=6)
    assert 0 <= disagreement < 0.1


def test_the_second_pass_reduces_the_effect_of_a_jittering_box(predictor: object) -> None:
    rng = np.random.default_rng([0])
    image, once, twice = data.astronaut(), [], []
    for _ in range(40):
        box = FACE + 3 * rng.normal(size=4)
        once.append(landmarks._predict(predictor, image, dlib_box(box)))
        twice.append(find_landmarks(predictor, image, box)[0])
    assert np.std(twice, 0).mean() < 0.8 * np.std(once, 0).mean()


def test_boxes_follow_their_formulas() -> None:
    np.testing.assert_allclose(dlib_box(np.array([0.0, 0, 100, 120])), [47 - 55, 63.6 - 55, 47 + 55, 63.6 + 55])
    points = np.zeros((68, 2))
    points[17:] = [(10, 0), (-10, 0), (0, 10)] * 17
    centre = points[17:].mean(0)
    radius = np.sqrt(np.mean([(x - centre[0]) ** 2 + (y - centre[1]) ** 2 for x, y in points[17:]]))
    x1, y1, x2, y2 = box_of_landmarks(points)
    assert x2 - x1 == pytest.approx(2.55 * radius)
    assert y2 - y1 == pytest.approx(2.55 * radius)
    assert (x1 + x2) / 2 == pytest.approx(centre[0])
    assert (y1 + y2) / 2 == pytest.approx(centre[1] - 0.02 * 2.55 * radius)


def test_interocular_is_the_distance_of_the_eyes_centres() -> None:
    points = np.zeros((68, 2))
    points[42:48] = (30, 40)
    assert interocular(points) == 50


def test_a_missing_or_another_model_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "package_folder", lambda *_: tmp_path)
    with pytest.raises(ArtifactError, match=r"a network of a package is missing: in .*; pip install") as caught:
        load_predictor()
    assert "\n" not in str(caught.value)
    path = tmp_path / "models" / "shape_predictor_68_face_landmarks.dat"
    path.parent.mkdir()
    path.write_bytes(b"another model")
    with pytest.raises(
        ArtifactError, match=r"is not the one that was tested: in .*\.dat, got SHA-256 .*, expected fbdc2c"
    ):
        load_predictor()
