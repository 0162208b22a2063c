"""From the outputs of all trials to rows, figures and the selection: pure, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.data.levels import TOP
from aupair.errors import ArtifactError, DataError
from aupair.evaluation.calibration import HeldOut, calibrate, deal, tune_held_out
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.decisions import decided, decision_evidence
from aupair.evaluation.evidence import FixedPairs, Scored, pair_evidence, uncertainty_evidence
from aupair.evaluation.intensity import judge as judge_intensity
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.rows import JUDGED, judge
from aupair.evaluation.selection import MAPPINGS, Cells, Choice, Selection, Trial, best_trial, cells_of, choose, filled
from aupair.evaluation.selective import abstention, selective
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
    """

    rows: list[dict[str, Any]]
    metrics: dict[str, Any]
    selection: dict[str, Any]
    trial: Trial
    decisions: np.ndarray
    confidence: np.ndarray


def evaluate(
    frames: Frames,
    trials: Sequence[Trial],
    pairs: FixedPairs,
    conditions: Conditions | None,
    params: Evaluate,
    log: Log = SILENT,
    target: str = "occurrence",
) -> Evaluation:
    """Choose on `select` (protocol paper: on `validation`), then judge on `select` and once on `validation`.

    Args:
        frames: N of them.
        trials: what each trial says of them.
        pairs: the fixed pairs of fit, select and validation.
        conditions: None for data without conditions.csv; what needs them is None then.
        target: occurrence, or intensity: mappings are chosen by ICC(3,1) then, and there are `intensity_rows` too.

    Raises:
        DataError: a split has no annotated frame with a face.
        ArtifactError: arrays of another shape than the frames, or no number for a frame with a face.
    """
    _check(frames, trials, target, log)
    chosen_on = "validation" if params.protocol == "paper" else "select"
    cells = {split: cells_of(frames, split) for split in SPLITS}
    choices = [
        choose(trial, frames, cells[chosen_on], params, target) for trial in log.progress(trials, len(trials), "choose")
    ]
    best = best_trial(choices)
    trial, choice = trials[best], choices[best]
    selection = _select(frames, cells["select"], trial, choice, params)
    raw = trial.raw(selection.uses_uncertainty)
    decisions = selection.decide(fill_nearest(raw, frames.ok, frames.video))
    confidence = selection.trust(raw, trial.sigma)
    raws, intensity = filled(trial, frames), {}
    rows, comparisons = judge(cells, raws, choice, chosen_on, params)
    if target == "intensity":
        intensity["intensity_rows"], apart = judge_intensity(frames, raws, choice.uses_uncertainty, chosen_on, params)
        comparisons += apart
    blocks = _uncertainty(frames, trial, pairs, conditions, params, log)
    trust = {"confidence": confidence, "margin": np.abs(raw - selection.thresholds), "sigma": trial.sigma}
    judged = decided(frames, cells["validation"], decisions, trust)
    found = decision_evidence(judged)
    found |= {"selective": selective(judged, params), "abstention": abstention(judged, selection.confidence)}
    how = {
        "target": target,
        "levels": TOP + 1 if target == "intensity" else 2,
        "protocol": params.protocol,
        "chosen_on": chosen_on,
        "thresholds": params.thresholds,
        "trials": [{"trial": one.number, **its.result} for one, its in zip(trials, choices)],
    }
    beside = {"select": blocks["select"], "comparisons": comparisons, "decisions": found}
    metrics = {"rows": rows, **intensity, **blocks["validation"], **beside, "chosen_trial": trial.number, **how}
    own = [one for one in comparisons if one["split"] == chosen_on]
    tree = _selection_tree(selection, choice, {**how, "tie": params.tie, "comparisons": own})
    return Evaluation(rows, metrics, tree, trial, decisions, confidence)


def _select(frames: Frames, cells: Cells, trial: Trial, choice: Choice, params: Evaluate) -> Selection:
    """Put the choice together with a confidence calibrated on select's frames with a face, thresholds held out."""
    thresholds = choice.chosen_thresholds(choice.uses_uncertainty)
    raw, person = trial.raw(choice.uses_uncertainty), frames.subject[cells.rows]
    fold = deal(person, params.seed)
    held = np.broadcast_to(thresholds, cells.truth.shape)
    if params.thresholds == "tuned" and params.protocol == "ours":  # the paper's were not tuned on select
        held = tune_held_out(fill_nearest(raw, frames.ok, frames.video)[cells.rows], cells.truth, fold)
    seen = frames.ok[cells.rows]
    rows = cells.rows[seen]
    known = HeldOut(raw[rows], trial.sigma[rows], held[seen], cells.truth[seen], person[seen], fold[seen])
    return Selection(trial.number, choice.uses_uncertainty, thresholds, calibrate(known))


def _selection_tree(selection: Selection, choice: Choice, how: dict[str, Any]) -> dict[str, Any]:
    """The tree of selection.json: an entry for each AU, then what holds for all."""
    entries = {au: {**choice.evidence[k], **selection.confidence.of_au(k)} for k, au in enumerate(AUS)}
    return {**entries, "trial": selection.trial, **how, **selection.confidence.of_all()}


def _uncertainty(
    frames: Frames, trial: Trial, pairs: FixedPairs, conditions: Conditions | None, params: Evaluate, log: Log
) -> dict[str, dict[str, Any]]:
    """`pair_accuracy` and `uncertainty` of select and validation."""
    blocks = {}
    for split in log.progress(JUDGED, len(JUDGED), "judge"):
        scored = Scored(frames, split, trial.y_hat, trial.sigma, pairs, conditions, params.seed)
        blocks[split] = {"pair_accuracy": pair_evidence(scored), "uncertainty": uncertainty_evidence(scored)}
    return blocks


def _check(frames: Frames, trials: Sequence[Trial], target: str, log: Log) -> None:
    """Check that the trials fit the frames and that every split can be judged; say which AUs cannot be."""
    if target == "occurrence" and frames.labels.max(initial=0) > 1:
        todo = "run the flow again from check-data on"
        raise ArtifactError("labels of another target", got="intensity", expected=target, todo=todo)
    for trial in trials:
        for name in ("y_hat", "sigma", *MAPPINGS):
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
