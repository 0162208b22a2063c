"""A smoother of y_hat over a whole video, in which the uncertainty of a frame determines the variance of its noise.

It is a state-space model for each AU and video; x is the pseudo-intensity without errors of f:

    x_t = mu + rho_t (x_{t-1} - mu) + N(0, V (1 - rho_t^2)),    rho_t = exp(-(time_t - time_{t-1}) / tau)
    y_hat_t = x_t + N(0, R_t),                                  R_t = V (2 reach^2 / tau) exp(power z_t) / interval

mu is the median of y_hat in the video and V the variance of y_hat about such medians on fit; x is thus an
Ornstein-Uhlenbeck process. z_t is the standardised log uncertainty of the frame (`Uncertainty`). A frame of average
uncertainty (z = 0) is averaged with its neighbours over about `reach` seconds on each side; a frame with a higher z gets
more of its value from them. A Kalman filter runs forward and a Rauch-Tung-Striebel pass backward over the whole video.

The errors of neighbouring frames are correlated, so that a higher frame rate adds no information: R is divided by the
interval between frames, and the same parameters fit every frame rate. The mean depends only on the ratio of R to the
variance of the steps of x, which is 2 V / tau per second for intervals far below tau. Therefore only `reach` is chosen; tau
has little effect (docs/log/2026-11-30-smoother.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TAU = 4.0
"""time constant of x: after TAU seconds the correlation with its earlier value is 1/e"""
CLIP = 3.0
"""maximum of |z|"""
LANES = 2**20
"""maximum size of an array while several videos are smoothed together"""
UNKNOWN_INTERVAL = 0.04
"""interval in seconds that is assumed for a video with a single frame"""


@dataclass(frozen=True)
class Noise:
    """The parameters of a smoother.

    Attributes:
        reach: seconds on each side over which a frame of average uncertainty is averaged.
        power: exponent of the uncertainty; with 0 the noise is constant.
        variance: V of each AU, A numbers.
        tau: seconds; see TAU.
    """

    reach: float
    power: float
    variance: tuple[float, ...]
    tau: float = TAU


@dataclass(frozen=True)
class Uncertainty:
    """The scale of a measure of uncertainty (sigma, or the disagreement of the two landmark passes), from fit.

    Attributes:
        center: (K,) float64, the median of the logarithm on fit.
        spread: (K,) float64, half the distance between the quantiles .16 and .84 of the logarithm.
    """

    center: np.ndarray
    spread: np.ndarray

    @classmethod
    def from_fit_frames(cls, values: np.ndarray) -> "Uncertainty | None":
        """Compute the scale from values (n, K), NaN if unknown; return None if no value is known."""
        known = ~np.isnan(values).any(axis=1)
        if not known.any():
            return None
        low, center, high = np.quantile(_log(values[known]), (0.16, 0.5, 0.84), axis=0)
        return cls(center, (high - low) / 2)

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Return z, (n, K) -> (n, K) float64, in [-CLIP, CLIP]; 0, which has no effect, for an unknown value (NaN)."""
        spread = np.where(self.spread > 1e-9, self.spread, np.inf)  # a constant contains no information
        return np.nan_to_num(np.clip((_log(values) - self.center) / spread, -CLIP, CLIP), nan=0.0)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(values, np.float64), 1e-9))


class Clip(NamedTuple):
    """The n frames of one video.

    Attributes:
        y: (n, A) float, y_hat, NaN for frames without a face.
        z: (n, A) float64, standardised log uncertainty.
        time: (n,) float64, seconds, never decreasing.
    """

    y: np.ndarray
    z: np.ndarray
    time: np.ndarray


