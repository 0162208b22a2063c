"""The further inputs of h besides the features of f's trunk: quality signals and the spread of the networks of f."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.data.quality import QUALITY_SIGNALS

CLIP = 4.0
"""bound of standardised inputs, which limits the effect of outliers"""
_SMALLEST = 1e-6
_LINEAR = QUALITY_SIGNALS.index("detector_score")
"""the only signal that is used without a transform; the others are distances, of which the logarithm is used"""


@dataclass(frozen=True)
class Signals:
    """The standardisation of the signals.

    Attributes:
        center, scale: (Q,) float64, where Q is 3, or 3 + A with the spread of each AU.
    """

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, quality: np.ndarray, spread: np.ndarray | None, rows: np.ndarray) -> "Signals":
        """Return the standardisation of the signals on some frames.

        Args:
            quality: (N, 3), see `data.quality.load_quality`.
            spread: (N, A), the standard deviation over the networks of f, or None.
            rows: (n,) frames.
        """
        values = _transform(quality[rows], None if spread is None else spread[rows])
        known = np.isfinite(values)
        number = np.maximum(known.sum(axis=0), 1)
        center = np.where(known, values, 0).sum(axis=0) / number
        scale = np.sqrt((np.where(known, values - center, 0) ** 2).sum(axis=0) / number)
        return cls(center, np.maximum(scale, 1e-3))

    def __call__(self, quality: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
        """Return standardised signals, (n, Q) float64; an unknown signal (NaN) becomes 0, the mean."""
        with np.errstate(invalid="ignore"):
            standard = np.clip((_transform(quality, spread) - self.center) / self.scale, -CLIP, CLIP)
        return np.where(np.isfinite(standard), standard, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the standardisation as plain values."""
        return dict(vars(self))


def _transform(quality: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
    """Return the signals before standardisation, (n, Q) float64, with distances as logarithms."""
    logs = np.log(np.maximum(quality.astype(np.float64), _SMALLEST))
    logs[:, _LINEAR] = quality[:, _LINEAR]
    return logs if spread is None else np.hstack([logs, np.log(np.maximum(spread.astype(np.float64), _SMALLEST))])
