"""Descriptors of an aligned face: colour, contrast and sharpness, which differ between recording conditions."""

from collections.abc import Sequence

import numpy as np

SCALES = 4
"""The number of scales at which sharpness is measured: the aligned image, reduced by 1, 2, 4 and 8."""
APPEARANCE = (
    *(f"{moment}_{channel}" for moment in ("mean", "contrast") for channel in ("red", "green", "blue")),
    *(f"sharpness_{axis}_{2**scale}" for scale in range(SCALES) for axis in ("y", "x")),
)
"""The names of the values that `describe_appearance` returns."""


def describe_appearance(image: np.ndarray) -> np.ndarray:
    """Return the logarithms of colour, contrast and sharpness of an aligned face.

    Sharpness is the mean absolute difference of neighbouring pixels, at each scale and along both axes.

    Args:
        image: (S, S, 3) uint8, RGB.

    Returns:
        (14,) float32, in the order of APPEARANCE.
    """
    pixels = image.astype(np.float32)
    numbers = [np.log(pixels.mean((0, 1)) + 1), np.log(pixels.std((0, 1)) + 1)]
    grey = pixels.mean(2)
    for _ in range(SCALES):
        steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
        numbers.append(np.log(np.array(steps, np.float32) + 0.1))
        half = len(grey) // 2
        grey = grey[: 2 * half, : 2 * half].reshape(half, 2, half, 2).mean((1, 3))
    return np.concatenate(numbers)


def describe_faces(images: Sequence[np.ndarray], transforms: np.ndarray) -> np.ndarray:
    """Return the appearance of aligned faces and the logarithm of their size in the source frame.

    Args:
        images: n images (S, S, 3) uint8, RGB.
        transforms: (n, 2, 3), pixels of the frame -> aligned pixels; NaN if unknown.

    Returns:
        (n, 15) float32: the columns of APPEARANCE, then log(side of the aligned area in pixels of the frame).
    """
    appearance = np.array([describe_appearance(image) for image in images]).reshape(len(images), len(APPEARANCE))
    scale = np.hypot(transforms[:, 0, 0], transforms[:, 1, 0])
    side = np.array([len(image) for image in images])
    return np.column_stack([appearance, np.log(side / scale)]).astype(np.float32)
