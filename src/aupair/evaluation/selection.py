"""The choices made on `select`, never on the split that is reported: thresholds, a mapping for each AU, the trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.intensity import Sums, add_up, icc, mae
from aupair.evaluation.metrics import Counts, accuracy, au_score, count, f1, headline, interval, macro, resamples
from aupair.evaluation.nearest_face import fill_nearest
from aupair.params import Evaluate

MAPPINGS = ("without_uncertainty", "with_uncertainty")
"""The two mappings of an AU: without, the simpler one, cannot see sigma. False and True index them."""
_OLD_MAPPINGS = {"P2": MAPPINGS[0], "P1": MAPPINGS[1]}
"""The names in a selection.json of version 0.1."""
HALF = 0.5


@dataclass(frozen=True)
class Trial:
    """What one trial says of the N frames; every array (N, A) float32, NaN where there is no face.

    Attributes:
        number: which trial.
        y_hat: pseudo-intensities, standardised; those of fit out of fold.
        sigma: their uncertainties, in the same unit.
        with_uncertainty: raw output of the mapping that sees sigma.
        without_uncertainty: raw output of the mapping that does not.
    """

    number: int
    y_hat: np.ndarray
    sigma: np.ndarray
    with_uncertainty: np.ndarray
    without_uncertainty: np.ndarray

    def raw(self, uses: np.ndarray) -> np.ndarray:
        """The raw output of the mapping that each AU uses: (N, A); uses: (A,) bool, with uncertainty."""
        return np.where(uses, self.with_uncertainty, self.without_uncertainty)


@dataclass(frozen=True)
class Cells:
    """The annotated frames of one split, n of them.

    Attributes:
        rows: (n,) int64, their rows in `Frames`.
        video: (n,) int32.
        truth: (n, A) bool, active.
    """

    rows: np.ndarray
    video: np.ndarray
    truth: np.ndarray

    def count(self, raw: np.ndarray, thresholds: np.ndarray) -> Counts:
        """Count the decisions raw >= threshold per video; raw: (N, A) filled, thresholds: (A,)."""
        return count(raw[self.rows] >= thresholds, self.truth, self.video)


@dataclass(frozen=True)
class Choice:
    """What was chosen for one trial.

    Attributes:
        thresholds: (2, A) float64, of the mapping without uncertainty and of the one with it.
        uses_uncertainty: (A,) bool, the AU is decided by the mapping with uncertainty.
        evidence: a dict for each AU.
        result: f1, accuracy, exact_match, score of the row P2 on the frames that the choice was made on; with intensity
            as the target icc too.
    """

    thresholds: np.ndarray
    uses_uncertainty: np.ndarray
    evidence: list[dict[str, Any]]
    result: dict[str, float]

    def chosen_thresholds(self, uses: np.ndarray) -> np.ndarray:
        """The thresholds (A,) that belong to `uses`, (A,) bool."""
        return np.where(uses, self.thresholds[1], self.thresholds[0])


@dataclass(frozen=True)
class Selection:
    """What predict needs to decide: read from `selection.json`.

    Attributes:
        trial: whose networks are used.
        uses_uncertainty: (A,) bool, the AU is decided by the mapping with uncertainty.
        thresholds: (A,) float64, active where raw >= threshold.
        confidence: gives the probability that a decision is right.
    """

    trial: int
    uses_uncertainty: np.ndarray
    thresholds: np.ndarray
    confidence: Confidence

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Selection":
        """Read the tree of `selection.json`."""
        uses = np.array([uses_uncertainty(tree[au]) for au in AUS])
        thresholds = np.array([tree[au]["threshold"] for au in AUS])
        return cls(tree["trial"], uses, thresholds, Confidence.from_json(tree))

    def raw(self, with_uncertainty: np.ndarray, without_uncertainty: np.ndarray) -> np.ndarray:
        """The outputs (n, A) that count, from those of both mappings, each (n, A) and unclamped."""
        return np.where(self.uses_uncertainty, with_uncertainty, without_uncertainty)

    def decide(self, raw: np.ndarray) -> np.ndarray:
        """Decide from unclamped outputs (n, A): bool, active; NaN is not."""
        return raw >= self.thresholds

    def trust(self, raw: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """P(the decision is right): (n, A) float64, NaN where there is no face."""
        return self.confidence(raw, sigma, self.thresholds)


def uses_uncertainty(entry: Mapping[str, Any]) -> bool:
    """Return whether an AU's entry of selection.json names the mapping with uncertainty.

    Raises:
        KeyError: the entry names no mapping.
        ValueError: it names one that does not exist.
    """
    name = entry["mapping"] if "mapping" in entry else _OLD_MAPPINGS[entry["variant"]]
    return bool(MAPPINGS.index(name))


def cells_of(frames: Frames, split: str) -> Cells:
    """Give the annotated frames of a split, those without a face included."""
    rows = np.flatnonzero(frames.of_split(split) & (frames.labels[:, 0] >= 0))
    return Cells(rows, frames.video[rows], frames.labels[rows] >= 1)


def filled(trial: Trial, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """The outputs without and with uncertainty, each (N, A), over frames without a face too: in MAPPINGS' order."""
    return (
        fill_nearest(trial.without_uncertainty, frames.ok, frames.video),
        fill_nearest(trial.with_uncertainty, frames.ok, frames.video),
    )


