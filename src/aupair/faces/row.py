"""The result of preprocess-faces for one frame."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class FaceRow:
    """A frame with its aligned face; all but the first three fields are None or NaN unless the status is ok.

    A crop has no landmarks, transform or quality signals: these are None or NaN as well.
    """

    frame: int
    """0-based"""
    time: float
    """seconds from the start of the video"""
    status: Literal["ok", "no_face", "unreadable"]
    image: np.ndarray | None = None
    """(S, S, 3) uint8, RGB: the aligned face"""
    landmarks: np.ndarray | None = None
    """(68, 2) float64, x, y in pixels of the source frame"""
    transform: np.ndarray | None = None
    """(2, 3) float64, pixels of the source frame -> pixels of the aligned face"""
    detector_score: float = np.nan
    tracked: bool = False
    pass_disagreement: float = np.nan
    procrustes_residual: float = np.nan
