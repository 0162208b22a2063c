"""Fitting of the extractor on fit: scales of uncertainty, parameters of the smoothers, and statistics."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aupair.data.frames import Frames
from aupair.mapping.extractor import DISAGREEMENT, SOURCES, Extractor, VideoInput
from aupair.mapping.smoother import Noise, Uncertainty
from aupair.mapping.smoother_choice import FitStretches
from aupair.mapping.statistics import Statistics
from aupair.params import ExtractFeatures

FRAMES_AT_ONCE = 2**18
"""number of frames smoothed together; the smoother's arrays are then small compared with those of all frames"""


@dataclass(frozen=True)
class FittedExtractor:
    """A fitted extractor and the values that it computes for all N frames.

    Attributes:
        extractor: the extractor of all routes of its params.
        evidence: for each smoothed route, the results of the choice of its parameters.
        values: (N, A) float32 by route, NaN for frames without a face.
        spread: (N, A) float32, the standard deviation on the deciding route; empty if that route is not smoothed.
    """

    extractor: Extractor
    evidence: dict[str, dict[str, Any]]
    values: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]

    def smoothed(self) -> dict[str, np.ndarray]:
        """Return the smoothed values by route, and the standard deviation on the deciding route as `NAME.spread`."""
        values = {route: self.values[route] for route in self.extractor.noises}
        return values | {f"{route}.spread": own for route, own in self.spread.items()}


def fit_extractor(
    frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, quality: np.ndarray, params: ExtractFeatures
) -> FittedExtractor:
    """Fit the extractor of all routes of the params; for the arguments see `write_features`.

    Raises:
        ArtifactError: no frame of fit has a face.
    """
    fit_faces = frames.of_split("fit") & frames.ok
    extractor, evidence = _fit_smoothers(frames, y_hat, sigma, quality, params)
    values, spread = _smooth_all(extractor, frames, y_hat, sigma, quality)
    statistics = {
        route: Statistics.from_fit_frames(values[route][fit_faces], sigma[fit_faces] if route == "columns" else None)
        for route in params.routes
    }
    return FittedExtractor(replace(extractor, statistics=statistics), evidence, values, spread)


def _fit_smoothers(
    frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, quality: np.ndarray, params: ExtractFeatures
) -> tuple[Extractor, dict[str, dict[str, Any]]]:
    """Compute the scales of uncertainty and choose the parameters of each smoother on fit.

    Returns:
        An extractor without statistics, and the results of the choice for each route.
    """
    smoothed = [route for route in params.routes if route in SOURCES]
    if not smoothed:
        return Extractor(params), {}
    fit_faces = frames.of_split("fit") & frames.ok
    sources = {"sigma": sigma, "quality": quality[:, DISAGREEMENT, None]}
    scales = {name: Uncertainty.from_fit_frames(values[fit_faces]) for name, values in sources.items()}
    known = {name: scale for name, scale in scales.items() if scale is not None}
    extractor, stretches = Extractor(params, scales=known), FitStretches(frames, y_hat)
    noises: dict[str, Noise] = {}
    evidence: dict[str, dict[str, Any]] = {}
    for route in smoothed:
        uses_source = any(name in known for name in SOURCES[route])
        z = extractor.uncertainty(route, VideoInput(y_hat, sigma, quality, frames.time)) if uses_source else None
        choice = stretches.choose(z)
        noises[route] = choice.noise
        evidence[route] = choice.table() | {"r_squared_without_smoother": stretches.raw_r_squared()}
    return replace(extractor, noises=noises), evidence


def _smooth_all(
    extractor: Extractor, frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, quality: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the values of all frames by route, and the standard deviation on the deciding route if it is smoothed."""
    values = {"raw": y_hat, "columns": y_hat} | {route: np.full_like(y_hat, np.nan) for route in extractor.noises}
    spread = {route: np.full_like(y_hat, np.nan) for route in extractor.deciding if route in extractor.noises}
    if not extractor.noises:
        return values, spread
    longest_first = sorted(frames.slices(), key=lambda rows: rows.start - rows.stop)
    while longest_first:
        ends = np.cumsum([rows.stop - rows.start for rows in longest_first])
        count = int(np.searchsorted(ends, FRAMES_AT_ONCE)) + 1
        batch, longest_first = longest_first[:count], longest_first[count:]
        videos = [VideoInput(y_hat[rows], sigma[rows], quality[rows], frames.time[rows]) for rows in batch]
        for rows, result in zip(batch, extractor.smooth(videos)):
            for route in extractor.noises:
                values[route][rows] = result.values[route]
            for route in spread:
                spread[route][rows] = result.spread[route]
    return values, spread