def tune(raw: np.ndarray, truth: np.ndarray) -> float:
    """Find the threshold that maximises 1/2 (F1 + accuracy) of one AU.

    Between two neighbouring outputs every threshold decides alike. Of the best intervals the middle of the widest
    is taken, which a small shift of the outputs does not leave; of equally wide ones the nearest to .5. Beyond the extreme outputs (all or nothing active) an interval is given the width 1.

    Args:
        raw: (n,) float; NaN (a video without a face) is never active.
        truth: (n,) bool.
    """
    known = np.isfinite(raw)
    if not known.any():
        return HALF
    values, index = np.unique(raw[known], return_inverse=True)
    positives, negatives = (np.bincount(index, truth[known] == side, len(values)) for side in (True, False))
    # tp[k], fp[k]: of the threshold in the interval below values[k]; the last one calls nothing active
    tp, fp = (np.append(np.cumsum(side[::-1])[::-1], 0) for side in (positives, negatives))
    fn, n = truth.sum() - tp, len(truth)
    score = 0.5 * (2 * tp / np.maximum(2 * tp + fp + fn, 1) + (n - fp - fn) / n)
    edges = np.concatenate([values[:1] - 1.0, values, values[-1:] + 1.0]).astype(np.float64)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    middle, width = (edges[best] + edges[best + 1]) / 2, edges[best + 1] - edges[best]
    return float(middle[np.lexsort((np.abs(middle - HALF), -width))[0]])


def choose(trial: Trial, frames: Frames, cells: Cells, params: Evaluate, target: str = "occurrence") -> Choice:
    """Choose thresholds, then the mapping of each AU, on the given frames.

    The mapping with uncertainty is chosen where its 1/2 (F1 + accuracy) is higher by more than `params.tie`, or its
    ICC(3,1) where the target is intensity; the simpler one without uncertainty otherwise.
    """
    raws = filled(trial, frames)
    thresholds = np.full((len(raws), len(AUS)), HALF)
    if params.thresholds == "tuned":
        thresholds = np.array([[tune(x, y) for x, y in zip(raw[cells.rows].T, cells.truth.T)] for raw in raws])
    counts = [cells.count(raw, own) for raw, own in zip(raws, thresholds)]
    graded: list[Sums] = []
    if target == "intensity":
        graded = [add_up(raw[cells.rows], frames.labels[cells.rows], cells.video) for raw in raws]
    scores = [icc(part.total()) for part in graded] or [au_score(part.total()) for part in counts]
    uses = scores[1] - scores[0] > params.tie
    evidence = _evidence(counts, graded, thresholds, uses, params)
    chosen = cells.count(np.where(uses, raws[1], raws[0]), np.where(uses, thresholds[1], thresholds[0]))
    result = {k: float(v) for k, v in headline(chosen.total()).items()}
    return Choice(
        thresholds, uses, evidence, result | ({"icc": macro(np.where(uses, scores[1], scores[0]))} if graded else {})
    )


def best_trial(choices: list[Choice]) -> int:
    """The index of the trial with the highest score of P2, or its ICC with intensities; the first of equal ones."""
    values = [choice.result.get("icc", choice.result["score"]) for choice in choices]
    return int(np.argmax(np.nan_to_num(values, nan=-np.inf)))


def _evidence(
    counts: list[Counts], graded: list[Sums], thresholds: np.ndarray, uses: np.ndarray, params: Evaluate
) -> list[dict[str, Any]]:
    """Say for each AU how both mappings did, and how sure the difference is: a paired bootstrap over videos.

    Args:
        graded: how levels were met, what the choice goes by then; empty where the target is occurrence.
    """
    weights = resamples(len(counts[0].frames), params.bootstrap, (params.seed, 1))
    drawn = [icc(part.weighted(weights)) for part in graded] or [au_score(part.weighted(weights)) for part in counts]
    difference = np.nan_to_num(drawn[1] - drawn[0])
    chosen_by = "icc" if graded else "score"
    better = (difference > 0).mean(0) + 0.5 * (difference == 0).mean(0)
    totals = [part.total() for part in counts]
    figures = [{"f1": f1(total), "accuracy": accuracy(total), "score": au_score(total)} for total in totals]
    for side, part in zip(figures, graded):
        side |= {"icc": icc(part.total()), "mae": mae(part.total())}
    evidence = []
    for au in range(len(AUS)):
        sides = [
            {"threshold": float(own[au]), **{name: float(values[au]) for name, values in side.items()}}
            for own, side in zip(thresholds, figures)
        ]
        evidence.append(
            {
                "mapping": MAPPINGS[int(uses[au])],
                "threshold": sides[int(uses[au])]["threshold"],
                **dict(zip(MAPPINGS, sides)),
                "chosen_by": chosen_by,
                "difference": sides[1][chosen_by] - sides[0][chosen_by],
                "difference_interval": interval(difference[:, au]),
                "probability_with_better": float(better[au]),
                "positives": int(totals[0].cells[au, 0] + totals[0].cells[au, 2]),
                "videos": len(counts[0].frames),
            }
        )
    return evidence
