"""The extractor, which computes the features of a video from its scores on each route, for training and prediction.

A route is a way in which y_hat and its uncertainty enter a mapping:

    raw        y_hat unchanged; the mapping without uncertainty
    constant   y_hat smoothed with constant noise, to measure the effect of smoothing without uncertainty
    sigma      y_hat smoothed, with the sigma of h as noise
    quality    y_hat smoothed, with the disagreement of the two landmark passes as noise
    both       y_hat smoothed, with the mean of the standardised logarithms of both as noise
    columns    y_hat unchanged, and columns of G that are computed from sigma; the paper's method, without a smoother

The predictions come from the routes `raw` (without uncertainty) and `extract_features.deciding` (with uncertainty); the
other routes are only for comparison. A source of uncertainty that is unknown in all of fit (crops have no landmarks) is not
used: `both` then uses sigma only, and `quality` has constant noise. In a frame in which it is unknown, it has no effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from aupair import store
from aupair.data.quality import QUALITY_SIGNALS
from aupair.errors import ArtifactError
from aupair.mapping.columns import Scores, VideoFeatures, pool_clips
from aupair.mapping.smoother import Clip, Noise, Uncertainty, smooth_clips
from aupair.mapping.statistics import Statistics
from aupair.params import ExtractFeatures

SOURCES = {"constant": (), "sigma": ("sigma",), "quality": ("quality",), "both": ("sigma", "quality")}
"""The smoothed routes and their sources of uncertainty."""
DISAGREEMENT = QUALITY_SIGNALS.index("pass_disagreement")
STATISTICS, SMOOTHER = "statistics.safetensors", "smoother.json"
"""The files that `Extractor.save` writes."""


class _Noise(store.Artifact):
    """The parameters of the smoother on one route; see `Noise`."""

    reach: Annotated[float, Field(gt=0)]
    power: float
    variance: tuple[float, ...]
    tau: Annotated[float, Field(gt=0)]


class _Smoother(store.Artifact):
    """The part of smoother.json that is read; the rest are the results of the choice of the parameters."""

    routes: dict[str, _Noise]


def _check_scale(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Check that a scale of uncertainty has center and spread of equal lengths, and return both."""
    center = store.check_array(arrays.get("center"), "center of an uncertainty", (None,), "f", path)
    spread = store.check_array(arrays.get("spread"), "spread of an uncertainty", center.shape, "f", path)
    return {"center": center, "spread": spread}


class VideoInput(NamedTuple):
    """The scores of the n frames of one video.

    Attributes:
        y_hat, sigma: (n, A) float32, NaN for frames without a face.
        quality: (n, 3) float32, see `load_quality`; NaN if unknown.
        time: (n,) float64, seconds.
    """

    y_hat: np.ndarray
    sigma: np.ndarray
    quality: np.ndarray
    time: np.ndarray


class RouteValues(NamedTuple):
    """The values of the n frames of one video on each route.

    Attributes:
        values: (n, A) float32 by route, NaN for frames without a face.
        spread: (n, A) float32 by smoothed route, the standard deviation of the smoothed value.
        sigma: (n, A) float32.
        time: (n,) float64, seconds.
    """

    values: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]
    sigma: np.ndarray
    time: np.ndarray

    def scores(self, route: str) -> Scores:
        """Return the input of G on a route."""
        return Scores(self.values[route], self.sigma if route == "columns" else None)


