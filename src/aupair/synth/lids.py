"""Painting of lowered and closed eyelids (AU43), which a warp of open eyes cannot produce."""

import numpy as np

from aupair.synth.paint import blend, rasterise, stroke
from aupair.synth.portrait import IOD

LASHES = (34, 38, 50)
"""colour, BGR"""
EYES = ((36, 37, 38, 39), (42, 43, 44, 45))
"""landmarks of each eye: a corner, two points of the upper lid, the other corner"""


def paint_lids(image: np.ndarray, above: np.ndarray, below: np.ndarray, share: float) -> None:
    """Paint the upper lids from their position in the image down to a lowered position, in place.

    Args:
        image: (SIZE, SIZE, 3) float32 BGR 0..255.
        above: (POINTS, 2), the control points in the image, pixels.
        below: (POINTS, 2), the control points with lowered lids, pixels.
        share: intensity of AU43 / 5, 0..1.
    """
    for eye in EYES:
        rim, edge = above[[*eye]], below[[*eye]]
        low = np.floor(rim.min(0)).astype(int) - 10
        high = np.ceil(np.maximum(rim, edge).max(0)).astype(int) + 10
        part = image[low[1] : high[1], low[0] : high[0]]
        _paint_lid(part, _curve(rim - low), _curve(edge - low), share)


def _paint_lid(part: np.ndarray, rim: np.ndarray, edge: np.ndarray, share: float) -> None:
    """Paint one lid: its skin with a highlight, the crease above it and the lashes below."""
    lift = np.array([0, IOD])
    x, y = np.round(rim[len(rim) // 2] - 0.13 * lift).astype(int)
    skin = part[max(0, y - 1) : y + 2, x - 3 : x + 4].reshape(-1, 3).mean(0)
    top = rim - 0.07 * min(1.0, 3 * share) * lift * np.sin(np.linspace(0, np.pi, len(rim)))[:, None]
    blend(part, rasterise(part, np.concatenate([top, edge[::-1]]), 1.0), 0.95 * skin)
    middle = 0.5 * (top + edge)
    blend(part, 0.7 * share * stroke(part, middle[2:-2], 2.0), np.minimum(1.15 * skin, 255))
    blend(part, 0.6 * share * stroke(part, top, 1.2), 0.6 * skin)
    for drop in (0.0, 0.012, 0.024):
        blend(part, 0.7 * min(1.0, 2 * share) * stroke(part, edge + drop * lift, 0.6), LASHES)


def _curve(points: np.ndarray, count: int = 13) -> np.ndarray:
    """Return points along the cubic curve through four points: (4, 2) -> (count, 2)."""
    knots = np.arange(4)
    at = np.linspace(0, 3, count)
    return np.stack([np.polyval(np.polyfit(knots, points[:, k], 3), at) for k in (0, 1)], 1)
