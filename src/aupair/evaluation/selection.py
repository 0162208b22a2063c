"""The outputs that are evaluated, the frames that are counted, and the choices that predict needs.

A route is a way from y_hat to the mapping's features. `raw` uses no uncertainty; `sigma`, `quality` and `both` smooth y_hat by
its uncertainty, and `constant` by constant noise; `columns`, as in the paper, does not smooth y_hat and adds columns of
uncertainty. A mapping's raw output estimates the level and is not clamped to its range. The AU is active if the raw output is
at least the threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aupair.aus import NOT_ANNOTATED, stored_aus
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.metrics import Counts, count_decisions
from aupair.evaluation.nearest_face import fill_nearest

RAW = "raw"
"""the route without uncertainty"""
MAPPINGS = ("without_uncertainty", "with_uncertainty")
"""the two mappings of an AU; the one without uncertainty does not read sigma. They are indexed by False and True"""
_OLD_MAPPINGS = {"P2": MAPPINGS[0], "P1": MAPPINGS[1]}
"""the names in a selection.json of version 0.1, where P1 and P2 named the mapping chosen for an AU; they do not refer to the
rows P1 and P2 of the score table"""


@dataclass(frozen=True)
class Outputs:
    """The outputs of all networks for all N frames; every array is (N, A) float32, NaN where there is no face.

    Attributes:
        y_hat: standardised pseudo-intensities; those of `fit` are out of fold.
        sigma: the outputs of h, in the unit of y_hat; a constant for an AU that falls back to it.
        unguarded: sigma without that fall-back.
        raws: the raw outputs of the mapping of each route.
        with_route: the route that decides with uncertainty.
        smoothed: y_hat after smoothing, for each route that smooths it.
    """

    y_hat: np.ndarray
    sigma: np.ndarray
    unguarded: np.ndarray
    raws: Mapping[str, np.ndarray]
    with_route: str
    smoothed: Mapping[str, np.ndarray] = field(default_factory=dict)

    def raw(self, uses: np.ndarray) -> np.ndarray:
        """Return the raw output of the mapping that each AU uses, (N, A).

        Args:
            uses: (A,) bool, whether the AU uses the mapping with uncertainty.
        """
        return np.where(uses, self.raws[self.with_route], self.raws[RAW])


@dataclass(frozen=True)
class Cells:
    """The n frames of one split that have a label of at least one AU; a cell is one AU in one frame.

    Attributes:
        aus: the names of the AUs.
        split: the name of the split.
        rows: (n,) int64, the rows of these frames in `Frames`.
        person: (n,) int32, the person of each frame.
        level: (n, A) int8, 0 or 1, or 0..5 if the target is intensity; -1 without a label.
    """

    aus: tuple[str, ...]
    split: str
    rows: np.ndarray
    person: np.ndarray
    level: np.ndarray

    @cached_property
    def index(self) -> np.ndarray:
        """Return the person of each frame as a number from 0 to the number of people: (n,) int64."""
        return np.unique(self.person, return_inverse=True)[1]

    @property
    def people(self) -> int:
        """Return the number of people."""
        return int(self.index.max(initial=-1)) + 1

    @property
    def truth(self) -> np.ndarray:
        """Return whether an AU is active: (n, A) bool."""
        return self.level >= 1

    @property
    def counted(self) -> np.ndarray:
        """Return which cells have a label: (n, A) bool."""
        return self.level != NOT_ANNOTATED

    @property
    def complete(self) -> np.ndarray:
        """Return which frames have the labels of all AUs: (n,) bool."""
        return np.logical_and.reduce(self.counted, axis=1)

    def count(self, raw: np.ndarray, thresholds: np.ndarray) -> Counts:
        """Count right and wrong decisions raw >= threshold for each person.

        Args:
            raw: (N, A), with frames without a face filled by `fill_nearest`.
            thresholds: (A,).
        """
        return count_decisions(raw[self.rows] >= thresholds, self.truth, self.person, self.counted)


@dataclass(frozen=True)
class Selection:
    """The choices that predict needs, as read from `selection.json`.

    Attributes:
        aus: the names of the AUs.
        uses_uncertainty: (A,) bool, whether the AU is decided by the mapping with uncertainty.
        thresholds: (A,) float64; an AU is active where raw >= threshold.
        confidence: the calibrated confidence of these decisions.
    """

    aus: tuple[str, ...]
    uses_uncertainty: np.ndarray
    thresholds: np.ndarray
    confidence: Confidence

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Selection":
        """Return the selection stored in the content of `selection.json`."""
        aus = stored_aus(tree)
        uses = np.array([uses_uncertainty(tree[au]) for au in aus])
        thresholds = np.array([tree[au]["threshold"] for au in aus])
        return cls(aus, uses, thresholds, Confidence.from_json(tree))

    def raw(self, with_uncertainty: np.ndarray, without_uncertainty: np.ndarray) -> np.ndarray:
        """Return the raw output of the mapping chosen for each AU, (n, A), from the raw outputs of both mappings."""
        return np.where(self.uses_uncertainty, with_uncertainty, without_uncertainty)

    def decide(self, raw: np.ndarray) -> np.ndarray:
        """Return whether each AU is active, (n, A) bool, from raw outputs (n, A); NaN is not active."""
        return raw >= self.thresholds

    def confidence_of(self, raw: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Return P(the decision is right): (n, A) float64, NaN where there is no face."""
        return self.confidence(raw, sigma, self.thresholds)


