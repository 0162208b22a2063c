"""Detection of 68 facial landmarks by dlib's regression trees (Kazemi and Sullivan 2014) in two passes.

The trees were trained on dlib's own boxes and are very sensitive to the box. The second pass takes its box from the
landmarks of the first, which halves the effect of jitter in the box. Points are (68, 2): x, y in pixels, 0-based.
"""

from typing import Any

import numpy as np

from aupair.faces.memory import collapse_heap
from aupair.faces.mtcnn import package_folder, verified_file

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
"""The points of the eyes; left and right are sides of the image, not of the person."""

_MODEL = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
"""The SHA-256 of the model's file."""

INNER = slice(17, 68)
"""All points except those of the jaw, which moves in speech."""


def load_predictor() -> Any:
    """Load dlib's 68-point model from the package face_recognition_models, without importing the package.

    Raises:
        ArtifactError: the package or its file is missing, or the file has changed.
    """
    path = package_folder("face_recognition_models", "face-recognition-models") / "models"
    path = verified_file(path / "shape_predictor_68_face_landmarks.dat", _MODEL, "face-recognition-models")
    import dlib

    predictor = dlib.shape_predictor(str(path))
    collapse_heap()
    return predictor


def find_landmarks(predictor: Any, image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, float]:
    """Find the landmarks of a face.

    Args:
        predictor: from `load_predictor`.
        image: (H, W, 3) uint8, RGB.
        box: (4,) x1, y1, x2, y2 of an MTCNN face, pixels.

    Returns:
        landmarks: (68, 2) float64, x, y in pixels.
        disagreement: mean distance between the landmarks of the two passes, in inter-ocular distances; it is large if
            the landmarks are wrong.
    """
    first = _predict(predictor, image, dlib_box(box))
    second = _predict(predictor, image, box_of_landmarks(first))
    return second, float(np.linalg.norm(first - second, axis=1).mean() / interocular(second))


def dlib_box(box: np.ndarray) -> np.ndarray:
    """Convert a box of MTCNN to one like those that dlib was trained on; the factors were measured on real faces."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    return _square((x1 + x2) / 2 - 0.03 * width, (y1 + y2) / 2 + 0.03 * height, 1.10 * width)


def box_of_landmarks(points: np.ndarray) -> np.ndarray:
    """Return the box (4,) of a face from its points (68, 2): 2.55 RMS radii wide, shifted up by 2 %."""
    inner = points[INNER]
    x, y = inner.mean(0)
    side = 2.55 * np.sqrt(((inner - (x, y)) ** 2).sum(1).mean())
    return _square(x, y - 0.02 * side, side)


def interocular(points: np.ndarray) -> float:
    """Return the distance between the centres of the eyes, in the unit of `points` (68, 2)."""
    return float(np.linalg.norm(points[LEFT_EYE].mean(0) - points[RIGHT_EYE].mean(0)))


def _square(x: float, y: float, side: float) -> np.ndarray:
    """Return the square box (4,) around a centre."""
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def _predict(predictor: Any, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the landmarks that dlib's model predicts for a box: (68, 2) float64."""
    import dlib

    shape = predictor(image, dlib.rectangle(*(round(float(side)) for side in box)))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64)
