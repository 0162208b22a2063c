"""The portrait from which the demo corpus is made: scikit-image's astronaut (NASA, public domain)."""

from functools import cache

import numpy as np

SIZE = 256
"""side of all images of the corpus, pixels"""
IOD = 58.0
"""inter-ocular distance (IOD), the distance between the centres of the eyes in the levelled portrait, pixels; shapes are
defined in units of it"""
EYE_HEIGHT = 108.0
"""y of the midpoint between the eyes in the levelled portrait, pixels"""
SEAM = 0.022
"""minimum distance between the inner lips, in IODs"""

LANDMARKS = (
    (179.0, 104.1), (179.3, 115.7), (180.6, 127.1), (181.7, 138.6), (184.6, 150.3), (190.7, 160.1), (199.4, 168.4),
    (209.3, 175.7), (220.6, 178.0), (232.4, 177.0), (243.3, 170.7), (253.3, 163.0), (260.3, 153.7), (265.0, 142.7),
    (267.7, 131.0), (270.0, 119.9), (271.7, 108.0), (186.4, 93.9), (192.3, 88.0), (200.0, 87.0), (208.3, 88.9),
    (215.9, 92.1), (236.0, 93.6), (244.0, 91.0), (252.0, 90.3), (260.0, 92.0), (265.0, 98.0), (225.9, 102.0),
    (225.0, 110.3), (225.0, 119.0), (225.0, 127.0), (214.0, 131.0), (219.0, 132.3), (224.0, 134.0), (229.1, 133.0),
    (234.0, 132.0), (195.0, 101.0), (200.0, 98.0), (206.9, 98.1), (212.0, 103.9), (206.0, 104.0), (199.4, 103.9),
    (237.7, 105.0), (243.6, 100.6), (250.0, 100.6), (255.1, 104.0), (250.0, 106.1), (243.9, 106.0), (200.3, 139.1),
    (209.1, 139.0), (217.7, 139.1), (223.7, 141.0), (229.7, 140.0), (237.4, 140.0), (245.6, 141.0), (237.1, 151.1),
    (229.0, 155.1), (222.3, 155.9), (215.9, 154.9), (207.7, 149.7), (203.1, 140.4), (217.3, 143.0), (223.1, 144.0),
    (229.0, 143.4), (242.6, 142.0), (229.0, 150.0), (222.9, 150.4), (216.7, 149.4),
)  # fmt: skip
"""The 68 landmarks (300-W order) of astronaut.png, x, y in pixels: the mean of dlib's predictions for seven jittered boxes."""

MIRROR = np.array(
    [
        *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
        41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ]
)  # fmt: skip
"""MIRROR[k] is the landmark that becomes landmark k in the mirrored image."""


def mirror_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Return the landmarks of the mirrored image: (68, 2) -> (68, 2), pixels."""
    return np.stack([SIZE - 1 - landmarks[MIRROR, 0], landmarks[MIRROR, 1]], 1)


@cache
def load_portrait() -> tuple[np.ndarray, np.ndarray]:
    """Return the portrait, rotated and scaled to level eyes at the distance IOD, with the teeth painted over.

    Returns:
        image: (SIZE, SIZE, 3) uint8 BGR; callers must not modify it.
        landmarks: (68, 2) float64 pixels; callers must not modify them.
    """
    import cv2
    from skimage.data import astronaut

    points = np.array(LANDMARKS)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    (dx, dy), centre = right - left, (left + right) / 2
    degrees = float(np.degrees(np.arctan2(dy, dx)))
    matrix = cv2.getRotationMatrix2D(tuple(centre.tolist()), degrees, IOD / float(np.hypot(dx, dy)))
    matrix[:, 2] += np.array([SIZE / 2, EYE_HEIGHT]) - centre
    bgr = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)
    image = cv2.warpAffine(bgr, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    points = points @ matrix[:, :2].T + matrix[:, 2]
    # The portrait smiles with open lips; if the teeth remained, a closed mouth would have a white line.
    teeth = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(teeth, [np.round(points[60:68]).astype(np.int32)], 255)
    return cv2.inpaint(image, cv2.dilate(teeth, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA), points


def relax(points: np.ndarray) -> np.ndarray:
    """Return the portrait's landmarks with a neutral expression: mouth closed, corners level, eyes and chin relaxed.

    Args:
        points: (68, 2), the landmarks of the levelled portrait, pixels.
    """
    rest = points.copy()
    opening = points[66, 1] - points[62, 1]
    middle, seam = points[[48, 54], 0].mean(), points[[62, 66], 1].mean() - 0.175 * opening
    upper = 1.1 * (points[61:64, 1] - points[50:53, 1]).mean()
    lower = 1.1 * (points[56:59, 1] - points[65:68, 1]).mean()
    rest[48:68, 0] = middle + 0.86 * (points[48:68, 0] - middle)
    corners = [48, 54, 60, 64]
    rest[corners, 1] = seam + 0.15 * (points[corners, 1] - seam)
    rest[61:64, 1], rest[65:68, 1] = seam - SEAM * IOD / 2, seam + SEAM * IOD / 2
    rest[50:53, 1] = seam - upper + 0.9 * (points[50:53, 1] - points[50:53, 1].mean())
    rest[56:59, 1] = seam + lower + 0.9 * (points[56:59, 1] - points[56:59, 1].mean())
    between = ((49, 48, 50, -0.01), (53, 54, 52, -0.01), (55, 54, 56, 0.01), (59, 48, 58, 0.01))
    for point, corner, inner, lift in between:
        rest[point, 1] = 0.45 * rest[corner, 1] + 0.55 * rest[inner, 1] + lift * IOD
    rest[[40, 41, 46, 47], 1] += 0.02 * IOD
    rest[6:11, 1] -= 0.25 * opening
    return rest
