"""The decision rules on a finished run: rows of evaluate come out again; y_hat against a threshold; the costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair.ablation.scoring import FinishedRun, _person_percentile, _rule_cost, row_figures
from aupair.aus import AFFWILD2
from aupair.evaluation.evaluate import evaluate_flow
from aupair.evaluation.metrics import Counts
from aupair.evaluation.nearest_face import fill_nearest
from aupair.evaluation.selection import annotated_cells
from aupair.evaluation.thresholds import tune_threshold
from aupair.params import Params, load_params
from evaluation.worlds import MISSING, QUICK, world

BASE = load_params(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(scope="module")
def run(finished: Path, tiny: Params) -> FinishedRun:
    return FinishedRun.load(finished, tiny)


@pytest.mark.parametrize("rule", ["all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2"])
def test_evaluates_rows_come_out_again(run: FinishedRun, rule: str) -> None:
    for split, counts in run.score(rule)["counts"].items():
        (row,) = [row for row in run.metrics["rows"] if (row["name"], row["split"]) == (rule, split)]
        result = row_figures(counts, None, run.frames.aus, 10, (0,))
        for key in ("f1", "accuracy", "exact_match", "score"):
            assert result[key] == pytest.approx(row[key], abs=1e-12), (split, key)
        assert result["per_au"]["AU12"]["f1"] == pytest.approx(row["per_au"]["AU12"]["f1"], abs=1e-12)


def test_a_persons_percentile_is_over_all_its_clips(run: FinishedRun) -> None:
    frames, values = run.frames, run.outputs.y_hat.astype(np.float64)
    percentiles = _person_percentile(values, frames, 20)
    for subject in range(len(frames.subjects)):
        own = [v for v, s, ok in zip(values[:, 3], frames.subject, frames.ok) if s == subject and ok]
        assert percentiles[frames.subject == subject, 3] == pytest.approx(np.percentile(own, 20))


def test_subtracting_a_persons_percentile_removes_the_persons_offset(run: FinishedRun) -> None:
    shifted = run.outputs.y_hat + 50.0 * run.frames.subject[:, None]
    other = replace(run, outputs=replace(run.outputs, y_hat=shifted.astype(np.float64)))
    for rule, same in (("value-median", True), ("value-lowest", True), ("value", False)):
        a, b = run.decide(rule), other.decide(rule)
        # 50 added in float32 moves a value by 1e-6: a frame at its threshold may turn over.
        assert np.array_equal(a, b) is same or (same and (a == b).mean() > 0.99), rule


def test_the_threshold_of_y_hat_is_chosen_on_select_alone(run: FinishedRun) -> None:
    hidden, labels = run.frames.of_split("validation"), run.frames.labels.copy()
    labels[hidden] = 1 - labels[hidden]
    other = replace(run, frames=replace(run.frames, labels=labels))
    for rule in ("value", "value-median", "value-lowest"):
        np.testing.assert_array_equal(run.decide(rule), other.decide(rule))


def test_a_score_has_a_count_for_each_person_and_the_evidence_of_both_splits(run: FinishedRun) -> None:
    result = run.score("value-lowest")
    assert len(result["counts"]["validation"].frames) == len(
        np.unique(annotated_cells(run.frames, "validation").person)
    )
    assert result["evidence"]["select"].keys() == result["evidence"]["validation"].keys()


def test_a_rule_costs_the_networks_that_it_needs() -> None:
    value, plain, whole, none = (
        _rule_cost(rule, BASE, 12)["gmac_per_frame"] for rule in ("value", "no-uncertainty", "P1", "all-zero")
    )
    assert 0 == none < value < plain < whole


def test_the_difference_is_of_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(20, 40, (30, 12))
    cells = np.stack([right, 40 - right, 40 - right, right], axis=-1)
    counts = Counts(cells, cells, np.zeros(30, np.int64), np.full(30, 80))
    more_cells = cells + np.array([3, 0, 0, 3])
    better = Counts(more_cells, more_cells, np.zeros(30, np.int64), np.full(30, 86))
    same, more = (
        row_figures(counts, counts, AFFWILD2, 500, (0,))["less_reference"]["f1"],
        row_figures(better, counts, AFFWILD2, 500, (0,))["less_reference"]["f1"],
    )
    assert (same["difference"], same["interval"], same["probability"]) == (0, [0, 0], 0.5)
    assert 0 < more["interval"][0] < more["difference"] < more["interval"][1]  # its own interval is far wider
    assert more["probability"] == 1
    alone = row_figures(better, counts, AFFWILD2, 500, (0,))["intervals"]["f1"]
    assert alone[1] - alone[0] > 3 * (more["interval"][1] - more["interval"][0])


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("aus", [1, 3, 20])
def test_rows_are_scored_on_labelled_cells_as_evaluate_scores_them(aus: int, missing: str) -> None:
    frames, outputs, pairs, conditions = world(aus=aus, missing=missing)
    evaluation = evaluate_flow(frames, outputs, pairs, conditions, QUICK)
    run = FinishedRun(BASE, frames, outputs, evaluation.selection, evaluation.metrics)
    for rule in ("all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2"):
        for split, counts in run.score(rule)["counts"].items():
            (row,) = [row for row in run.metrics["rows"] if (row["name"], row["split"]) == (rule, split)]
            result = row_figures(counts, counts, frames.aus, 10, (0,))
            for key in ("f1", "accuracy", "exact_match", "score"):
                assert result[key] == pytest.approx(row[key], abs=1e-12, nan_ok=True), (rule, split, key)
            assert np.isnan(result["less_reference"]["score"]["difference"]) == np.isnan(row["score"])
            assert list(result["per_au"]) == list(frames.aus)


@pytest.mark.parametrize("rule", ["value", "value-median", "value-lowest"])
def test_a_value_is_compared_with_a_threshold_of_labelled_frames(rule: str) -> None:
    """Labels that are missing in one AU, and the labels of others, change nothing of an AU's decisions."""
    frames, outputs, *_ = world(aus=3)
    labels = frames.labels.copy()
    labels[:, 1] = -1
    labels[::3, 2] = -1
    before, after = (
        FinishedRun(BASE, own, outputs, {}, {}).decide(rule) for own in (frames, replace(frames, labels=labels))
    )
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    own = [k for k in np.flatnonzero(frames.of_split("select")) if labels[k, 2] >= 0]
    if rule == "value":
        filled = fill_nearest(outputs.y_hat.astype(np.float64), frames.ok, frames.video)
        assert (after[:, 2] == (filled[:, 2] >= tune_threshold(filled[own, 2], labels[own, 2] == 1))).all()
        np.testing.assert_array_equal(after[:, 1], filled[:, 1] >= 0.5)
