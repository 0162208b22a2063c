"""Thresholds, confidence and the bound of a risk, each measured on people by whom it was not tuned."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta

from aupair.aus import AFFWILD2
from aupair.errors import ParamsError
from aupair.evaluation.calibration import (
    _FOLDS,
    HeldOut,
    _fit_confidence,
    _upper_bound,
    assign_calibration_folds,
    calibrate,
)
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.thresholds import tune_held_out, tune_threshold
from evaluation.worlds import held_out

A = len(AFFWILD2)


def people(seed: int, number: int, frames: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """raw, sigma, truth, person: each person's outputs are off by something of their own."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(number), frames)
    truth = rng.random((len(person), A)) < 0.3
    sigma = np.exp(rng.normal(-1, 0.5, truth.shape))
    off = rng.normal(0, 0.3, (number, A))[person]
    return truth + off + sigma * rng.normal(size=truth.shape), sigma, truth, person


def tune(raw: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Thresholds of fully labelled frames."""
    return tune_held_out(raw, truth, np.ones(truth.shape, bool), fold)


def decisions_of(seed: int, number: int) -> HeldOut:
    raw, sigma, truth, person = people(seed, number)
    fold = assign_calibration_folds(person, 0)
    return held_out(raw, sigma, tune(raw, truth, fold), truth, person=person, fold=fold)


@pytest.mark.parametrize("number", [1, 3, 12])
def test_people_are_assigned_whole_and_evenly(number: int) -> None:
    person = np.repeat(np.arange(number), 7) * 10
    fold = assign_calibration_folds(person, 0)
    of_person = [set(fold[person == one]) for one in np.unique(person)]
    assert all(len(folds) == 1 for folds in of_person)
    sizes = np.bincount([folds.pop() for folds in of_person])
    assert len(sizes) == min(number, _FOLDS)
    assert np.ptp(sizes) <= 1


def test_a_frames_thresholds_have_not_seen_its_person() -> None:
    raw, _, truth, person = people(0, 10)
    fold = assign_calibration_folds(person, 0)
    tuned = tune(raw, truth, fold)
    own_rows = fold == 2
    assert tuned[own_rows, 3] == pytest.approx(tune_threshold(raw[~own_rows, 3], truth[~own_rows, 3]))
    other = raw.copy()
    other[own_rows] = -other[own_rows]
    np.testing.assert_array_equal(tune(other, truth, fold)[own_rows], tuned[own_rows])
    assert (tune(other, truth, fold)[~own_rows] != tuned[~own_rows]).any()


def test_one_person_alone_has_thresholds_of_their_own_and_no_bound() -> None:
    raw, sigma, truth, person = people(0, 1)
    fold = assign_calibration_folds(person, 0)
    tuned = tune(raw, truth, fold)
    assert tuned[0, 3] == pytest.approx(tune_threshold(raw[:, 3], truth[:, 3]))
    confidence = calibrate(held_out(raw, sigma, tuned, truth, person=person, fold=fold))
    assert confidence.bounds is not None
    assert (confidence.bounds == 1).all(), "nothing can be promised of other people"


def test_held_out_decisions_make_the_confidence_less_too_high() -> None:
    gaps = []
    for seed in range(6):
        raw, sigma, truth, person = people(seed, 4)
        thresholds = np.array([tune_threshold(x, y) for x, y in zip(raw.T, truth.T)])
        held = tune(raw, truth, assign_calibration_folds(person, 0))
        new, new_sigma, new_truth, _ = people(100 + seed, 60)
        right = ((new >= thresholds) == new_truth).mean()
        sides = [
            _fit_confidence(held_out(raw, sigma, own, truth))(new, new_sigma, thresholds).mean()
            for own in (thresholds, held)
        ]
        gaps.append([side - right for side in sides])
    seen, unseen = np.mean(gaps, axis=0)
    assert seen > 0.01
    assert abs(unseen) < seen / 2


@pytest.mark.parametrize("labelled", [1.0, 0.4])
def test_the_risks_are_those_of_a_loop_over_folds_and_labelled_cells(labelled: float) -> None:
    cells = decisions_of(0, 6)
    cells = replace(cells, counted=np.random.default_rng(0).random(cells.truth.shape) < labelled)
    confidence = calibrate(cells)
    assert confidence.risks is not None
    for share in (0, 20, 50):
        total = wrong = 0
        for fold in np.unique(cells.fold):
            rest, own = cells.fold != fold, np.flatnonzero(cells.fold == fold)
            regression = _fit_confidence(cells.subset(rest))
            values = regression(cells.raw, cells.sigma, cells.thresholds)
            for au in range(A):
                active, counted = cells.raw[:, au] >= cells.thresholds[:, au], cells.counted[:, au]
                for side in (True, False):
                    limit = np.quantile(values[rest & counted & (active == side), au], share / 100)
                    for row in (row for row in own if counted[row] and active[row] == side):
                        if values[row, au] >= limit:
                            total += 1
                            wrong += cells.truth[row, au] != side
        assert confidence.risks[share] == pytest.approx(wrong / total)


def test_cells_without_a_label_are_as_if_they_were_not_there() -> None:
    """Frames of which all cells are not counted change nothing; nor do the outputs of cells that are not counted."""
    cells = decisions_of(0, 6)
    absent = np.random.default_rng(0).random(len(cells.truth)) < 0.3
    counted = np.repeat(~absent[:, None], A, axis=1)
    counted[:50, 3] = False
    some_missing = replace(cells, counted=counted)
    without = replace(cells, counted=counted, raw=np.where(counted, cells.raw, 7.0), truth=cells.truth & counted)
    few = some_missing.subset(~absent)
    first, *others = (calibrate(own) for own in (some_missing, without, few))
    for other in others:
        for name in ("coefficients", "quantiles", "risks", "bounds"):
            np.testing.assert_allclose(getattr(other, name), getattr(first, name), rtol=1e-6)


def test_an_au_without_a_label_has_the_confidence_of_all() -> None:
    cells = decisions_of(0, 6)
    counted = np.ones(cells.truth.shape, bool)
    counted[:, 2] = False
    alone = _fit_confidence(replace(cells, counted=counted))
    assert np.isfinite(alone.coefficients).all()
    others = np.delete(alone.coefficients, 2, axis=0)
    assert (others.min(0) <= alone.coefficients[2]).all()
    assert (alone.coefficients[2] <= others.max(0)).all()


@pytest.mark.parametrize("aus", [1, 3, 20])
def test_held_out_thresholds_are_tuned_on_labelled_cells_of_other_folds(aus: int) -> None:
    rng = np.random.default_rng(aus)
    raw, truth, fold = rng.normal(size=(120, aus)), rng.random((120, aus)) < 0.4, np.repeat(np.arange(3), 40)
    counted = rng.random((120, aus)) < 0.5
    counted[fold != 1, 0] = False
    tuned = tune_held_out(raw, truth, counted, fold)
    for row in (0, 50, 119):
        for au in range(aus):
            own = [k for k in range(120) if fold[k] != fold[row] and counted[k, au]]
            assert tuned[row, au] == tune_threshold(raw[own, au], truth[own, au])
    assert tuned[50, 0] == 0.5, "no label in the other folds"


def test_the_risk_falls_with_the_share_left_out_and_holds_for_new_people() -> None:
    cells = decisions_of(0, 24)
    confidence = calibrate(cells)
    assert confidence.risks is not None
    assert confidence.bounds is not None
    assert (confidence.bounds >= confidence.risks).all()
    assert confidence.risks[0] > confidence.risks[20] > confidence.risks[50]
    raw, sigma, truth, _ = people(1, 200)
    thresholds = np.array([tune_threshold(x, y) for x, y in zip(cells.raw.T, cells.truth.T)])
    values, active = confidence(raw, sigma, thresholds), raw >= thresholds
    for share in (0, 20, 50):
        limits = confidence.limits(share / 100)
        selected = values >= np.where(active, limits[1], limits[0])
        assert selected.mean() == pytest.approx(1 - share / 100, abs=0.05)
        risk = (active != truth)[selected].mean()
        assert risk == pytest.approx(confidence.risks[share], abs=0.03)
        assert risk < confidence.bounds[share]


def test_with_independent_cells_the_bound_is_nearly_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    number = np.full((400, 1), 50)
    errors = rng.binomial(50, 0.1, (400, 1))
    exact = beta.ppf(0.95, errors.sum() + 1, number.sum() - errors.sum())
    assert _upper_bound(errors, number)[0] == pytest.approx(exact, rel=0.02)


def test_people_who_differ_make_the_bound_wider_and_more_people_narrower() -> None:
    number = np.full((20, 1), 100)
    alike, unlike = np.full((20, 1), 10), np.array([[0], [20]] * 10)
    assert _upper_bound(unlike, number)[0] > _upper_bound(alike, number)[0] > 0.1
    assert _upper_bound(alike, number)[0] == pytest.approx(beta.ppf(0.95, 201, 1800), abs=0.005)
    twice = _upper_bound(np.tile(unlike, (4, 1)), np.tile(number, (4, 1)))[0]
    assert 0.1 < twice < _upper_bound(unlike, number)[0]


def test_no_error_at_all_counts_for_as_many_people_as_there_are() -> None:
    number, errors = np.full((24, 1), 1000), np.zeros((24, 1), int)
    bound = _upper_bound(errors, number)[0]
    assert 1 - 0.05 ** (1 / 24) < bound < 0.2
    assert _upper_bound(errors, 0 * number)[0] == 1.0, "nothing is kept"
    assert _upper_bound(number, number)[0] == pytest.approx(1.0), "all are wrong"


@pytest.mark.parametrize("number", [6, 12, 24])
def test_the_bound_is_exceeded_seldom_and_the_risk_itself_often(number: int) -> None:
    """Of 300 corpora: how often is more than the accepted risk kept among new people? About 1 in 20, and 1 in 2."""
    rng = np.random.default_rng(number)
    margin, wrong = world(rng, 2000)
    order = np.argsort(-margin, axis=None)
    true_risk = np.cumsum(wrong.ravel()[order]) / np.arange(1, wrong.size + 1)
    ranked = np.sort(margin, axis=None)
    broken, promised = {"bound": 0, "risk": 0}, {"bound": 0, "risk": 0}
    for _ in range(300):
        own, errors = world(rng, number)
        limits = np.quantile(own, np.linspace(0, 1, 101))
        reached = own[..., None] >= limits
        total, lost = reached.sum(1), (reached & errors[..., None]).sum(1)
        risks = lost.sum(0) / np.maximum(total.sum(0), 1)
        for name, bounds in (("bound", _upper_bound(lost, total)), ("risk", risks)):
            try:
                share = Confidence(np.zeros((A, 5)), bounds=bounds).share_for_risk(0.08)
            except ParamsError:
                continue  # nothing is promised
            above = int(np.searchsorted(ranked, limits[round(100 * share)]))
            promised[name] += 1
            broken[name] += bool(true_risk[ranked.size - above - 1] > 0.08)
    print(
        f"{number} people: bound {broken['bound']} of {promised['bound']}, risk {broken['risk']} of {promised['risk']}"
    )
    assert promised["bound"] > 30
    assert broken["bound"] <= 0.12 * 300
    assert broken["risk"] > 2 * broken["bound"]


def world(rng: np.random.Generator, number: int, cells: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """How sure decisions are and which are wrong, (P, n) each: some people and some frames are harder than they look."""
    margin = rng.normal(2.9, 1.6, (number, cells))
    harder = rng.normal(0, 0.6, (number, 1)) + np.repeat(rng.normal(0, 0.7, (number, cells // 12)), 12, axis=1)
    return margin, rng.random((number, cells)) < expit(harder - margin)
