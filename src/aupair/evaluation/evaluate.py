"""From the outputs of all trials to rows, figures and the selection: pure, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, DataError
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.confidence import fit_confidence
from aupair.evaluation.evidence import (
    FixedPairs,
    Scored,
    decision_evidence,
    pair_evidence,
    reliability_curve,
    uncertainty_evidence,
)
from aupair.evaluation.fill import fill_nearest
from aupair.evaluation.rows import JUDGED, judge
from aupair.evaluation.selection import Cells, Choice, Selection, Trial, best_trial, cells_of, choose, filled
from aupair.log import SILENT, Log
from aupair.params import Evaluate


@dataclass(frozen=True)
class Evaluation:
    """All that evaluate found.

    Attributes:
        rows: what the table shows, `metrics["rows"]`.
        metrics: the tree of metrics.json.
        selection: the tree of selection.json; `Selection.from_json` reads it.
        trial: the chosen trial's outputs.
        decisions: (N, A) bool, of every frame, as chosen; a frame without a face has the nearest one's.
        confidence: (N, A) float64, P(the decision is right), NaN where there is no face.
        curves: what the plots show: `reliability` and `risk_coverage`.
    """

    rows: list[dict[str, Any]]
    metrics: dict[str, Any]
    selection: dict[str, Any]
    trial: Trial
    decisions: np.ndarray
    confidence: np.ndarray
    curves: dict[str, Any]


def evaluate(
    frames: Frames,
    trials: Sequence[Trial],
    pairs: FixedPairs,
    conditions: Conditions | None,
    params: Evaluate,
    log: Log = SILENT,
) -> Evaluation:
    """Choose on `select` (protocol paper: on `validation`), then judge on `select` and once on `validation`.

    Args:
        frames: N of them.
        trials: what each trial says of them.
        pairs: the fixed pairs of fit, select and validation.
        conditions: None for data without conditions.csv; what needs them is None then.

    Raises:
        DataError: a split has no annotated frame with a face.
        ArtifactError: arrays of another shape than the frames, or no number for a frame with a face.
    """
    _check(frames, trials, log)
    chosen_on = "validation" if params.protocol == "paper" else "select"
    cells = {split: cells_of(frames, split) for split in SPLITS}
    choices = [choose(trial, frames, cells[chosen_on], params) for trial in log.progress(trials, len(trials), "choose")]
    best = best_trial(choices)
    trial, choice = trials[best], choices[best]
    selection = _select(frames, cells["select"], trial, choice)
    raw = trial.raw(selection.uses)
    decisions = selection.decide(fill_nearest(raw, frames.ok, frames.video))
    confidence = selection.trust(raw, trial.sigma)
    margin = np.abs(raw - selection.thresholds)
    rows, above = judge(cells, filled(trial, frames), choice, chosen_on, params)
    scored = {s: Scored(frames, s, trial.y_hat, trial.sigma, pairs, conditions, params.seed) for s in JUDGED}
    blocks = {
        split: {"pair_accuracy": pair_evidence(part), "uncertainty": uncertainty_evidence(part)}
        for split, part in log.progress(scored.items(), len(scored), "judge")
    }
    found, risk = _abstaining(frames, cells["validation"], decisions, (confidence, margin, trial.sigma))
    how = {
        "protocol": params.protocol,
        "chosen_on": chosen_on,
        "thresholds": params.thresholds,
        "trials": [{"trial": one.number, **its.result} for one, its in zip(trials, choices)],
    }
    beside = {"select": blocks["select"], "p2_over_best_constant": above, "decisions": found}
    metrics = {"rows": rows, **blocks["validation"], **beside, "chosen_trial": trial.number, **how}
    curves = {"reliability": reliability_curve(scored["validation"]), "risk_coverage": risk}
    tree = _selection_tree(selection, choice, {**how, "tie": params.tie})
    return Evaluation(rows, metrics, tree, trial, decisions, confidence, curves)


def _select(frames: Frames, cells: Cells, trial: Trial, choice: Choice) -> Selection:
    """Put the choice together with a confidence calibrated on select's frames with a face."""
    thresholds = choice.chosen_thresholds(choice.uses)
    seen = frames.ok[cells.rows]
    rows = cells.rows[seen]
    confidence = fit_confidence(trial.raw(choice.uses)[rows], trial.sigma[rows], thresholds, cells.truth[seen])
    return Selection(trial.number, choice.uses, thresholds, confidence)


def _selection_tree(selection: Selection, choice: Choice, how: dict[str, Any]) -> dict[str, Any]:
    """The tree of selection.json: an entry for each AU, then what holds for all."""
    entries = {
        au: {**choice.evidence[index], "confidence": selection.confidence.of_au(index)} for index, au in enumerate(AUS)
    }
    return {**entries, "trial": selection.trial, **how, "confidence_quantiles": selection.confidence.quantiles.tolist()}


def _abstaining(
    frames: Frames, cells: Cells, decisions: np.ndarray, trust: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """`decision_evidence` on a split's annotated frames with a face; trust: confidence, margin, sigma, each (N, A)."""
    seen = frames.ok[cells.rows]
    confidence, margin, sigma = (values[cells.rows[seen]] for values in trust)
    certainty = -rankdata(sigma, axis=0)  # sigmas of different AUs are not compared
    ways = {"confidence": confidence, "margin": margin, "certainty": certainty}
    return decision_evidence(decisions[cells.rows[seen]] != cells.truth[seen], ways)


def _check(frames: Frames, trials: Sequence[Trial], log: Log) -> None:
    """Check that the trials fit the frames and that every split can be judged; say which AUs cannot be."""
    for trial in trials:
        for name in ("y_hat", "sigma", "with_uncertainty", "without"):
            _check_array(getattr(trial, name), f"trial {trial.number}, {name}", frames)
    for split in SPLITS:
        usable = frames.of_split(split) & frames.usable
        if not usable.any():
            raise DataError(
                "nothing to judge by",
                where=f"split {split}",
                got="no annotated frame with a face",
                expected="some",
                todo="give the split more subjects in data/splits.csv",
            )
        lacking = [au for au, some in zip(AUS, (frames.labels[usable] >= 1).any(0)) if not some]
        if lacking:
            log.line(f"{split}: no positive of {', '.join(lacking)}: F1 is 0 there, and nothing can be chosen")


def _check_array(values: np.ndarray, where: str, frames: Frames) -> None:
    """Check that an array of a trial fits the frames and has a number for every face."""
    shape = frames.labels.shape
    if values.shape != shape:
        todo = "run extract-features and train-mapping again"
        raise ArtifactError("not of these frames", where=where, got=values.shape, expected=shape, todo=todo)
    bad = frames.ok & ~np.isfinite(values).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        where += f", video {frames.videos[frames.video[row]]}, frame {frames.frame[row]}"
        todo = "run the trial's stages again"
        raise ArtifactError("no number for a face", where=where, got="NaN", expected="a finite number", todo=todo)
