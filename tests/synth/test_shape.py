"""Landmarks, control points and warps mirror and project as they should."""

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from aupair.synth import shape
from aupair.synth.portrait import IOD, MIRROR, SEAM, SIZE, load_portrait, mirror_landmarks, relax


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return relax(load_portrait()[1])


def test_the_portrait_is_level_and_its_eyes_one_iod_apart() -> None:
    _, points = load_portrait()
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    assert np.allclose(right - left, [IOD, 0], atol=1e-6)


def test_at_rest_the_mouth_is_closed_and_its_corners_level(landmarks: np.ndarray) -> None:
    assert np.allclose(landmarks[65:68, 1] - landmarks[61:64, 1], SEAM * IOD)
    smile = load_portrait()[1]
    assert abs(landmarks[48, 1] - landmarks[62, 1]) < 0.3 * abs(smile[48, 1] - smile[66, 1])


def test_mirroring_twice_changes_nothing(landmarks: np.ndarray) -> None:
    assert np.array_equal(MIRROR[MIRROR], np.arange(68))
    assert np.allclose(mirror_landmarks(mirror_landmarks(landmarks)), landmarks)


def test_control_points_mirror_with_the_face(landmarks: np.ndarray) -> None:
    points, mirrored = shape.control_points(landmarks), shape.control_points(mirror_landmarks(landmarks))
    for key in [*range(68), *shape.EXTRAS]:
        x, y = points[shape.point_index(key, 0)]
        assert np.allclose(mirrored[shape.point_index(key, 1)], [SIZE - 1 - x, y])


def test_the_spline_equals_scipys(landmarks: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    source = shape.control_points(landmarks)
    target = source + rng.normal(0, 2, source.shape)
    x, y = shape.fit_warp(target, source, cells=SIZE, stiffness=0.01)
    anchors = np.concatenate([target, shape._border_points()])
    offsets = np.concatenate([source, shape._border_points()]) - anchors
    reference = RBFInterpolator(anchors / IOD, offsets, kernel="thin_plate_spline", smoothing=0.01)
    where = rng.integers(0, SIZE, (200, 2))
    expected = where + reference(where / IOD)
    assert np.allclose(np.stack([x, y], 2)[where[:, 1], where[:, 0]], expected, atol=0.02)


def test_a_head_that_looks_ahead_stays_where_it_is_but_for_perspective(landmarks: np.ndarray) -> None:
    points = shape.control_points(landmarks)
    centre = points[28]
    flat = shape.project(points, np.zeros(len(points)), centre, shape.Pose(shift=(3.0, -2.0)))
    assert np.allclose(flat, points + np.array([3, -2]))


def test_yaw_moves_the_nose_and_narrows_the_far_side(landmarks: np.ndarray) -> None:
    points = shape.control_points(landmarks)
    turned = shape.project(points, shape.estimate_depth(landmarks), points[28], shape.Pose(yaw=0.4))
    assert turned[30, 0] > points[30, 0] + 5
    assert turned[16, 0] - turned[30, 0] < 0.75 * (points[16, 0] - points[30, 0])


def test_roll_turns_clockwise_in_the_image(landmarks: np.ndarray) -> None:
    points = shape.control_points(landmarks)
    rolled = shape.project(points, np.zeros(len(points)), points[28], shape.Pose(roll=0.3))
    (dx, dy) = rolled[45] - rolled[36]
    (ux, uy) = points[45] - points[36]
    assert np.isclose(np.arctan2(dy, dx) - np.arctan2(uy, ux), 0.3)
