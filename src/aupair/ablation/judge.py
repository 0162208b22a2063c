"""What a run says, as decisions of every way to decide: counts per video, from which all figures follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aupair import stages, store
from aupair.aus import AUS
from aupair.data.frames import Frames, load_frames
from aupair.evaluation.metrics import (
    Counts,
    accuracy,
    au_score,
    challenge_figures,
    constant_decisions,
    count_decisions,
    draw_resamples,
    f1,
    figures_by_au,
    paired_difference,
    percentile_interval,
)
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.selection import (
    MAPPINGS,
    Cells,
    Trial,
    annotated_cells,
    read_trial,
    tune_threshold,
    uses_uncertainty,
)
from aupair.params import Params

SPLITS = ("select", "validation")
LOWEST = (1, 5, 10, 20, 30, 50)
"""percentiles of which `value-lowest` takes each AU's best on select"""
EVIDENCE = {
    "pair_accuracy": ("pair_accuracy", "mean"),
    "pair_accuracy_clear": ("pair_accuracy", "clear"),
    "pair_nll": ("uncertainty", "pair_nll", "h"),
    "pair_nll_constant": ("uncertainty", "pair_nll", "constant"),
    "pair_nll_constant_select": ("uncertainty", "pair_nll", "constant_select"),
    "auroc_margin": ("uncertainty", "auroc_correct", "margin"),
    "auroc_margin_over_sigma": ("uncertainty", "auroc_correct", "margin_over_sigma"),
    "gain_at_80": ("uncertainty", "gain_at_80", "sigma"),
    "auroc_own_region": ("uncertainty", "auroc_own_region", "mean"),
    "ece_order": ("uncertainty", "ece"),
}
"""What a row shows of its run's metrics.json, validation; `select` has the same below its own key."""


@dataclass(frozen=True)
class Run:
    """A finished run in memory.

    Attributes:
        frames: N of them.
        trial: the chosen trial's outputs.
        selection, metrics: the trees that evaluate wrote.
    """

    frames: Frames
    trial: Trial
    selection: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def read(cls, root: Path, params: Params) -> "Run":
        """Read the run in a folder, its chosen trial alone."""
        at = stages.find("evaluate").paths(root, params.trials)
        frames = load_frames(at["labels"], at["faces"])
        selection = store.read_json(at["selection"])
        k = params.trials.index(selection["trial"])
        parts = {name: at[name][k] for name in ("f", "h", "features", "mapping")}
        trial = read_trial(frames, params.trials[k], **parts)
        return cls(frames, trial, selection, store.read_json(at["metrics"]))

    def decide(self, judged: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Give the decisions of one way to decide, (N, A) bool, and what was chosen for it on select."""
        frames, cells = self.frames, annotated_cells(self.frames, "select")
        guesses = constant_decisions(annotated_cells(frames, "fit").truth)
        if judged in guesses:
            return np.broadcast_to(guesses[judged], frames.labels.shape), {}
        if judged.startswith("value"):
            return self._by_value(judged, cells)
        chosen = {"no-uncertainty": np.zeros(len(AUS), bool), "P1": np.ones(len(AUS), bool)}
        uses = chosen.get(judged, np.array([uses_uncertainty(self.selection[au]) for au in AUS]))
        raw = fill_nearest(self.trial.raw(uses), frames.ok, frames.video)
        thresholds = np.array([self.selection[au][MAPPINGS[int(use)]]["threshold"] for au, use in zip(AUS, uses)])
        return raw >= thresholds, {}

    def _by_value(self, judged: str, cells: Cells) -> tuple[np.ndarray, dict[str, Any]]:
        """Decide by y_hat against a threshold tuned on select, as it is or less something of the person."""
        frames = self.frames
        levels = {"value": (None,), "value-median": (50,), "value-lowest": LOWEST}[judged]
        best, decisions = np.full(len(AUS), -np.inf), np.zeros(frames.labels.shape, bool)
        kept: list[Any] = [None] * len(AUS)
        for level in levels:
            raw = self.trial.y_hat.astype(np.float64)
            if level is not None:
                raw = raw - person_percentile(raw, frames, level)
            raw = fill_nearest(raw, frames.ok, frames.video)
            for au in range(len(AUS)):
                threshold = tune_threshold(raw[cells.rows, au], cells.truth[:, au])
                mine = raw[:, au] >= threshold
                score = float(
                    au_score(count_decisions(mine[cells.rows, None], cells.truth[:, [au]], cells.video).total())[0]
                )
                if score > best[au]:
                    best[au], decisions[:, au], kept[au] = score, mine, level
        return decisions, {"percentile": dict(zip(AUS, kept))} if judged == "value-lowest" else {}

    def evidence(self, split: str) -> dict[str, float | None]:
        """Give the figures of EVIDENCE."""
        tree = self.metrics if split == "validation" else self.metrics["select"]
        return {name: _at(tree, path) for name, path in EVIDENCE.items()}


def person_percentile(values: np.ndarray, frames: Frames, level: float) -> np.ndarray:
    """Give each frame the percentile of its person's values over all clips: (N, A), NaN without a face at all."""
    found = np.full(values.shape, np.nan)
    for subject in np.unique(frames.subject):
        mine = frames.subject == subject
        if (mine & frames.ok).any():
            found[mine] = np.percentile(values[mine & frames.ok], level, axis=0)
    return found


def counted(run: Run, judged: str) -> tuple[dict[str, Counts], dict[str, Any]]:
    """Count how one way to decide meets the truth, per video of select and validation."""
    decisions, chosen = run.decide(judged)
    found = {}
    for split in SPLITS:
        cells = annotated_cells(run.frames, split)
        found[split] = count_decisions(decisions[cells.rows], cells.truth, cells.video)
    return found, chosen


def figures(counts: Counts, reference: Counts | None, draws: int, seed: Sequence[int]) -> dict[str, Any]:
    """Return a row's figures with 95 % intervals, and its difference to the reference: a bootstrap over videos.

    Args:
        counts, reference: with the leading axis V, of the same videos, which are drawn alike for all rows.
        seed: of the draws.
    """
    weights = draw_resamples(len(counts.frames), draws, seed)
    total, drawn = challenge_figures(counts.total()), challenge_figures(counts.weighted(weights))
    found: dict[str, Any] = {key: float(value) for key, value in total.items()}
    found["intervals"] = {key: percentile_interval(values) for key, values in drawn.items()}
    found["per_au"] = figures_by_au({"f1": f1(counts.total()), "accuracy": accuracy(counts.total())})
    if reference is not None:
        there, there_drawn = challenge_figures(reference.total()), challenge_figures(reference.weighted(weights))
        found["less_reference"] = {
            key: paired_difference(total[key], there[key], (drawn[key], there_drawn[key])) for key in ("f1", "score")
        }
    return found


def as_tree(counts: dict[str, Counts]) -> dict[str, Any]:
    """Counts as lists, for a file."""
    return {split: {key: value.tolist() for key, value in vars(part).items()} for split, part in counts.items()}


def from_tree(tree: dict[str, Any]) -> dict[str, Counts]:
    """Read what `as_tree` gave."""
    return {split: Counts(**{key: np.array(value) for key, value in part.items()}) for split, part in tree.items()}


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
