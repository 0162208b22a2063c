"""The similarity is the least-squares one and never a reflection, and images are resampled by it without aliasing."""

import numpy as np
import pytest

from aupair.faces.align import TEMPLATE, align_image, face_transform, procrustes_residual, scaled_template, umeyama
from aupair.faces.landmarks import LEFT_EYE, RIGHT_EYE, interocular
from aupair.params import Alignment


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def test_umeyama_never_reflects() -> None:
    rng = np.random.default_rng([2])
    source = rng.normal(size=(30, 2))
    matrix = umeyama(source, source * (-1, 1))[:, :2]
    assert np.linalg.det(matrix) > 0
    np.testing.assert_allclose(matrix @ matrix.T, np.linalg.det(matrix) * np.eye(2), atol=1e-12)


def test_umeyama_equals_scikit_image() -> None:
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng([3])
    source, target = rng.normal(size=(68, 2)), rng.normal(size=(68, 2))
    np.testing.assert_allclose(
        umeyama(source, target), SimilarityTransform.from_estimate(source, target).params[:2], atol=1e-9
    )


def test_template_is_level_symmetric_and_inside() -> None:
    points = np.array(TEMPLATE)
    assert points.shape == (68, 2)
    left, right = points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0)
    assert left[1] == pytest.approx(right[1], abs=1e-3)
    assert left[0] + right[0] == pytest.approx(1, abs=1e-3)
    assert left[0] < right[0]
    assert points.min() > 0.1
    assert points.max() < 0.95
    np.testing.assert_allclose(points[:17, 0], 1 - points[16::-1, 0], atol=2e-4)


def test_residual_is_zero_on_the_template_and_counts_in_interocular_distances() -> None:
    goal = scaled_template(224)
    assert procrustes_residual(goal, umeyama(goal, goal), 224) == pytest.approx(0, abs=1e-9)
    off = goal + np.array([0.1 * interocular(goal), 0])
    still = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert procrustes_residual(off, still, 224) == pytest.approx(0.1)
    assert procrustes_residual(off, umeyama(off, goal), 224) == pytest.approx(0, abs=1e-9)


def drop_jaw(points: np.ndarray) -> np.ndarray:
    """Return the landmarks (68, 2) with an open mouth: the chin moves by a fifth of an inter-ocular distance."""
    dropped, amount = points.copy(), 0.2 * interocular(points)
    dropped[3:14, 1] += amount * np.sin(np.linspace(0, np.pi, 11))
    dropped[[55, 56, 57, 58, 59, 65, 66, 67], 1] += 0.8 * amount
    dropped[[48, 54, 60, 64], 1] += 0.3 * amount
    return dropped


@pytest.mark.parametrize(("alignment", "low", "high"), [("all", 0.94, 0.97), ("stable", 0.995, 1.005)])
def test_a_dropped_jaw_shrinks_a_face_unless_stable_points_align_it(
    alignment: Alignment, low: float, high: float
) -> None:
    neutral = scaled_template(224)
    before, after = (face_transform(points, 224, alignment) for points in (neutral, drop_jaw(neutral)))
    assert low < np.sqrt(np.linalg.det(after[:, :2]) / np.linalg.det(before[:, :2])) < high


@pytest.mark.parametrize("alignment", ["all", "stable"])
def test_a_moved_template_is_aligned_exactly(alignment: Alignment) -> None:
    goal, move = scaled_template(96), similarity(2.3, 0.4, (30, -7))
    transform = face_transform(goal @ move[:, :2].T + move[:, 2], 96, alignment)
    np.testing.assert_allclose(transform[:, :2] @ move[:, :2], np.eye(2), atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.6, 5.0])
def test_a_spot_moves_as_the_transform_says(scale: float) -> None:
    y, x = np.mgrid[:600, :800]
    spot = np.exp(-((x - 400) ** 2 + (y - 250) ** 2) / (2 * (6 * scale) ** 2))
    image = np.repeat((255 * spot[..., None]).astype(np.uint8), 3, 2)
    transform = similarity(1 / scale, 0.3, (0, 0))
    transform[:, 2] = (50, 40) - transform[:, :2] @ (400, 250)
    out = align_image(image, transform, 96)[..., 0].astype(float)
    assert out.shape == (96, 96)
    rows, columns = np.mgrid[:96, :96]
    assert (out * columns).sum() / out.sum() == pytest.approx(50, abs=0.1)
    assert (out * rows).sum() / out.sum() == pytest.approx(40, abs=0.1)


def test_an_image_that_is_made_smaller_is_averaged() -> None:
    """A fine checkerboard becomes grey, not stripes."""
    image = np.repeat((np.indices((900, 900)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    assert align_image(image, similarity(0.25, 0.1, (-20, 0)), 128)[40:90, 40:90].std() < 12
