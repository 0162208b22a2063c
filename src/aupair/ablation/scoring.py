"""The decisions of a finished run by each decision rule, their counts per person, and the scores computed from the counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from aupair import stages, store
from aupair.data.frames import Frames, load_frames
from aupair.evaluation.bootstrap import draw_resamples, paired_difference, percentile_interval
from aupair.evaluation.choice import tune_route
from aupair.evaluation.cost import cost_of
from aupair.evaluation.metrics import (
    Counts,
    accuracy,
    au_score,
    challenge_figures,
    count_decisions,
    f1,
    figures_by_au,
)
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.rows import CONSTANTS, constant_decisions, parts_of_row, route_rows
from aupair.evaluation.selection import Outputs, annotated_cells, read_outputs, uses_uncertainty
from aupair.evaluation.summary import read_metrics
from aupair.evaluation.thresholds import tune_thresholds
from aupair.params import Params, ThresholdRule

SPLITS = ("select", "validation")
LOW_PERCENTILES = (1, 5, 10, 20, 30, 50)
"""The percentiles from which `value-lowest` chooses the best for each AU on select."""
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
"""The paths in metrics.json of the figures that the report shows beside F1; for select they are below the key `select`."""


@dataclass(frozen=True)
class FinishedRun:
    """A run of the flow that evaluate has finished, in memory.

    Attributes:
        params: the params of the run.
        frames: the N frames.
        outputs: the outputs that evaluate scored.
        selection, metrics: the trees that evaluate wrote.
    """

    params: Params
    frames: Frames
    outputs: Outputs
    selection: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def load(cls, root: Path, params: Params) -> "FinishedRun":
        """Load the finished run in a folder."""
        paths = stages.get_stage("evaluate").paths(root, params.trials)
        frames = load_frames(paths["labels"], paths["faces"])
        selection = store.read_json(paths["selection"])
        parts = {name: paths[name] for name in ("f", "h", "features", "mapping")}
        outputs = read_outputs(frames, **parts, ensemble=params.ensemble)
        return cls(params, frames, outputs, selection, read_metrics(paths["metrics"]))

    def score(self, rule: str) -> dict[str, Any]:
        """Score a decision rule.

        Returns:
            aus: the names of the AUs; frames: see metrics.json; counts: the counts per person of select and validation;
            evidence: the figures of EVIDENCE by split; cost: see `_rule_cost`.
        """
        decisions, counts = self.decide(rule), {}
        for split in SPLITS:
            cells = annotated_cells(self.frames, split)
            counts[split] = count_decisions(decisions[cells.rows], cells.truth, cells.person, cells.counted)
        trees = {"select": self.metrics["select"], "validation": self.metrics}
        evidence = {
            split: {name: reduce(getitem, path, tree) for name, path in EVIDENCE.items()}
            for split, tree in trees.items()
        }
        aus = self.frames.aus
        return {
            "aus": aus,
            "frames": self.metrics["frames"],
            "counts": counts,
            "evidence": evidence,
            "cost": _rule_cost(rule, self.params, len(aus)),
        }

    def decide(self, rule: str) -> np.ndarray:
        """Return the decisions of a rule for all frames, (N, A) bool; its thresholds and percentiles are chosen on `select`."""
        frames, aus = self.frames, self.frames.aus
        if rule in CONSTANTS:
            fit = annotated_cells(frames, "fit")
            return np.broadcast_to(constant_decisions(fit.truth, fit.counted)[rule], frames.labels.shape)
        if rule.startswith("value"):
            return self._decide_by_value(rule)
        route = route_rows(list(self.outputs.raws), self.outputs.with_route).get(rule)
        if route is not None:
            raw = fill_nearest(self.outputs.raws[route], frames.ok, frames.video)
            return raw >= tune_route(raw, annotated_cells(frames, "select"), self.params.evaluate)
        uses = np.array([uses_uncertainty(self.selection[au]) for au in aus])
        raw = fill_nearest(self.outputs.raw(uses), frames.ok, frames.video)
        return raw >= np.array([self.selection[au]["threshold"] for au in aus])

    def _decide_by_value(self, rule: str) -> np.ndarray:
        """Compare y_hat, minus a percentile of the person if the rule requires it, with a threshold tuned on select."""
        frames, cells = self.frames, annotated_cells(self.frames, "select")
        tuned: ThresholdRule = "tuned_f1" if self.params.evaluate.thresholds == "tuned_f1" else "tuned"
        levels = {"value": (None,), "value-median": (50,), "value-lowest": LOW_PERCENTILES}[rule]
        best_score, best = np.full(len(frames.aus), -np.inf), np.zeros(frames.labels.shape, bool)
        for level in levels:
            raw = self.outputs.y_hat.astype(np.float64)
            if level is not None:
                raw = raw - _person_percentile(raw, frames, level)
            raw = fill_nearest(raw, frames.ok, frames.video)
            decisions = raw >= tune_thresholds(raw[cells.rows], cells.truth, cells.counted, tuned)
            counts = count_decisions(decisions[cells.rows], cells.truth, cells.person, cells.counted)
            score = np.nan_to_num(
                au_score(counts.total())
            )  # 0 for an AU without a label, so that it keeps the first level
            better = score > best_score
            best_score, best = np.where(better, score, best_score), np.where(better, decisions, best)
        return best


def _person_percentile(values: np.ndarray, frames: Frames, level: float) -> np.ndarray:
    """Return for each frame a percentile of its person's values over all clips, (N, A); NaN for a person without a face."""
    percentiles = np.full(values.shape, np.nan)
    for subject in np.unique(frames.subject):
        rows = frames.subject == subject
        if (rows & frames.ok).any():
            percentiles[rows] = np.percentile(values[rows & frames.ok], level, axis=0)
    return percentiles


def _rule_cost(rule: str, params: Params, aus: int) -> dict[str, float]:
    """Return the cost of the networks that a decision rule needs: parameters, gmac_per_frame and passes, see `cost_of`."""
    parts: dict[str, dict[str, float]] = cost_of(params, aus)["parts"]
    needed = ("f",) if rule.startswith("value") else parts_of_row(rule, params.extract_features.deciding)
    used = [parts[name] for name in needed if name in parts]
    return {key: float(sum(part[key] for part in used)) for key in ("parameters", "gmac_per_frame", "passes")}


def row_figures(
    counts: Counts, reference: Counts | None, aus: Sequence[str], draws: int, seed: Sequence[int]
) -> dict[str, Any]:
    """Return a row's figures with 95 % intervals, and its difference from the reference.

    Args:
        counts, reference: counts of the same people; all rows use the same resamples.
        aus: the names of the AUs.
        draws: bootstrap resamples of the people.
    """
    weights = draw_resamples(len(counts.frames), draws, seed)
    total, drawn = challenge_figures(counts.total()), challenge_figures(counts.weighted(weights))
    result: dict[str, Any] = {key: float(value) for key, value in total.items()}
    result["intervals"] = {key: percentile_interval(values) for key, values in drawn.items()}
    result["per_au"] = figures_by_au({"f1": f1(counts.total()), "accuracy": accuracy(counts.total())}, aus)
    if reference is not None:
        reference_total = challenge_figures(reference.total())
        reference_drawn = challenge_figures(reference.weighted(weights))
        result["less_reference"] = {
            key: paired_difference(total[key], reference_total[key], (drawn[key], reference_drawn[key]))
            for key in ("f1", "score")
        }
    return result
