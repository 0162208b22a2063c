"""The inside of the mouth, which the portrait lacks: a dark gap, teeth, a tongue, or the seam of closed lips."""

import numpy as np

from aupair.synth.portrait import IOD, SEAM

GAP, TEETH, TONGUE, SHADOW = (28, 22, 52), (175, 195, 205), (70, 65, 140), (40, 30, 70)
"""colours, BGR"""


def paint_mouth(image: np.ndarray, points: np.ndarray, press: float) -> None:
    """Paint the mouth between the inner lips, in place.

    Args:
        image: (SIZE, SIZE, 3) float32 BGR 0..255.
        points: (POINTS, 2) pixels; 60..67 are the inner lips.
        press: AU24's share, 0..1: a pressed seam is darker.
    """
    low = np.maximum(np.floor(points[48:68].min(0)).astype(int) - 8, 0)
    high = np.ceil(points[48:68].max(0)).astype(int) + 8
    part = image[low[1] : high[1], low[0] : high[0]]
    lips = points[60:68] - low
    gap = float(np.linalg.norm(lips[6] - lips[2])) / IOD
    if gap > SEAM + 0.012:
        _paint_opening(part, lips, gap)
    else:
        _paint_seam(part, lips, press)


def _paint_opening(part: np.ndarray, lips: np.ndarray, gap: float) -> None:
    """Fill the opening with teeth along the upper lip, and with the tongue where the gap is wide."""
    inside = np.empty_like(part)
    inside[:] = GAP
    height = IOD * min(0.10, 0.55 * (gap - SEAM))
    edge = lips[:5] + np.outer([0, 0.9, 1, 0.9, 0], [0, height])
    _blend(inside, _rasterise(part, np.concatenate([lips[:5], edge[::-1]]), 0.8), TEETH)
    if gap > 0.15:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        oval = np.stack([0.22 * np.cos(angles), 0.06 + 0.09 * np.sin(angles)], 1) * IOD
        _blend(inside, 0.8 * _rasterise(part, 0.75 * lips[6] + 0.25 * lips[2] + oval, 2.0), TONGUE)
    opening = _rasterise(part, lips, 0.7)
    part += opening * (inside - part)


def _paint_seam(part: np.ndarray, lips: np.ndarray, press: float) -> None:
    """Draw the line where the lips meet."""
    import cv2

    seam = np.array([lips[0], (lips[1] + lips[7]) / 2, (lips[2] + lips[6]) / 2, (lips[3] + lips[5]) / 2, lips[4]])
    line = np.zeros(part.shape[:2], np.uint8)
    cv2.polylines(line, [np.round(seam * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(line, (0, 0), 0.6).astype(np.float32)[..., None] / 255
    _blend(part, (0.5 + 0.25 * press) * soft, SHADOW)


def _rasterise(part: np.ndarray, polygon: np.ndarray, blur: float) -> np.ndarray:
    """Rasterise a polygon with soft edges: (H, W, 1) float32 0..1."""
    import cv2

    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32)[..., None] / 255


def _blend(part: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Blend a colour over the part, in place."""
    part += mask * (np.array(colour, np.float32) - part)
