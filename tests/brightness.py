"""A recognizer that takes the brightness of a face for its pseudo-intensity."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aupair.aus import AFFWILD2
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.selection import Selection
from aupair.faces.decode import read_frames
from aupair.faces.row import FaceRow
from aupair.inference.recognizer import Arrays, BundleRecognizer
from aupair.mapping.extractor import Extractor
from aupair.mapping.statistics import Statistics
from aupair.params import parse_params

A = len(AFFWILD2)


def score_brightness(images: np.ndarray, quality: np.ndarray | None = None) -> Arrays:
    """Return the mean of each image as y_hat, and 1 as sigma with the guard and without."""
    mean = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
    sigma = np.ones((len(images), A), np.float32)
    return np.repeat(mean[:, None], A, axis=1), sigma, sigma


class WholeFrames(BundleRecognizer):
    """A recognizer that takes every whole frame for a face."""

    def read_faces(self, source: Path) -> Iterator[FaceRow]:
        return (FaceRow(frame.index, frame.time, "ok", frame.image) for frame in read_frames(source))


def make_recognizer(
    params: dict[str, Any],
    top: float,
    mapping: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda features: (
        features[:, :, 0],
        -features[:, :, 0],
    ),
    scorer: Callable[[np.ndarray, np.ndarray], Arrays] = score_brightness,
    uses: np.ndarray | None = None,
) -> BundleRecognizer:
    """Return a recognizer with the threshold .5 and a confidence that rises with the distance from it.

    Args:
        top: the brightness that is scaled to 1; 0 is scaled to -1.
        params: without a smoother.
        mapping: features of all columns -> outputs with uncertainty and without; by default the scaled brightness, and
            the negative of it.
        uses: (A,) bool, the AU is decided with uncertainty; None: each is.
    """
    ones = np.ones(A, np.float32)
    statistics = Statistics(0 * ones, top * ones, ones, np.zeros((A, 201), np.float32))
    quantiles = np.broadcast_to(np.linspace(0.5, 1, 101)[:, None, None], (101, 2, A))
    confidence = Confidence(np.tile([0.0, 1.0, 0.0, 0.0, 0.0], (A, 1)), quantiles)
    selection = Selection(AFFWILD2, np.ones(A, bool) if uses is None else uses, np.full(A, 0.5), confidence)
    section = params.get("extract_features", {}) | {"smoother": "none"}
    parsed = parse_params(params | {"extract_features": section})
    extractor = Extractor(parsed.extract_features, statistics={"columns": statistics})
    return BundleRecognizer(scorer, extractor, partial(map_routes, mapping), selection, parsed)


def map_routes(mapping: Callable, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the raw outputs by route of a mapping from the features of the route with columns."""
    return dict(zip(("columns", "raw"), mapping(features["columns"])))


@dataclass(frozen=True)
class AboveNeutral:
    """A mapping: how much column `own` is above column `low`; it can be sent to another process."""

    own: int
    low: int

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (features[:, :, self.own] - features[:, :, self.low],) * 2
