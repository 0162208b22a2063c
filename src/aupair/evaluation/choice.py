"""Choice of a threshold and of a mapping for each AU, by default on the split `select`.

P1 and P2 are rows of the score table, named as in the paper. P1 uses the mapping with uncertainty for all AUs, P2 for all AUs
except those where it scores clearly lower. With other people, other thresholds and mappings would be chosen. All choices are
therefore repeated in every bootstrap resample of the people, so that intervals on the other split include this variation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.bootstrap import draw_resamples, paired_difference
from aupair.evaluation.metrics import (
    Counts,
    LevelSums,
    accuracy,
    au_score,
    challenge_figures,
    f1,
    icc,
    macro,
    mae,
    sum_levels,
)
from aupair.evaluation.selection import MAPPINGS, RAW, Cells, Outputs, filled_outputs
from aupair.evaluation.thresholds import DEFAULT, tune_in_resamples, tune_thresholds
from aupair.params import Evaluate

_Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ResampledChoice:
    """The choices made in each of B resamples of the people.

    Attributes:
        thresholds: (B, A) float64 of each route.
        uses_uncertainty: (B, A) bool.
    """

    thresholds: _Values
    uses_uncertainty: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The thresholds and mappings that were chosen.

    Attributes:
        chosen_on: the split on which they were chosen.
        thresholds: (A,) float64 of each route.
        with_route: the route that decides with uncertainty.
        uses_uncertainty: (A,) bool, whether the AU is decided by the mapping with uncertainty.
        evidence: for each AU the scores that the choice is based on, as `selection.json` has them.
        result: f1, accuracy, exact_match and score of P2 on that split, and icc if the target is intensity.
        resampled: the choices in resamples of the people of that split.
    """

    chosen_on: str
    thresholds: _Values
    with_route: str
    uses_uncertainty: np.ndarray
    evidence: list[dict[str, Any]]
    result: dict[str, float]
    resampled: ResampledChoice

    def chosen_thresholds(self, uses: np.ndarray) -> np.ndarray:
        """Return the thresholds (A,) that belong to `uses`, (A,) bool."""
        return np.where(uses, self.thresholds[self.with_route], self.thresholds[RAW])


def choose_mappings(
    outputs: Outputs, frames: Frames, cells: Cells, params: Evaluate, target: str = "occurrence"
) -> Choice:
    """Choose the thresholds of each route, then a mapping for each AU, on the annotated frames `cells`.

    An AU keeps the mapping with uncertainty unless its score is lower there by more than `_loss_limit`. The score is
    1/2 (F1 + accuracy), also if thresholds maximise F1 alone; if the target is intensity, it is the intraclass correlation
    ICC(3,1).
    """
    raws, routes = filled_outputs(outputs, frames), (RAW, outputs.with_route)
    thresholds = {route: tune_route(raw, cells, params) for route, raw in raws.items()}
    counts = [cells.count(raws[route], thresholds[route]) for route in routes]
    sums = [_sum(raws[route], cells) for route in routes] if target == "intensity" else []
    figures, chosen_by = _figures(counts, sums), "icc" if sums else "score"
    resampled, drawn = _choose_in_resamples(raws, routes, cells, params, target)
    limit = _loss_limit(drawn, params)
    uses = _keeps_uncertainty(figures[1][chosen_by] - figures[0][chosen_by], limit)
    if outputs.with_route == RAW:
        uses = np.zeros(len(uses), bool)
    chosen = cells.count(
        np.where(uses, raws[routes[1]], raws[RAW]), np.where(uses, thresholds[routes[1]], thresholds[RAW])
    )
    result = {k: float(v) for k, v in challenge_figures(chosen.total()).items()}
    if sums:
        result["icc"] = macro(np.where(uses, figures[1]["icc"], figures[0]["icc"]))
    sides = [{"threshold": thresholds[route], **figures[k]} for k, route in enumerate(routes)]
    entries = _evidence(sides, counts[0].cells, chosen_by, uses, drawn)
    evidence = [entry | {"loss_limit": float(own)} for entry, own in zip(entries, limit)]
    return Choice(cells.split, thresholds, outputs.with_route, uses, evidence, result, resampled)


