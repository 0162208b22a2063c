"""Painting of the inside of the mouth, which the portrait lacks: teeth, a tongue, or the seam of closed lips."""

import numpy as np

from aupair.synth.paint import blend, rasterise, stroke
from aupair.synth.portrait import IOD, SEAM

GAP, TEETH, TONGUE, SHADOW = (28, 22, 52), (175, 195, 205), (70, 65, 140), (40, 30, 70)
TONGUE_OUT, TONGUE_LIT = (88, 82, 165), (125, 120, 205)
"""colours, BGR"""


def paint_mouth(image: np.ndarray, points: np.ndarray, press: float, tongue: float = 0.0) -> None:
    """Paint the mouth between the inner lips, in place.

    Args:
        image: (SIZE, SIZE, 3) float32 BGR 0..255.
        points: (POINTS, 2) pixels; points 60 to 67 are the inner lips.
        press: intensity of AU24 / 5, 0..1, which darkens the seam.
        tongue: intensity of AU19 / 5, 0..1, by which the tongue extends over the lower lip.
    """
    low = np.maximum(np.floor(points[48:68].min(0)).astype(int) - 8, 0)
    high = np.ceil(points[48:68].max(0)).astype(int) + 8 + int(0.2 * IOD * tongue)
    part = image[low[1] : high[1], low[0] : high[0]]
    lips = points[60:68] - low
    gap = float(np.linalg.norm(lips[6] - lips[2])) / IOD
    if gap > SEAM + 0.012:
        _paint_opening(part, lips, gap)
    else:
        _paint_seam(part, lips, press)
    if tongue > 0:
        _paint_tongue(part, lips, tongue)


def _paint_opening(part: np.ndarray, lips: np.ndarray, gap: float) -> None:
    """Fill the opening with teeth along the upper lip and, if the gap is wide, with the tongue."""
    inside = np.empty_like(part)
    inside[:] = GAP
    height = IOD * min(0.10, 0.55 * (gap - SEAM))
    edge = lips[:5] + np.outer([0, 0.9, 1, 0.9, 0], [0, height])
    blend(inside, rasterise(part, np.concatenate([lips[:5], edge[::-1]]), 0.8), TEETH)
    if gap > 0.15:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        oval = np.stack([0.22 * np.cos(angles), 0.06 + 0.09 * np.sin(angles)], 1) * IOD
        blend(inside, 0.8 * rasterise(part, 0.75 * lips[6] + 0.25 * lips[2] + oval, 2.0), TONGUE)
    opening = rasterise(part, lips, 0.7)
    part += opening * (inside - part)


def _paint_seam(part: np.ndarray, lips: np.ndarray, press: float) -> None:
    """Draw the line at which closed lips meet."""
    seam = np.array([lips[0], (lips[1] + lips[7]) / 2, (lips[2] + lips[6]) / 2, (lips[3] + lips[5]) / 2, lips[4]])
    blend(part, (0.5 + 0.25 * press) * stroke(part, seam, 0.6), SHADOW)


def _paint_tongue(part: np.ndarray, lips: np.ndarray, share: float) -> None:
    """Draw the tongue from the opening down over the lower lip, with a round tip and a darker rim and groove."""
    across, root = (lips[4] - lips[0]) / 2, 0.4 * lips[2] + 0.6 * lips[6]
    down = np.array([-across[1], across[0]]) / np.linalg.norm(across)
    length, wide = (0.06 + 0.30 * share) * IOD, 0.5 * across
    angles = np.linspace(0, np.pi, 16)
    tip = root + 0.45 * length * down + np.outer(np.cos(angles), wide) + 0.55 * length * np.outer(np.sin(angles), down)
    shape = np.concatenate([[root - 0.95 * wide], tip[::-1], [root + 0.95 * wide]])
    blend(part, 0.55 * rasterise(part, shape + 0.03 * IOD * down, 1.5), SHADOW)
    blend(part, rasterise(part, shape, 0.7), TONGUE_OUT)
    middle = root + 0.4 * length * down
    blend(part, 0.6 * rasterise(part, middle + 0.75 * (shape - middle), 1.5), TONGUE_LIT)
    groove = np.stack([root - 0.02 * across, root + 0.7 * length * down, root + 0.02 * across])
    blend(part, 0.5 * rasterise(part, groove, 0.8), TONGUE)