@dataclass(frozen=True)
class Extractor:
    """The smoothers, the statistics of fit and the settings of some routes.

    Attributes:
        params: settings of extract-features.
        noises: the parameters of the smoother on each smoothed route.
        scales: the scale of each known source of uncertainty: `sigma` (A,), `quality` (1,).
        statistics: the statistics that G needs, by route; the keys are the routes of the extractor.
    """

    params: ExtractFeatures
    noises: dict[str, Noise] = field(default_factory=dict)
    scales: dict[str, Uncertainty] = field(default_factory=dict)
    statistics: dict[str, Statistics] = field(default_factory=dict)

    @property
    def deciding(self) -> tuple[str, ...]:
        """Return the routes of the predictions without and with uncertainty; only one if G has no uncertainty."""
        return tuple(dict.fromkeys(("raw", self.params.deciding)))

    def only(self, routes: Sequence[str]) -> "Extractor":
        """Return an extractor with some of the routes."""
        noises = {route: noise for route, noise in self.noises.items() if route in routes}
        statistics = {route: own for route, own in self.statistics.items() if route in routes}
        return replace(self, noises=noises, statistics=statistics)

    def uncertainty(self, route: str, video: VideoInput) -> np.ndarray:
        """Return z of a smoothed route, (n, A) float64: the mean over its known sources, or 0 without a source."""
        values = {"sigma": video.sigma, "quality": video.quality[:, DISAGREEMENT, None]}
        parts = [self.scales[name].standardise(values[name]) for name in SOURCES[route] if name in self.scales]
        total = sum(parts, start=np.zeros(video.y_hat.shape))
        return total / max(len(parts), 1)

    def smooth(self, videos: Sequence[VideoInput]) -> list[RouteValues]:
        """Compute the values of several videos on each route; the bits are those of each video alone."""
        results = [RouteValues({"raw": v.y_hat, "columns": v.y_hat}, {}, v.sigma, v.time) for v in videos]
        for route, noise in self.noises.items():
            clips = [Clip(video.y_hat, self.uncertainty(route, video), video.time) for video in videos]
            for result, (mean, spread) in zip(results, smooth_clips(clips, noise)):
                result.values[route], result.spread[route] = mean.astype(np.float32), spread.astype(np.float32)
        return results

    def features(self, video: RouteValues, pool: Sequence[RouteValues] | None = None) -> "RouteFeatures":
        """Return the computation of a video's features on each route.

        Args:
            pool: all clips of the person including this video (`neutral: person`); None: this video alone.
        """
        return RouteFeatures({
            route: VideoFeatures(
                video.scores(route), video.time, statistics, self.params,
                None if pool is None else pool_clips(clip.scores(route) for clip in pool),
            )
            for route, statistics in self.statistics.items()
        })  # fmt: skip

    def save(self, folder: Path, evidence: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Write the statistics as safetensors and the parameters of the smoothers as JSON into an existing folder.

        Args:
            evidence: for each route, the results of the choice of its parameters.
        """
        arrays = {f"{route}.{k}": v for route, own in self.statistics.items() for k, v in own.arrays().items()}
        arrays |= {f"uncertainty.{name}.{k}": v for name, scale in self.scales.items() for k, v in vars(scale).items()}
        store.write_arrays(Path(folder) / STATISTICS, arrays)
        numbers = {route: {**vars(noise), **(evidence or {}).get(route, {})} for route, noise in self.noises.items()}
        store.write_json(Path(folder) / SMOOTHER, {"routes": numbers})

    @classmethod
    def load(cls, folder: Path, params: ExtractFeatures) -> "Extractor":
        """Load an extractor that `save` wrote, or one of an earlier bundle without routes.

        Raises:
            ArtifactError: a file is missing or corrupt, or lacks a route of the params.
        """
        arrays = store.read_arrays(Path(folder) / STATISTICS)
        if not any("." in name for name in arrays):
            return cls._of_earlier_version(Statistics.from_arrays(arrays, Path(folder) / STATISTICS), params)
        numbers = store.read_record(Path(folder) / SMOOTHER, _Smoother)

        def group(prefix: str, names: Sequence[str]) -> dict[str, np.ndarray]:
            return {name: arrays[f"{prefix}.{name}"] for name in names if f"{prefix}.{name}" in arrays}

        noises = {route: Noise(own.reach, own.power, own.variance, own.tau) for route, own in numbers.routes.items()}
        scales = {name: group(f"uncertainty.{name}", ("center", "spread")) for name in ("sigma", "quality")}
        path = Path(folder) / STATISTICS
        statistics = {
            route: Statistics.from_arrays(own, path)
            for route in dict.fromkeys(key.split(".")[0] for key in arrays)
            if (own := group(route, tuple(Statistics.__dataclass_fields__)))
        }
        scales = {name: _check_scale(own, path) for name, own in scales.items() if own}
        extractor = cls(params, noises, {k: Uncertainty(**own) for k, own in scales.items()}, statistics)
        missing = [r for r in extractor.deciding if r not in statistics or (r in SOURCES and r not in noises)]
        if missing:
            where, todo = Path(folder), "run extract-features again"
            raise ArtifactError("features of other settings", where=where, got=f"no {', '.join(missing)}", todo=todo)
        return extractor

    @classmethod
    def _of_earlier_version(cls, statistics: Statistics, params: ExtractFeatures) -> "Extractor":
        """Return the extractor of an earlier bundle without routes.

        Its two mappings read the same features, those of the route `columns`.
        """
        if params.kind == "histogram":
            return cls(params, statistics={"raw": statistics})
        return cls(params.model_copy(update={"smoother": "none", "compare": ()}), statistics={"columns": statistics})


@dataclass(frozen=True)
class RouteFeatures:
    """The computation of the features of one video's frames on each route.

    Attributes:
        videos: the computation of each route.
    """

    videos: dict[str, VideoFeatures]

    def features(self, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Return the features of some frames, (rows, A, F) float32 by route; see `VideoFeatures.features`."""
        return {route: video.features(rows) for route, video in self.videos.items()}
