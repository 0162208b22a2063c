"""The core of the stage `evaluate`: choose thresholds and mappings, and compute all scores, in memory.

`draws` (draws.json) holds the data to compare rows between versions, trainings or corpora:

    people.names: the P people of validation
    people.rows: for each row of occurrence
        counts: for each person tp, fp, fn, tn of the first AU, then of the next (`numpy.reshape(counts, (P, A, 4))`)
        draws: mean F1 in each of the `evaluate.bootstrap` resamples of people, with thresholds and mappings chosen again
    gains: the draws of differences in metrics.json, by their path there

Draw k of two figures, or of two runs with the same people of validation and the same `evaluate.seed`, has the same resampled
people, so that differences of draws are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import NOT_ANNOTATED, SPLITS
from aupair.data.frames import Frames
from aupair.data.levels import TOP
from aupair.errors import ArtifactError, DataError
from aupair.evaluation.abstention import decision_figures, rank_decisions
from aupair.evaluation.calibration import HeldOut, assign_calibration_folds, calibrate
from aupair.evaluation.choice import Choice, choose_mappings
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.rows import SCORED_SPLITS, score_rows
from aupair.evaluation.selection import Cells, Outputs, Selection, annotated_cells, filled_outputs
from aupair.evaluation.thresholds import tune_held_out
from aupair.evaluation.uncertainty import ScoredSplit, score_figures
from aupair.log import SILENT, Log
from aupair.params import Evaluate
from aupair.ranking.pairs import Pairs


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        metrics: the tree of metrics.json.
        draws: the tree of draws.json.
        selection: the tree of selection.json; `Selection.from_json` reads it.
        outputs: the outputs that were evaluated.
        decisions: (N, A) bool, of the chosen mappings; a frame without a face has those of the nearest frame with one.
        confidence: (N, A) float64, P(the decision is right), NaN where there is no face.
    """

    metrics: dict[str, Any]
    draws: dict[str, Any]
    selection: dict[str, Any]
    outputs: Outputs
    decisions: np.ndarray
    confidence: np.ndarray


def evaluate_flow(
    frames: Frames,
    outputs: Outputs,
    pairs: Mapping[str, Pairs],
    conditions: Conditions | None,
    params: Evaluate,
    log: Log = SILENT,
    target: str = "occurrence",
) -> Evaluation:
    """Choose on `select` (protocol paper: on `validation`), then score on `select` and on `validation`.

    Args:
        frames: the N frames.
        outputs: the outputs of all networks.
        pairs: the fixed pairs of fit, select and validation.
        conditions: None for data without conditions.csv; figures that need them are then None.
        target: occurrence or intensity; for intensity, mappings are chosen by ICC(3,1), and there are `intensity_rows`, too.

    Raises:
        DataError: a split has no annotated frame with a face.
        ArtifactError: an array does not have the shape of the frames, or no finite number for a frame with a face.
    """
    _check(frames, outputs, target, log)
    chosen_on = "validation" if params.protocol == "paper" else "select"
    cells = {split: annotated_cells(frames, split) for split in SPLITS}
    choice = choose_mappings(outputs, frames, cells[chosen_on], params, target)
    selection = _select(frames, cells["select"], outputs, choice, params)
    raw = outputs.raw(selection.uses_uncertainty)
    active = selection.decide(fill_nearest(raw, frames.ok, frames.video))
    confidence = selection.confidence_of(raw, outputs.sigma)
    raws, intensity = filled_outputs(outputs, frames), {}
    rows, comparisons, people = score_rows("occurrence", cells, raws, choice, params)
    if target == "intensity":
        intensity["intensity_rows"], intensity_comparisons, _ = score_rows("intensity", cells, raws, choice, params)
        comparisons += intensity_comparisons
    figures = {
        split: score_figures(ScoredSplit(frames, split, outputs, pairs, conditions, params))
        for split in log.progress(SCORED_SPLITS, len(SCORED_SPLITS), "measuring uncertainty")
    }
    margin = np.abs(raw - selection.thresholds)
    ranked = rank_decisions(frames, cells["validation"], active, confidence, margin, outputs.sigma)
    settings = {
        "aus": list(frames.aus),
        "target": target,
        "levels": TOP + 1 if target == "intensity" else 2,
        "protocol": params.protocol,
        "chosen_on": chosen_on,
        "thresholds": params.thresholds,
        "route": outputs.with_route,
    }
    names = [frames.subjects[k] for k in np.unique(cells["validation"].person)]
    gains = {split: _pop_draws(figures[split]["uncertainty"]) for split in SCORED_SPLITS}
    draws = {"people": {"names": names, "rows": people}, "gains": gains["validation"]}
    metrics = {
        "frames": {split: _count_frames(cells[split]) for split in SCORED_SPLITS},
        "rows": rows,
        **intensity,
        **figures["validation"],
        "select": figures["select"],
        "comparisons": comparisons,
        "decisions": decision_figures(ranked, selection.confidence, params),
        "chosen": choice.result,
        **settings,
    }
    evidence = [comparison for comparison in comparisons if comparison["split"] == chosen_on]
    tree = _selection_tree(selection, choice, {**settings, "tie": params.tie, "comparisons": evidence})
    return Evaluation(metrics, draws, tree, outputs, active, confidence)