def smooth(y: np.ndarray, z: np.ndarray, time: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of x given all y_hat of a video; for arguments see `Clip`.

    Returns:
        Two (n, A) float64 arrays, NaN where y is.
    """
    return smooth_clips([Clip(y, z, time)], noise)[0]


def smooth_clips(clips: Sequence[Clip], noise: Noise) -> list[tuple[np.ndarray, np.ndarray]]:
    """Smooth many videos, with the same bits as `smooth`.

    Videos of similar length are processed together, since a step over a few numbers takes as long as one over a hundred:
    2.6 million frames of 540 videos and 12 AUs take about 10 s on one core instead of 2 minutes.
    """
    results: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(clips)
    order = sorted(range(len(clips)), key=lambda k: -len(clips[k].time))
    while order:
        longest, aus = clips[order[0]].y.shape
        count = max(1, LANES // max(longest * aus, 1))
        batch, order = order[:count], order[count:]
        parts = [_prepare(clips[k], noise) for k in batch]
        deviation, variance, rho = (np.zeros((longest, len(batch), width)) for width in (aus, aus, 1))
        variance += np.inf
        for lane, part in enumerate(parts):
            for array, values in zip((deviation, variance, rho), part[1:]):
                array[: len(values), lane] = values
        mean, spread = smooth_lanes(deviation, variance, rho, np.array(noise.variance))
        for lane, (k, (center, *_)) in enumerate(zip(batch, parts)):
            rows = slice(len(clips[k].time))
            unknown = np.isnan(clips[k].y)
            results[k] = (
                np.where(unknown, np.nan, mean[rows, lane] + center),
                np.where(unknown, np.nan, np.sqrt(spread[rows, lane])),
            )
    return results


def _prepare(clip: Clip, noise: Noise) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mu (A,), the deviations (n, A), R (n, A) and rho (n, 1) of a video."""
    center = video_median(clip.y)
    unit = np.array(noise.variance) * unit_noise(noise.reach, noise.tau, frame_interval(clip.time))
    variance = np.where(np.isnan(clip.y), np.inf, unit * np.exp(noise.power * clip.z))
    return center, np.nan_to_num(clip.y - center, nan=0.0), variance, decay(clip.time, noise.tau)


def video_median(y: np.ndarray) -> np.ndarray:
    """Return the median of each AU over the frames with a face, (n, A) -> (A,) float64; 0 without such a frame."""
    known = y[~np.isnan(y).any(axis=1)].astype(np.float64)
    return np.median(known, axis=0) if len(known) else np.zeros(y.shape[1])


def frame_interval(time: np.ndarray) -> float:
    """Return the median interval between consecutive frames in seconds, ignoring intervals of 0."""
    steps = np.diff(time)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else UNKNOWN_INTERVAL


def unit_noise(reach: float, tau: float, interval: float) -> float:
    """Return R / V of a frame with z = 0."""
    return 2 * reach**2 / tau / interval


def decay(time: np.ndarray, tau: float) -> np.ndarray:
    """Return rho_t, (n, 1): 0 for the first frame, so that x starts with the variance V; 1 for an interval of 0."""
    rho = np.zeros((len(time), 1))
    rho[1:, 0] = np.exp(-np.maximum(np.diff(time), 0) / tau)
    return rho


def smooth_lanes(
    deviation: np.ndarray, noise: np.ndarray, rho: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of x - mu given all observations, for many independent series in one pass.

    All four arguments broadcast against each other.

    Args:
        deviation: (T, ..., A) float64, y_hat - mu; any finite number if unknown.
        noise: (T, ..., A) float64, R > 0; infinite if y_hat is unknown, and after the last frame of a series.
        rho: (T, ..., 1) float64, rho_t.
        variance: (A,) float64, V.

    Returns:
        Two float64 arrays of the shape of `noise`.
    """
    mean, spread = np.empty(noise.shape), np.empty(noise.shape)
    m, p = np.zeros(noise.shape[1:]), np.broadcast_to(variance, noise.shape[1:])
    for t in range(len(noise)):
        m, p = _predict(m, p, rho[t], variance)
        gain = p / (p + noise[t])
        m, p = m + gain * (deviation[t] - m), (1 - gain) * p
        mean[t], spread[t] = m, p
    for t in range(len(noise) - 2, -1, -1):
        predicted, predicted_spread = _predict(mean[t], spread[t], rho[t + 1], variance)
        gain = rho[t + 1] * spread[t] / predicted_spread
        mean[t] += gain * (mean[t + 1] - predicted)
        spread[t] += gain * gain * (spread[t + 1] - predicted_spread)
    return mean, spread


def _predict(
    mean: np.ndarray, spread: np.ndarray, rho: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted mean and variance of the next x - mu."""
    return rho * mean, variance + rho * rho * (spread - variance)
