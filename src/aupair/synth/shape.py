"""The shape of a face, given by 68 landmarks and 28 further control points: depth, head pose, thin-plate-spline warps."""

from dataclasses import dataclass

import numpy as np

from aupair.synth.portrait import IOD, MIRROR, SIZE, mirror_landmarks

EXTRAS = {
    "brow_in": 0.28, "brow_out": 0.1, "hair_in": 0.15, "hair_out": 0.0, "lid_cheek": 0.22, "cheek_out": 0.05,
    "cheek": 0.2, "mouth_jaw": 0.08, "chin": 0.25, "neck": -0.5, "ear": -0.7, "temple": -0.5, "crown": -0.35,
    "jaw_out": -0.6,
}  # fmt: skip
"""Control points besides the landmarks, each on both sides of the face: name -> depth in IODs (+: toward the camera)."""
POINTS = 68 + 2 * len(EXTRAS)
Key = int | str
"""A control point of the image's left half: the number of a landmark, or a name in EXTRAS."""


@dataclass(frozen=True)
class Pose:
    """Position and rotation of the head in one frame."""

    yaw: float = 0.0
    """radians, |yaw| < .5, above which the warp of the cheeks folds"""
    pitch: float = 0.0
    """radians"""
    roll: float = 0.0
    """radians"""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """x, y in pixels"""


def point_index(key: Key, side: int) -> int:
    """Return the row of a key's control point for side 0, or of its mirror image for side 1."""
    if isinstance(key, str):
        return 68 + 2 * list(EXTRAS).index(key) + side
    return int(MIRROR[key]) if side else key


def control_points(landmarks: np.ndarray) -> np.ndarray:
    """Return all control points for landmarks: (68, 2) -> (POINTS, 2), pixels."""
    left, right = _left_extras(landmarks), _left_extras(mirror_landmarks(landmarks))
    right = np.stack([SIZE - 1 - right[:, 0], right[:, 1]], 1)
    return np.concatenate([landmarks, np.stack([left, right], 1).reshape(-1, 2)])


def _left_extras(p: np.ndarray) -> np.ndarray:
    """Return the extra points of the left half, in the order of EXTRAS: (68, 2) -> (14, 2), pixels."""
    lid = (p[40] + p[41]) / 2
    offsets = (
        (p[21], (-0.02, -0.30)),
        (p[18], (0.0, -0.32)),
        (p[21], (0.0, -0.68)),
        (p[18], (0.1, -0.62)),
        (lid, (-0.05, 0.34)),
        (lid, (-0.32, 0.36)),
        (0.35 * lid + 0.65 * p[48], (-0.12, 0.0)),
        (0.6 * p[48] + 0.4 * p[5], (0.0, 0.08)),
        (0.45 * p[57] + 0.55 * p[8], (-0.14, 0.0)),
        (p[7], (-0.2, 0.45)),
        (p[0], (-0.28, -0.1)),
        (p[17], (-0.35, -0.75)),
        (np.array([p[27, 0], p[19, 1]]), (-0.45, -1.25)),
        (p[3], (-0.35, 0.15)),
    )
    return np.array([base + IOD * np.array(offset) for base, offset in offsets])


def estimate_depth(landmarks: np.ndarray) -> np.ndarray:
    """Estimate the depth of each control point: (68, 2) pixels -> (POINTS,) pixels, + toward the camera."""
    x = np.abs(landmarks[:, 0] - landmarks[27, 0]) / IOD
    z = 0.25 - 0.55 * x**2
    z[:17] = 0.25 - 0.9 * x[:17] ** 1.5
    z[6:11] += 0.05
    z[27:36] = 0.18, 0.26, 0.34, 0.42, 0.2, 0.26, 0.3, 0.26, 0.2
    z[36:48] -= 0.05
    z[48:68] += 0.08
    return IOD * np.concatenate([z, np.repeat(list(EXTRAS.values()), 2)])


def project(points: np.ndarray, z: np.ndarray, centre: np.ndarray, pose: Pose) -> np.ndarray:
    """Rotate the head and project it with a weak perspective: (POINTS, 2) -> (POINTS, 2), pixels."""
    x, y = (points - centre).T
    x, z = x * np.cos(pose.yaw) + z * np.sin(pose.yaw), z * np.cos(pose.yaw) - x * np.sin(pose.yaw)
    y, z = y * np.cos(pose.pitch) - z * np.sin(pose.pitch), y * np.sin(pose.pitch) + z * np.cos(pose.pitch)
    near = pose.scale * (1 + 0.06 * z / IOD)
    c, s = np.cos(pose.roll), np.sin(pose.roll)
    return np.stack([x * near, y * near], 1) @ np.array([[c, s], [-s, c]]) + centre + pose.shift


def _border_points(count: int = 7, beyond: int = 8) -> np.ndarray:
    """Return points around the image that keep its border fixed in a warp: (4 count - 4, 2) pixels."""
    low, high = -beyond, SIZE - 1 + beyond
    side = np.linspace(low, high, count)
    rows = [(t, edge) for edge in (low, high) for t in side]
    columns = [(edge, t) for edge in (low, high) for t in side[1:-1]]
    return np.array(rows + columns)


def fit_warp(
    target: np.ndarray, source: np.ndarray, cells: int = 64, stiffness: float = 2e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a thin-plate spline that maps `target` points back to `source`, as maps for cv2.remap.

    D(p) = sum_k w_k U(|p - t_k|) + a + A p, U(r) = r^2 log r, evaluated on cells x cells centres and interpolated.

    Args:
        target: (K, 2), points in the new image, pixels.
        source: (K, 2), points in the given image, pixels.
        stiffness: regularisation that is added to the diagonal; a larger value gives a smoother spline.

    Returns:
        x and y of each target pixel in the source, two (SIZE, SIZE) float32 arrays.
    """
    import cv2

    anchors = np.concatenate([target, _border_points()])
    offsets = np.concatenate([source, _border_points()]) - anchors
    t = anchors / IOD
    weights = _spline(t, offsets, stiffness).astype(np.float32)
    centres = ((np.arange(cells) + 0.5) * SIZE / cells - 0.5).astype(np.float32) / np.float32(IOD)
    p = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    t = t.astype(np.float32)
    r2 = (p * p).sum(1)[:, None] + (t * t).sum(1) - 2 * p @ t.T
    np.maximum(r2, 1e-9, out=r2)
    field = (0.5 * r2 * np.log(r2)) @ weights[:-3] + weights[-3] + p @ weights[-2:]
    field = cv2.resize(field.reshape(cells, cells, 2), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    pixels = np.arange(SIZE, dtype=np.float32)
    return field[..., 0] + pixels, field[..., 1] + pixels[:, None]


def _spline(t: np.ndarray, offsets: np.ndarray, stiffness: float) -> np.ndarray:
    """Solve for the spline's weights: t (K, 2) IODs, offsets (K, 2) pixels -> (K + 3, 2): w, a, A."""
    count = len(t)
    r2 = ((t[:, None] - t) ** 2).sum(-1)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = 0.5 * r2 * np.log(r2 + 1e-9) + stiffness * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1 :] = t
    system[count + 1 :, :count] = t.T
    return np.linalg.solve(system, np.concatenate([offsets, np.zeros((3, 2))]))


def warp_portrait(image: np.ndarray, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Move the `source` points of an image to `target`: (SIZE, SIZE, 3), with cubic interpolation on a fine grid."""
    import cv2

    x, y = fit_warp(target, source, cells=96)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
