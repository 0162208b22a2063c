"""Alignment of faces: a similarity transform is fitted from landmarks to a template, and the frame is resampled once.

Points are (N, 2): x to the right, y down, in pixels; the centre of the top left pixel is (0, 0), as in OpenCV.
"""

from functools import cache

import numpy as np

from aupair.faces.landmarks import interocular
from aupair.params import Alignment

# fmt: off
TEMPLATE: tuple[tuple[float, float], ...] = (
    (0.1200, 0.3315), (0.1267, 0.4307), (0.1407, 0.5269), (0.1620, 0.6213), (0.1965, 0.7119),
    (0.2528, 0.7916), (0.3232, 0.8547), (0.4060, 0.9063), (0.5000, 0.9203), (0.5940, 0.9063),
    (0.6768, 0.8547), (0.7472, 0.7916), (0.8035, 0.7119), (0.8380, 0.6213), (0.8593, 0.5269),
    (0.8733, 0.4307), (0.8800, 0.3315), (0.1938, 0.2602), (0.2395, 0.2161), (0.3053, 0.1997),
    (0.3741, 0.2069), (0.4379, 0.2305), (0.5621, 0.2305), (0.6259, 0.2069), (0.6947, 0.1997),
    (0.7605, 0.2161), (0.8062, 0.2602), (0.5000, 0.3075), (0.5000, 0.3715), (0.5000, 0.4360),
    (0.5000, 0.5013), (0.4220, 0.5460), (0.4590, 0.5579), (0.5000, 0.5690), (0.5410, 0.5579),
    (0.5780, 0.5460), (0.2708, 0.3179), (0.3110, 0.2968), (0.3583, 0.2966), (0.4026, 0.3267),
    (0.3551, 0.3345), (0.3086, 0.3343), (0.5974, 0.3267), (0.6417, 0.2966), (0.6890, 0.2968),
    (0.7292, 0.3179), (0.6914, 0.3343), (0.6449, 0.3345), (0.3634, 0.6711), (0.4089, 0.6452),
    (0.4617, 0.6295), (0.5000, 0.6401), (0.5383, 0.6295), (0.5911, 0.6452), (0.6366, 0.6711),
    (0.5924, 0.7217), (0.5420, 0.7437), (0.5000, 0.7483), (0.4580, 0.7437), (0.4076, 0.7217),
    (0.3851, 0.6737), (0.4610, 0.6658), (0.5000, 0.6694), (0.5390, 0.6658), (0.6149, 0.6737),
    (0.5395, 0.6959), (0.5000, 0.7004), (0.4605, 0.6959),
)
# fmt: on
"""The positions of the 68 points in an aligned image, x and y as fractions of its side.

It is the Procrustes median of 100 small faces (scikit-image's lfw_subset), one large face (its astronaut) and their
mirror images: symmetric, with level eyes, a closed mouth, and space above the brows for the wrinkles of the forehead.
"""

_POINTS: dict[Alignment, list[int]] = {"all": list(range(68)), "stable": [36, 39, 42, 45, *range(27, 36)]}
"""The points by which a face is aligned; stable: the corners of the eyes and the nose.

When the jaw drops, a face that is aligned by all points shrinks by about 4 %, since the mean of the points moves down.
With fewer points the scale is noisier: it changes by .7 % from frame to frame instead of .6 % (demo corpus).
"""

MOST_SAMPLES = 4
"""Maximum number of samples in x and in y that are averaged into one pixel when a large face is shrunk."""


@cache
def scaled_template(size: int) -> np.ndarray:
    """Return the template for an aligned image of side `size`: (68, 2) float64, x, y in pixels; read-only."""
    points = np.array(TEMPLATE) * size - 0.5
    points.flags.writeable = False
    return points


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the similarity transform without reflection that maps `source` to `target` with the least squared error.

    With centred points a, b and the singular value decomposition of b' a = U S V', the rotation is
    R = U diag(1, det U V') V', the scale tr(S diag(1, det U V')) / |a|^2 (Umeyama 1991, equations 40 to 42).

    Args:
        source: (N, 2) float, not all the same point.
        target: (N, 2) float.

    Returns:
        (2, 3) float64: the scaled rotation and the translation, in the form that cv2.warpAffine takes.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    matrix = (s * signs).sum() / (a**2).sum() * (u * signs) @ vt
    return np.hstack([matrix, (target_mean - matrix @ source_mean)[:, None]])


def _transform_points(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a transform (2, 3) to points (N, 2)."""
    return points @ transform[:, :2].T + transform[:, 2]


def face_transform(landmarks: np.ndarray, size: int, alignment: Alignment = "all") -> np.ndarray:
    """Return the transform that aligns a face: landmarks (68, 2) -> (2, 3) float64; see `umeyama`."""
    points = _POINTS[alignment]
    return umeyama(landmarks[points], scaled_template(size)[points])


def procrustes_residual(landmarks: np.ndarray, transform: np.ndarray, size: int) -> float:
    """Return the RMS distance between the transformed landmarks (68, 2) and the template, in inter-ocular distances."""
    template = scaled_template(size)
    squared_distance = ((_transform_points(transform, landmarks) - template) ** 2).sum(1)
    return float(np.sqrt(squared_distance.mean()) / interocular(template))


def align_image(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Return the aligned face (size, size, 3) uint8 of a frame (H, W, 3) uint8, black outside the frame.

    To prevent aliasing, a large face is first resampled at a multiple of the size and then averaged.
    """
    import cv2

    scale = float(np.sqrt(np.linalg.det(transform[:, :2])))
    samples = int(np.clip(round(1 / scale), 1, MOST_SAMPLES))
    finer = transform * samples
    finer[:, 2] += (samples - 1) / 2
    large = cv2.warpAffine(image, finer, (size * samples,) * 2, flags=cv2.INTER_LINEAR)
    return large if samples == 1 else cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