def _select(frames: Frames, cells: Cells, outputs: Outputs, choice: Choice, params: Evaluate) -> Selection:
    """Add to the choice a confidence, calibrated on the frames of select that have a face with held-out thresholds."""
    thresholds = choice.chosen_thresholds(choice.uses_uncertainty)
    raw, person = outputs.raw(choice.uses_uncertainty), frames.subject[cells.rows]
    fold = assign_calibration_folds(person, params.seed)
    held_out = np.broadcast_to(thresholds, cells.truth.shape)
    # with the paper's protocol, thresholds are not tuned on select
    if params.thresholds != "half" and params.protocol == "ours":
        filled = fill_nearest(raw, frames.ok, frames.video)
        held_out = tune_held_out(filled[cells.rows], cells.truth, cells.counted, fold, params.thresholds)
    known = raw[cells.rows], outputs.sigma[cells.rows]
    decisions = HeldOut(*known, held_out, cells.truth, cells.counted, person, fold).subset(frames.ok[cells.rows])
    return Selection(frames.aus, choice.uses_uncertainty, thresholds, calibrate(decisions))


def _pop_draws(uncertainty: dict[str, Any]) -> dict[str, list[float]]:
    """Remove the values in resamples from the tree `uncertainty` of metrics.json, and return them by path."""
    paths = (("pair_nll", "less_constant"), ("auroc_correct", "gain"))
    return {f"uncertainty.{figure}.{gain}": uncertainty[figure][gain].pop("draws") for figure, gain in paths}


def _count_frames(cells: Cells) -> dict[str, int]:
    """Return the number of annotated frames and of complete ones, in which all AUs are labelled."""
    return {"annotated": len(cells.rows), "complete": int(cells.complete.sum())}


def _selection_tree(selection: Selection, choice: Choice, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of selection.json: an entry for each AU, then values that concern all AUs."""
    entries = {au: {**choice.evidence[k], **selection.confidence.au_to_json(k)} for k, au in enumerate(selection.aus)}
    return {**entries, **settings, **selection.confidence.risks_to_json()}


def _check(frames: Frames, outputs: Outputs, target: str, log: Log) -> None:
    """Check that the outputs fit the frames and that every split can be scored; log the figures that are undefined.

    Raises:
        ArtifactError: labels of another target, or an array does not fit the frames.
        DataError: a split has no annotated frame with a face.
    """
    if target == "occurrence" and frames.labels.max(initial=0) > 1:
        todo = "run the flow again from check-data on"
        raise ArtifactError("labels of another target", got="intensity", expected=target, todo=todo)
    arrays = {name: getattr(outputs, name) for name in ("y_hat", "sigma", "unguarded")}
    for name, values in {**arrays, **{f"mapping, {route}": raw for route, raw in outputs.raws.items()}}.items():
        _check_array(values, name, frames)
    for split in SPLITS:
        own = frames.of_split(split)
        usable = own & frames.usable
        if not usable.any():
            got, todo = "no annotated frame with a face", "assign more subjects to the split in data/splits.csv"
            raise DataError("a split cannot be scored", where=f"split {split}", got=got, expected="some", todo=todo)
        _log_gaps(frames.aus, split, frames.labels[usable], frames.subject[usable], log)
        if split in SCORED_SPLITS and not frames.labelled[own].all(axis=1).any():
            log.line(f"{split}: no frame has the labels of all AUs: exact match and the 2021 score are undefined there")


def _log_gaps(aus: Sequence[str], split: str, labels: np.ndarray, person: np.ndarray, log: Log) -> None:
    """Log the AUs that have too few labels for a choice or a score.

    Args:
        labels, person: (n, A) and (n,), of the frames with a face.
    """
    labelled, active = (labels != NOT_ANNOTATED).any(0), (labels >= 1).any(0)
    people = np.array([len(np.unique(person[own != NOT_ANNOTATED])) for own in labels.T])
    gaps = {
        "not labelled: figures are undefined there, and no choice can be based on it": ~labelled,
        "never active: F1 is 0 there, and no choice can be based on it": labelled & ~active,
        "never inactive: F1 is that of guessing, and no choice can be based on it": active & ~(labels == 0).any(0),
        "labelled for a single person: intervals do not include differences between people": (people == 1)
        & (len(np.unique(person)) > 1),
    }
    for text, lacking in gaps.items():
        if lacking.any():
            log.line(f"{split}: {', '.join(au for au, some in zip(aus, lacking) if some)} {text}")


def _check_array(values: np.ndarray, where: str, frames: Frames) -> None:
    """Check that an array fits the frames and has a number for every face.

    Raises:
        ArtifactError: the array does not fit, or lacks a number.
    """
    shape = frames.labels.shape
    if values.shape != shape:
        todo = "run extract-features and train-mapping again"
        raise ArtifactError("outputs of other frames", where=where, got=values.shape, expected=shape, todo=todo)
    bad = frames.ok & ~np.isfinite(values).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        where += f", video {frames.videos[frames.video[row]]}, frame {frames.frame[row]}"
        todo = "run the stages before evaluate again"
        raise ArtifactError("no number for a face", where=where, got="NaN", expected="a finite number", todo=todo)
