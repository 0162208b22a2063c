"""The result of preprocess-faces for one frame."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class FaceRow:
    """A frame with its aligned face.

    Unless the status is ok, all fields but the first three are None, NaN or False. The frames of a folder of crops have
    no landmarks, transform or quality signals.
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
