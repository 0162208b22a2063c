"""The choices: a threshold and a mapping for each AU, and the trial. By default they are made on the split `select`.

A mapping's raw output is an estimate of the level that is not limited to the level's range (hence *unclamped*). The AU is
active if it is at least the threshold, which is tuned by default, or .5. P1 and P2 are rows of the score table, named as in
the paper: P1 uses the mapping with uncertainty for all AUs, P2 only for the AUs where it scores higher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aupair.aus import NOT_ANNOTATED, stored_aus
from aupair.data.frames import Frames
from aupair.evaluation.bootstrap import draw_resamples, paired_difference
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.metrics import (
    Counts,
    LevelSums,
    accuracy,
    au_score,
    challenge_figures,
    count_decisions,
    f1,
    icc,
    macro,
    mae,
    sum_levels,
)
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.thresholds import DEFAULT, tune_thresholds
from aupair.params import Evaluate

MAPPINGS = ("without_uncertainty", "with_uncertainty")
"""the two mappings of an AU; the one without uncertainty does not read sigma. They are indexed by False and True"""
_OLD_MAPPINGS = {"P2": MAPPINGS[0], "P1": MAPPINGS[1]}
"""the names in a selection.json of version 0.1, where P1 and P2 named the mapping chosen for an AU; they do not refer to the
rows P1 and P2 of the score table"""


@dataclass(frozen=True)
class Trial:
    """The outputs of the flow for all N frames; every array is (N, A) float32, NaN where there is no face.

    Attributes:
        y_hat: standardised pseudo-intensities; those of `fit` are out of fold.
        sigma: the outputs of h, in the unit of y_hat.
        with_uncertainty: raw output of the mapping that reads sigma.
        without_uncertainty: raw output of the mapping that does not read sigma.
    """

    y_hat: np.ndarray
    sigma: np.ndarray
    with_uncertainty: np.ndarray
    without_uncertainty: np.ndarray

    def raw(self, uses: np.ndarray) -> np.ndarray:
        """Return the raw output of the mapping that each AU uses, (N, A).

        Args:
            uses: (A,) bool, whether the AU uses the mapping with uncertainty.
        """
        return np.where(uses, self.with_uncertainty, self.without_uncertainty)


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

    @property
    def truth(self) -> np.ndarray:
        """Return whether an AU is active: (n, A) bool."""
        return self.level >= 1

    @property
    def counted(self) -> np.ndarray:
        """Return which cells have a label: (n, A) bool."""
        return self.level != NOT_ANNOTATED

    def count(self, raw: np.ndarray, thresholds: np.ndarray) -> Counts:
        """Count right and wrong decisions raw >= threshold for each person.

        Args:
            raw: (N, A), with frames without a face filled by `fill_nearest`.
            thresholds: (A,).
        """
        return count_decisions(raw[self.rows] >= thresholds, self.truth, self.person, self.counted)


@dataclass(frozen=True)
class Choice:
    """The choices made for one trial.

    Attributes:
        chosen_on: the split on which they were made.
        thresholds: (2, A) float64, in the order of MAPPINGS.
        uses_uncertainty: (A,) bool, whether the AU is decided by the mapping with uncertainty.
        evidence: for each AU the scores that the choice is based on, as `selection.json` has them.
        result: f1, accuracy, exact_match and score of P2 on that split, and icc if the target is intensity.
    """

    chosen_on: str
    thresholds: np.ndarray
    uses_uncertainty: np.ndarray
    evidence: list[dict[str, Any]]
    result: dict[str, float]

    def chosen_thresholds(self, uses: np.ndarray) -> np.ndarray:
        """Return the thresholds (A,) that belong to `uses`, (A,) bool."""
        return np.where(uses, self.thresholds[1], self.thresholds[0])


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
        """Return for each AU the output of the mapping chosen for it, (n, A), from the unclamped outputs of both."""
        return np.where(self.uses_uncertainty, with_uncertainty, without_uncertainty)

    def decide(self, raw: np.ndarray) -> np.ndarray:
        """Return whether each AU is active, (n, A) bool, from unclamped outputs (n, A); NaN is not active."""
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


def read_trial(
    frames: Frames, *, f: Sequence[Path], h: Path, features: Path, mapping: Path, ensemble: Literal["all", "final"]
) -> Trial:
    """Read y_hat and sigma of every frame, and compute the outputs of both mappings, video by video.

    Raises:
        ArtifactError: a file is missing, corrupt, or belongs to other frames.
    """
    from aupair.mapping.features import open_features
    from aupair.mapping.fit import Mapping
    from aupair.ranking.ensemble import load_ensemble
    from aupair.ranking.scores import read_sigma

    raw = Mapping.load(mapping).map_all(open_features(features, frames))
    y_hat = load_ensemble(f, len(frames), ensemble).y_hat
    return Trial(y_hat, read_sigma(h, len(frames)), *raw)


def annotated_cells(frames: Frames, split: str) -> Cells:
    """Return the frames of a split that have a label of at least one AU, those without a face included."""
    rows = np.flatnonzero(frames.of_split(split) & frames.labelled.any(axis=1))
    return Cells(frames.aus, split, rows, frames.subject[rows], frames.labels[rows])


def filled_outputs(trial: Trial, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs without and with uncertainty, each (N, A), frames without a face filled by `fill_nearest`."""
    return (
        fill_nearest(trial.without_uncertainty, frames.ok, frames.video),
        fill_nearest(trial.with_uncertainty, frames.ok, frames.video),
    )


