"""The statistics of the split fit by which G scales y_hat and converts sigma to a certainty."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aupair import store
from aupair.errors import ArtifactError

CDF_POINTS = 201


@dataclass(frozen=True)
class Statistics:
    """Statistics of the values of one route, and of sigma, on the fit split.

    They are computed from out-of-fold values: each frame is scored by networks that were not trained on its person.

    Attributes:
        y_min, y_max: (A,) float32, the lowest and highest value of each AU.
        sigma_max: (A,) float32, the highest sigma of each AU; None on a route without columns of uncertainty.
        log_sigma: (A, CDF_POINTS) float32, quantiles of log sigma at evenly spaced probabilities from 0 to 1, or None.
    """

    y_min: np.ndarray
    y_max: np.ndarray
    sigma_max: np.ndarray | None = None
    log_sigma: np.ndarray | None = None

    @classmethod
    def from_fit_frames(cls, y: np.ndarray, sigma: np.ndarray | None = None) -> "Statistics":
        """Compute the statistics.

        Args:
            y, sigma: (n, A) float, for the fit frames with a face.

        Raises:
            ArtifactError: n is 0.
        """
        if len(y) == 0:
            raise ArtifactError(
                "no frame of fit has a face", todo="look at the statuses that preprocess-faces reported"
            )
        arrays = [y.min(0), y.max(0)]
        if sigma is not None:
            probabilities = np.linspace(0, 1, CDF_POINTS)
            arrays += [sigma.max(0), np.quantile(np.log(sigma.astype(np.float64)), probabilities, axis=0).T]
        return cls(*(array.astype(np.float32) for array in arrays))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, for a file."""
        return {name: values for name, values in vars(self).items() if values is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], path: Path) -> "Statistics":
        """Return the statistics from the output of `arrays`, read from the file `path`.

        Raises:
            ArtifactError: an array is missing or has another shape.
        """
        count = store.check_array(arrays.get("y_min"), "y_min", (None,), "f", path).shape[0]
        shapes = {"y_min": (count,), "y_max": (count,), "sigma_max": (count,), "log_sigma": (count, CDF_POINTS)}
        names = shapes if "sigma_max" in arrays or "log_sigma" in arrays else ("y_min", "y_max")
        return cls(**{name: store.check_array(arrays.get(name), name, shapes[name], "f", path) for name in names})

    def scale(self, y: np.ndarray) -> np.ndarray:
        """Return y' = 2 (y - min) / (max - min) - 1: (n, A) -> (n, A) float64, in [-1, 1] on fit (# authors)."""
        span = np.maximum(self.y_max - self.y_min, 1e-6).astype(np.float64)
        return 2 * (y - self.y_min) / span - 1

    def certainty(self, sigma: np.ndarray, kind: str) -> np.ndarray:
        """Return the certainty of sigma, 0..1: (n, A) -> (n, A) float64; NaN where sigma is NaN.

        Kind `quantile` is 1 - CDF_fit(log sigma) (# ours, robust to outliers), and kind `min_max` is
        clamp(1 - sigma / sigma_max, 0, 1) (# authors).
        """
        assert self.sigma_max is not None
        assert self.log_sigma is not None
        if kind == "min_max":
            return np.clip(1 - sigma.astype(np.float64) / self.sigma_max, 0, 1)
        grid = np.linspace(0, 1, CDF_POINTS)
        log_sigma = np.log(sigma.astype(np.float64))
        ranks = [np.interp(log_sigma[:, a], _increasing(q), grid) for a, q in enumerate(self.log_sigma)]
        return 1 - np.stack(ranks, axis=1)


def _increasing(quantiles: np.ndarray) -> np.ndarray:
    """Make quantiles strictly increasing, so that interpolation is defined for a constant sigma."""
    return quantiles.astype(np.float64) + np.arange(len(quantiles)) * 1e-9