def _loss_limit(drawn: Sequence[np.ndarray], params: Evaluate) -> np.ndarray:
    """Return for each AU the loss in score beyond which the mapping without uncertainty is chosen: (A,).

    The limit is max(tie, z s), with the standard deviation s of the gain over resamples and the normal quantile z of
    `loss_confidence`: with few people, differences of some hundredths occur by chance.

    Args:
        drawn: the scores without and with uncertainty in each resample of the people, (B, A) each.
    """
    gain = drawn[1] - drawn[0]
    number = np.isfinite(gain).sum(axis=0)
    mean = np.nansum(gain, axis=0) / np.maximum(number, 1)
    deviation = np.sqrt(np.nansum((gain - mean) ** 2, axis=0) / np.maximum(number, 1))
    return np.maximum(params.tie, NormalDist().inv_cdf(params.loss_confidence) * deviation)


def _keeps_uncertainty(gain: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return which AUs keep the mapping with uncertainty, from its gain in score; an undefined (NaN) gain keeps it, too."""
    return np.logical_not(gain < -limit)


def tune_route(raw: np.ndarray, cells: Cells, params: Evaluate) -> np.ndarray:
    """Return the thresholds (A,) of a route's filled outputs."""
    return tune_thresholds(raw[cells.rows], cells.truth, cells.counted, params.thresholds)


def _sum(raw: np.ndarray, cells: Cells) -> LevelSums:
    """Return the sums of a route's filled outputs and the levels."""
    return sum_levels(raw[cells.rows], cells.level, cells.person, cells.counted)


def _choose_in_resamples(
    raws: _Values, routes: tuple[str, str], cells: Cells, params: Evaluate, target: str
) -> tuple[ResampledChoice, list[np.ndarray]]:
    """Repeat the choices of `choose_mappings` in every resample of the people.

    Returns:
        The choices; and the scores without and with uncertainty that they are based on, (B, A) each.
    """
    draws = draw_resamples(cells.people, params.bootstrap, (params.seed, SPLITS.index(cells.split)))
    weights, thresholds, scores = draws.astype(np.float64), {}, {}
    for route, raw in raws.items():
        if params.thresholds == "half":
            thresholds[route] = np.full((len(weights), len(cells.aus)), DEFAULT)
            scores[route] = au_score(cells.count(raw, thresholds[route][0]).weighted(weights))
        else:
            columns = zip(raw[cells.rows].T, cells.truth.T, cells.counted.T)
            tuned = [
                tune_in_resamples(x[use], y[use], cells.index[use], weights, params.thresholds) for x, y, use in columns
            ]
            thresholds[route], scores[route] = (np.stack(own, axis=1) for own in zip(*tuned))
    compared = [scores[route] for route in routes]
    if target == "intensity":
        compared = [icc(_sum(raws[route], cells).weighted(weights)) for route in routes]
    uses = _keeps_uncertainty(compared[1] - compared[0], _loss_limit(compared, params))
    return ResampledChoice(thresholds, uses), compared


def _figures(counts: list[Counts], sums: list[LevelSums]) -> list[dict[str, np.ndarray]]:
    """Return the scores of each mapping, (A,) each, from counts per person, and from sums of levels if `sums` has them."""
    totals = [part.total() for part in counts]
    figures = [{"f1": f1(total), "accuracy": accuracy(total), "score": au_score(total)} for total in totals]
    for side, part in zip(figures, sums):
        side |= {"icc": icc(part.total()), "mae": mae(part.total())}
    return figures


def _evidence(
    figures: list[dict[str, np.ndarray]], cells: np.ndarray, chosen_by: str, uses: np.ndarray, drawn: list[np.ndarray]
) -> list[dict[str, Any]]:
    """Return the entry of each AU in selection.json: the scores of both mappings, and evidence that one is better.

    The interval of the difference and `probability_with_better`, the probability that the mapping with uncertainty has the
    higher score, come from a paired bootstrap over people, in which the thresholds are tuned again. `people` have a label of
    the AU.

    Args:
        figures: threshold and scores without and with uncertainty, (A,) each.
        cells: (P, A, 4), the counts of each person.
        chosen_by: the score by which the mapping is chosen.
        uses: (A,) bool.
        drawn: that score without and with uncertainty in each resample, (B, A) each.
    """
    evidence = []
    for au, use in enumerate(uses):
        sides = [{name: float(values[au]) for name, values in side.items()} for side in figures]
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