def choose_mappings(trial: Trial, frames: Frames, cells: Cells, params: Evaluate, target: str = "occurrence") -> Choice:
    """Choose the thresholds of both mappings, then a mapping for each AU, on the annotated frames `cells`.

    The mapping with uncertainty is chosen if its score is higher by more than `params.tie`, otherwise the simpler one
    without uncertainty. The score is 1/2 (F1 + accuracy), or, if the target is intensity, the intraclass correlation
    ICC(3,1).
    """
    raws = filled_outputs(trial, frames)
    thresholds = np.full((len(raws), len(frames.aus)), DEFAULT)
    if params.thresholds == "tuned":
        thresholds = np.array([tune_thresholds(raw[cells.rows], cells.truth, cells.counted) for raw in raws])
    counts = [cells.count(raw, own) for raw, own in zip(raws, thresholds)]
    sums = []
    if target == "intensity":
        sums = [sum_levels(raw[cells.rows], cells.level, cells.person, cells.counted) for raw in raws]
    scores = [part["icc" if sums else "score"] for part in _figures(counts, sums)]
    uses = scores[1] - scores[0] > params.tie
    chosen = cells.count(np.where(uses, raws[1], raws[0]), np.where(uses, thresholds[1], thresholds[0]))
    result = {k: float(v) for k, v in challenge_figures(chosen.total()).items()}
    if sums:
        result["icc"] = macro(np.where(uses, scores[1], scores[0]))
    return Choice(cells.split, thresholds, uses, _evidence(counts, sums, thresholds, uses, params), result)


def _figures(counts: list[Counts], sums: list[LevelSums]) -> list[dict[str, np.ndarray]]:
    """Return the scores of each mapping, (A,) each, from counts per person, and from sums of levels if `sums` has them."""
    totals = [part.total() for part in counts]
    figures = [{"f1": f1(total), "accuracy": accuracy(total), "score": au_score(total)} for total in totals]
    for side, part in zip(figures, sums):
        side |= {"icc": icc(part.total()), "mae": mae(part.total())}
    return figures


def _evidence(
    counts: list[Counts], sums: list[LevelSums], thresholds: np.ndarray, uses: np.ndarray, params: Evaluate
) -> list[dict[str, Any]]:
    """Return the entry of each AU in selection.json: the scores of both mappings, and evidence that one is better.

    The interval of the difference and `probability_with_better`, the probability that the mapping with uncertainty has the
    higher score, come from a paired bootstrap over people. `people` have a label of the AU.

    Args:
        sums: sums of levels of both mappings, from which ICC is computed; empty if the target is occurrence.
    """
    weights = draw_resamples(len(counts[0].frames), params.bootstrap, (params.seed, 1))
    drawn = [icc(part.weighted(weights)) for part in sums] or [au_score(part.weighted(weights)) for part in counts]
    chosen_by = "icc" if sums else "score"
    cells, figures, evidence = counts[0].cells, _figures(counts, sums), []
    for au, use in enumerate(uses):
        sides = [
            {"threshold": float(own[au]), **{name: float(values[au]) for name, values in side.items()}}
            for own, side in zip(thresholds, figures)
        ]
        better = paired_difference(sides[1][chosen_by], sides[0][chosen_by], (drawn[1][:, au], drawn[0][:, au]))
        evidence.append(
            {
                "mapping": MAPPINGS[int(use)],
                "threshold": sides[int(use)]["threshold"],
                **dict(zip(MAPPINGS, sides)),
                "chosen_by": chosen_by,
                "difference": better["difference"],
                "difference_interval": better["interval"],
                "probability_with_better": better["probability"],
                "positives": int(cells[:, au, [0, 2]].sum()),
                "people": int(cells[:, au].any(axis=1).sum()),
            }
        )
    return evidence
