"""The authors' features of 2020 (arXiv 2010.00288), a baseline without uncertainty: 36 numbers for each frame and AU.

They are the frame's own y' and the distribution of y' over the video, as a histogram and as percentiles.
"""

from collections.abc import Iterator

import numpy as np

POINTS = np.linspace(-1, 1, 24)
"""points at which the density is estimated; y' is in [-1, 1] on fit"""
PERCENTILES = range(0, 101, 10)
NARROWEST = 1e-3
"""smallest bandwidth, used for a video with a constant value"""


def histogram_columns(pool: np.ndarray, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and values (A,) of the 35 columns common to all frames, from y' of the pool (m, A)."""
    for k, row in enumerate(_estimate_density(pool)):
        yield f"{prefix}.histogram{k}", row
    values = pool if len(pool) else np.zeros((1, pool.shape[1]))
    for p, row in zip(PERCENTILES, np.percentile(values, PERCENTILES, axis=0)):
        yield f"{prefix}.p{p}", row


def _estimate_density(values: np.ndarray) -> np.ndarray:
    """Estimate the density at POINTS by Gaussian kernels of bandwidth sd m^(-1/5) (Scott): (m, A) -> (24, A), of sum 1.

    It is computed in logarithms, since the density of values far from all points would underflow to 0.
    """
    m = len(values)
    if m == 0:
        return np.full((len(POINTS), values.shape[1]), 1 / len(POINTS))
    values = np.sort(values, axis=0)  # sums must not depend on the order of frames and clips
    spread = values.std(axis=0, ddof=1) if m > 1 else np.zeros(values.shape[1])
    bandwidth = np.maximum(spread * m**-0.2, NARROWEST)
    logs = np.empty((len(POINTS), values.shape[1]))
    for k, point in enumerate(POINTS):
        exponent = -0.5 * ((point - values) / bandwidth) ** 2
        peak = exponent.max(axis=0)
        logs[k] = peak + np.log(np.exp(exponent - peak).sum(axis=0))
    weight = np.exp(logs - logs.max(axis=0))
    return weight / weight.sum(axis=0)
