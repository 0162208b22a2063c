"""Thresholds, mappings and counts that are chosen again in every resample, compared with loops over repeated frames."""

from dataclasses import replace

import numpy as np
import pytest

from aupair.aus import SPLITS
from aupair.evaluation.bootstrap import draw_resamples
from aupair.evaluation.choice import choose_mappings
from aupair.evaluation.counting import count_in_resamples
from aupair.evaluation.evaluate import evaluate_flow
from aupair.evaluation.metrics import au_score, challenge_figures, count_decisions
from aupair.evaluation.selection import Cells, annotated_cells, filled_outputs
from aupair.evaluation.thresholds import tune_in_resamples, tune_threshold, tune_thresholds
from aupair.params import ThresholdRule
from evaluation.worlds import MISSING, QUICK, world


def repeat(person: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The frames of a resample, those of a person behind each other as often as the person was drawn."""
    rows = [np.tile(np.flatnonzero(person == k), times) for k, times in enumerate(weights)]
    return np.concatenate(rows)


@pytest.mark.parametrize("rule", ["tuned", "tuned_f1"])
@pytest.mark.parametrize("seed", range(12))
def test_a_threshold_in_a_resample_is_that_of_its_repeated_frames(seed: int, rule: ThresholdRule) -> None:
    rng = np.random.default_rng(seed)
    truth, person = rng.random(80) < (rng.uniform(0.05, 0.9) if seed else 0), rng.integers(0, 5, 80)
    raw = np.round(rng.normal(0.3 + 0.3 * truth, 0.3), 1 + seed % 3).astype(np.float32)  # many are equal
    raw[(rng.random(80) < 0.1) | (person == seed % 7)] = np.nan
    weights = draw_resamples(5, 60, (seed,))
    thresholds, scores = tune_in_resamples(raw, truth, person, weights.astype(np.float64), rule)
    for own, threshold, score in zip(weights, thresholds, scores):
        rows = repeat(person, own)
        assert threshold == tune_threshold(raw[rows], truth[rows], rule)
        counts = count_decisions((raw[rows] >= threshold)[:, None], truth[rows][:, None], np.zeros(len(rows), int))
        assert score == pytest.approx(au_score(counts.total())[0])


def test_more_outputs_than_cuts_cost_a_thousandth_of_the_score() -> None:
    rng = np.random.default_rng(0)
    truth, person = rng.random(40_000) < 0.2, rng.integers(0, 20, 40_000)
    raw = (0.5 * truth + rng.normal(0, 0.3, 40_000)).astype(np.float32)
    weights = draw_resamples(20, 5, (0,))
    for own, score in zip(weights, tune_in_resamples(raw, truth, person, weights.astype(np.float64))[1]):
        rows = repeat(person, own)
        decided = raw[rows] >= tune_threshold(raw[rows], truth[rows])
        counts = count_decisions(decided[:, None], truth[rows][:, None], np.zeros(len(rows), int))
        assert score == pytest.approx(au_score(counts.total())[0], abs=1e-3)


def test_a_resample_without_frames_has_no_score() -> None:
    weights = np.array([[0.0, 2.0], [2.0, 0.0]])
    thresholds, scores = tune_in_resamples(np.array([0.2, 0.8]), np.array([False, True]), np.array([1, 1]), weights)
    assert thresholds.tolist() == [0.5, 0.5]
    assert (scores[0], np.isnan(scores[1])) == (1, True)


def cells_of(cells: Cells, rows: np.ndarray) -> Cells:
    return replace(cells, rows=cells.rows[rows], person=cells.person[rows], level=cells.level[rows])


@pytest.mark.parametrize("missing", MISSING)
def test_an_interval_on_validation_has_the_choice_made_again_in_every_resample(missing: str) -> None:
    frames, outputs, pairs, conditions = world(aus=4, missing=missing)
    params = QUICK.model_copy(update={"bootstrap": 20})
    frames = replace(frames, subject=np.array([0, 1, 2, 3, 4, 3, 6, 7, 6], np.int32)[frames.video])
    select, validation = (annotated_cells(frames, split) for split in SPLITS[1:])
    choice = choose_mappings(outputs, frames, select, params)
    weights = [draw_resamples(2, 20, (params.seed, SPLITS.index(split))) for split in SPLITS[1:]]
    raws = filled_outputs(outputs, frames)
    counts = count_in_resamples(raws, validation, weights[1], choice)
    tuned, gains = [], []
    for to_choose in weights[0]:
        own = cells_of(select, repeat(select.index, to_choose))
        thresholds = {route: tune_thresholds(raw[own.rows], own.truth, own.counted) for route, raw in raws.items()}
        scores = {route: au_score(own.count(raw, thresholds[route]).total()) for route, raw in raws.items()}
        tuned.append(thresholds)
        gains.append(scores["both"] - scores["raw"])
    limit = np.fmax(params.tie, 1.6448536 * np.nanstd(gains, axis=0))
    np.testing.assert_allclose([entry["loss_limit"] for entry in choice.evidence], limit)
    f1, kept = [], []
    for draw, (thresholds, gain, to_score) in enumerate(zip(tuned, gains, weights[1])):
        scored = cells_of(validation, repeat(validation.index, to_score))
        uses = ~(gain < -limit)
        chosen = np.where(uses, raws["both"], raws["raw"]), np.where(uses, thresholds["both"], thresholds["raw"])
        expected = {
            "P2": scored.count(*chosen),
            **{route: scored.count(raws[route], thresholds[route]) for route in raws},
        }
        for name, part in expected.items():
            for key, values in vars(part.total()).items():
                np.testing.assert_array_equal(getattr(counts[name], key)[draw], values, err_msg=f"{name} {key}")
        f1.append(float(challenge_figures(expected["P2"].total())["f1"]))
        kept.append(uses)
    np.testing.assert_array_equal(choice.resampled.uses_uncertainty, kept)
    result = evaluate_flow(frames, outputs, pairs, conditions, params)
    row = next(row for row in result.metrics["rows"] if (row["name"], row["split"]) == ("P2", "validation"))
    np.testing.assert_allclose(row["intervals"]["f1"], np.quantile(f1, [0.025, 0.975]))
    people = result.draws["people"]
    assert people["names"] == ["s6", "s7"]
    np.testing.assert_allclose(people["rows"]["P2"]["draws"], f1, atol=1e-6)
    assert (
        np.sum(people["rows"]["all-one"]["counts"], axis=0).reshape(4, 4).sum(1).tolist()
        == validation.counted.sum(0).tolist()
    )


def test_the_choice_widens_the_interval_where_it_is_left_to_chance() -> None:
    """Thresholds from people of select who differ: with their draw the decisions on validation change."""
    frames, outputs, pairs, conditions = world()
    shift = np.where(frames.of_split("select"), frames.video % 3 - 1.0, 0)[:, None].astype(np.float32)
    shifted = replace(outputs, raws={route: raw + shift for route, raw in outputs.raws.items()})
    width = []
    for own in (outputs, shifted):
        rows = evaluate_flow(frames, own, pairs, conditions, QUICK).metrics["rows"]
        low, high = next(r for r in rows if (r["name"], r["split"]) == ("P1", "validation"))["intervals"]["f1"]
        width.append(high - low)
    assert width[1] > 2 * width[0]
