"""Painting of shapes with soft edges over a part of an image."""

import numpy as np


def rasterise(part: np.ndarray, polygon: np.ndarray, blur: float) -> np.ndarray:
    """Rasterise a polygon with soft edges: (H, W, 1) float32 0..1."""
    import cv2

    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32)[..., None] / 255


def stroke(part: np.ndarray, path: np.ndarray, blur: float) -> np.ndarray:
    """Rasterise a blurred line of one pixel width: (H, W, 1) float32 0..1."""
    import cv2

    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.polylines(mask, [np.round(path * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32)[..., None] / 255


def blend(part: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] | np.ndarray) -> None:
    """Blend a colour over the part, in place."""
    part += mask * (np.array(colour, np.float32) - part)