def uses_uncertainty(entry: Mapping[str, Any]) -> bool:
    """Return whether an AU's entry of selection.json names the mapping with uncertainty.

    Raises:
        KeyError: the entry names no mapping.
        ValueError: it names one that does not exist.
    """
    name = entry["mapping"] if "mapping" in entry else _OLD_MAPPINGS[entry["variant"]]
    return bool(MAPPINGS.index(name))


def read_outputs(
    frames: Frames, *, f: Sequence[Path], h: Path, features: Path, mapping: Path, ensemble: Literal["all", "final"]
) -> Outputs:
    """Read y_hat and sigma of every frame, and compute the outputs of both mappings, video by video.

    Raises:
        ArtifactError: a file is missing, corrupt, or belongs to other frames.
    """
    from aupair.mapping.features import open_features, read_about, read_smoothed
    from aupair.mapping.model import Mapping
    from aupair.ranking.ensemble import load_ensemble
    from aupair.ranking.scores import read_sigma

    raws = Mapping.load(mapping).map_all(open_features(features, frames))
    sigma, unguarded = (read_sigma(h, len(frames), name) for name in ("sigma", "unguarded"))
    with_route = read_about(features).deciding[-1]
    if missing := {"raw", with_route} - raws.keys():
        todo = "run train-mapping again"
        raise ArtifactError(
            "no mapping of a route that decides", where=mapping, got=f"no {', '.join(missing)}", todo=todo
        )
    smoothed = {k: values for k, values in read_smoothed(features, frames).items() if not k.endswith(".spread")}
    return Outputs(load_ensemble(f, len(frames), ensemble).y_hat, sigma, unguarded, raws, with_route, smoothed)


def annotated_cells(frames: Frames, split: str) -> Cells:
    """Return the frames of a split that have a label of at least one AU, those without a face included."""
    rows = np.flatnonzero(frames.of_split(split) & frames.labelled.any(axis=1))
    return Cells(frames.aus, split, rows, frames.subject[rows], frames.labels[rows])


def filled_outputs(outputs: Outputs, frames: Frames) -> dict[str, np.ndarray]:
    """Return the raw outputs of each route, (N, A), frames without a face filled by `fill_nearest`."""
    return {route: fill_nearest(raw, frames.ok, frames.video) for route, raw in outputs.raws.items()}
