"""What abstaining from the least trusted decisions is worth, and whether their confidence is what it claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.evaluation.selection import Cells
from aupair.evaluation.uncertainty import aurc, auroc, ranked_risk, reliability, risk_coverage

THIN = 5
"""of a risk-coverage curve's 100 points every fifth goes to metrics.json"""


@dataclass(frozen=True)
class Decided:
    """The decisions on the annotated frames with a face of one split, n of them; other frames have no confidence.

    Attributes:
        decisions: (n, A) bool, active.
        truth: (n, A) bool, active.
        video: (n,) int32.
        trust: ways to rank the cells, (n, A) each, higher for more trusted. confidence: P(the decision is right);
            margin: the distance to the threshold; certainty: the rank of -sigma within its AU, since sigmas of
            different AUs are not compared.
    """

    decisions: np.ndarray
    truth: np.ndarray
    video: np.ndarray
    trust: dict[str, np.ndarray]

    @property
    def wrong(self) -> np.ndarray:
        """(n, A) bool."""
        return self.decisions != self.truth


def decided(frames: Frames, cells: Cells, decisions: np.ndarray, trust: Mapping[str, np.ndarray]) -> Decided:
    """Take the annotated frames with a face of `cells`.

    Args:
        decisions: (N, A) bool.
        trust: confidence, margin and sigma, (N, A) each.
    """
    seen = frames.ok[cells.rows]
    rows = cells.rows[seen]
    ways = {
        "confidence": trust["confidence"][rows],
        "margin": trust["margin"][rows],
        "certainty": -rankdata(trust["sigma"][rows], axis=0),
    }
    return Decided(decisions[rows], cells.truth[seen], cells.video[seen], ways)


def decision_evidence(found: Decided) -> dict[str, Any]:
    """Judge the decisions, all AUs pooled and each AU: errors, abstention, calibration of the confidence.

    Returns:
        The tree `decisions` of metrics.json, without `selective` and `abstention`: for all cells, and below `per_au` for
        each AU's,
            error: the share of wrong cells;
            error_at_80: that share among the most trusted 80 %, for each way to trust;
            aurc: the area under risk-coverage for each way; `random`: of random abstention, the error itself; `best`:
                with every wrong cell left out first;
            auroc_right: does the way tell right cells from wrong ones?
            confidence_ece, confidence_brier: of the confidence, 15 bins of [0, 1];
            risk_coverage: coverage (20,) .05 ... 1 and risk (20,), for each way;
        for all cells also their number, `cells`, and `reliability`: claimed, observed, share, (15,) each.
    """
    pooled = {name: values.ravel() for name, values in found.trust.items()}
    each = {
        au: _figures(found.wrong[:, k], {name: values[:, k] for name, values in found.trust.items()})
        for k, au in enumerate(AUS)
    }
    bins = reliability(pooled["confidence"], ~found.wrong.ravel(), low=0.0)
    return {
        "cells": int(found.wrong.size),
        **_figures(found.wrong.ravel(), pooled),
        "reliability": {name: values.tolist() for name, values in zip(("claimed", "observed", "share"), bins)},
        "per_au": each,
    }


def _figures(wrong: np.ndarray, trust: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Judge cells: wrong (n,) bool, trust (n,) for each way."""
    ranked = {name: ranked_risk(wrong, values) for name, values in trust.items()}
    curves = {name: risk_coverage(risk) for name, risk in ranked.items()}
    areas = {name: float(risk.mean()) for name, risk in ranked.items()}
    p = trust["confidence"]
    claimed, observed, share = reliability(p, ~wrong, low=0.0)
    return {
        "error": float(wrong.mean()),
        "error_at_80": {name: float(risk[79]) for name, (_, risk) in curves.items()},
        "aurc": {**areas, "random": float(wrong.mean()), "best": aurc(wrong, (~wrong).astype(np.float64))},
        "auroc_right": {name: auroc(values, ~wrong) for name, values in trust.items()},
        "confidence_ece": float(np.nansum(share * np.abs(claimed - observed))),
        "confidence_brier": float(np.mean((p - ~wrong) ** 2)),
        "risk_coverage": {name: _thin(curve) for name, curve in curves.items()},
    }


def _thin(curve: tuple[np.ndarray, np.ndarray]) -> dict[str, list[float]]:
    """Keep every fifth point of a curve, the last one included."""
    return {name: values[THIN - 1 :: THIN].tolist() for name, values in zip(("coverage", "risk"), curve)}
