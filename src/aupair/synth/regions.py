"""The region of the face that shows each AU, and the fractions of the regions that a cover hides."""

from collections.abc import Sequence

import numpy as np

from aupair.synth.portrait import SIZE
from aupair.synth.shape import Key, point_index

LIPS: tuple[Key, ...] = (48, 49, 50, 51, 57, 58, 59)
REGIONS: dict[str, tuple[Key, ...]] = {
    "AU1": (19, 20, 21, 27, "brow_in"),
    "AU2": (17, 18, 19, "brow_out"),
    "AU4": (17, 18, 19, 20, 21, 27, "brow_in"),
    "AU6": (36, 41, 40, "lid_cheek", "cheek_out"),
    "AU7": (36, 37, 38, 39, 40, 41),
    "AU10": (31, 32, 33, 51, 50, 49, "cheek"),
    "AU12": (48, 49, 59, 60, "cheek"),
    "AU15": (48, 49, 59, 60, "mouth_jaw"),
    "AU23": LIPS,
    "AU24": LIPS,
    "AU25": LIPS,
    "AU26": (*LIPS, 6, 7, 8),
    "AU18": LIPS,
    "AU19": (*LIPS, 7, 8),
    "AU33": (3, 4, 5, 48, "cheek", "mouth_jaw"),
    "AU43": (36, 37, 38, 39, 40, 41),
}
"""Points of the image's left half; the region of an AU is their convex hull and its mirror image."""


def _region_masks(aus: Sequence[str], points: np.ndarray) -> np.ndarray:
    """Return the region of each AU on both sides: (POINTS, 2) pixels -> (A, SIZE, SIZE) bool."""
    return np.stack(
        [_hulls([[point_index(key, side) for key in REGIONS[au]] for side in (0, 1)], points) for au in aus]
    )


def _face_mask(points: np.ndarray) -> np.ndarray:
    """Return the convex hull of the 68 landmarks: (SIZE, SIZE) bool."""
    return _hulls([list(range(68))], points)


def measure_hidden(aus: Sequence[str], points: np.ndarray, cover: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Measure the fractions of a face that a cover hides.

    Args:
        aus: the A AUs.
        points: (POINTS, 2), the control points in the image, pixels.
        cover: (SIZE, SIZE) bool, the hidden pixels, or None without a cover.

    Returns:
        The hidden fraction of the face's convex hull, and those of the AUs' regions, (A,).
    """
    if cover is None:
        return 0.0, np.zeros(len(aus))
    hidden = np.array([cover[mask].mean() for mask in _region_masks(aus, points)])
    return float(cover[_face_mask(points)].mean()), hidden


def _hulls(groups: list[list[int]], points: np.ndarray) -> np.ndarray:
    """Return the convex hulls of groups of points: (SIZE, SIZE) bool."""
    import cv2

    mask = np.zeros((SIZE, SIZE), np.uint8)
    for group in groups:
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points[group]).astype(np.int32)), 1)
    return mask > 0
