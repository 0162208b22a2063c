"""Scores against scikit-learn, counts and resamples against loops."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as sk

from aupair.evaluation.bootstrap import draw_resamples, paired_difference
from aupair.evaluation.metrics import (
    Counts,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    calibration_bins,
    challenge_figures,
    count_decisions,
    f1,
    macro,
    spearman,
)
from aupair.evaluation.rows import constant_decisions


def draw(seed: int, n: int = 300, a: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions, truth, video."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, a)) < np.linspace(0.02, 0.7, a)
    return truth ^ (rng.random((n, a)) < 0.2), truth, np.sort(rng.integers(3, 10, n))


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_scikit_learn(seed: int) -> None:
    decisions, truth, video = draw(seed)
    counts = count_decisions(decisions, truth, video).total()
    columns = list(zip(decisions.T, truth.T))
    np.testing.assert_allclose(f1(counts), [sk.f1_score(t, d, zero_division=0) for d, t in columns])
    np.testing.assert_allclose(accuracy(counts), [sk.accuracy_score(t, d) for d, t in columns])
    np.testing.assert_allclose(balanced_accuracy(counts), [sk.balanced_accuracy_score(t, d) for d, t in columns])
    head = challenge_figures(counts)
    assert head["f1"] == pytest.approx(sk.f1_score(truth, decisions, average="macro", zero_division=0))
    assert head["accuracy"] == pytest.approx((decisions == truth).mean())
    assert head["exact_match"] == pytest.approx(sk.accuracy_score(truth, decisions))
    assert head["score"] == pytest.approx((head["f1"] + head["accuracy"]) / 2)


def test_counts_per_video_equal_a_loop() -> None:
    decisions, truth, video = draw(3)
    counts = count_decisions(decisions, truth, video)
    for index, name in enumerate(np.unique(video)):
        d, t = decisions[video == name], truth[video == name]
        assert counts.frames[index] == len(d)
        assert counts.exact[index] == sum(all(x == y) for x, y in zip(d, t))
        for au in range(12):
            expected = [int(((d[:, au] == p) & (t[:, au] == q)).sum()) for p, q in [(1, 1), (1, 0), (0, 1), (0, 0)]]
            assert counts.cells[index, au].tolist() == expected


def test_a_resample_equals_repeating_the_videos_frames() -> None:
    decisions, truth, video = draw(4)
    names = np.unique(video)
    weights = draw_resamples(len(names), 20, (0, 1))
    assert (weights.sum(1) == len(names)).all()
    drawn = challenge_figures(count_decisions(decisions, truth, video).weighted(weights))
    for b, weight in enumerate(weights):
        rows = np.concatenate([np.tile(np.flatnonzero(video == v), k) for v, k in zip(names, weight)])
        assert drawn["f1"][b] == pytest.approx(
            sk.f1_score(truth[rows], decisions[rows], average="macro", zero_division=0)
        )
        assert drawn["exact_match"][b] == pytest.approx(sk.accuracy_score(truth[rows], decisions[rows]))


@pytest.mark.parametrize("aus", [1, 3, 12, 20])
def test_only_labelled_cells_are_counted_and_only_complete_frames_matched(aus: int) -> None:
    decisions, truth, video = draw(aus, a=aus)
    counted = np.random.default_rng(1).random(truth.shape) < (0.5 if aus < 4 else 0.9)
    counts = count_decisions(decisions, truth, video, counted)
    for index, name in enumerate(np.unique(video)):
        rows = np.flatnonzero(video == name)
        complete = [r for r in rows if counted[r].all()]
        assert counts.frames[index] == len(complete)
        assert counts.exact[index] == sum(all(decisions[r] == truth[r]) for r in complete)
        for au in range(aus):
            for cells, frames in ((counts.cells, [r for r in rows if counted[r, au]]), (counts.complete, complete)):
                pairs = [(bool(decisions[r, au]), bool(truth[r, au])) for r in frames]
                kinds = [(True, True), (True, False), (False, True), (False, False)]
                assert cells[index, au].tolist() == [pairs.count(kind) for kind in kinds]
    assert 0 < counts.frames.sum() < len(truth)


def test_a_figure_of_nothing_is_nan_and_left_out_of_means() -> None:
    decisions, truth, video = draw(0, a=3)
    counted = np.ones(truth.shape, bool)
    counted[:, 1] = False
    head = challenge_figures(count_decisions(decisions, truth, video, counted).total())
    own = challenge_figures(count_decisions(decisions[:, ::2], truth[:, ::2], video).total())
    assert np.isnan([head["exact_match"], head["score"]]).all()
    assert (head["f1"], head["accuracy"]) == (own["f1"], own["accuracy"])
    assert constant_decisions(np.ones((4, 2), bool), np.array([[True, False]] * 4))["best-constant"].tolist() == [
        True,
        False,
    ]


def test_a_difference_of_something_undefined_is_undefined() -> None:
    draws = np.array([0.1, np.nan, 0.3, 0.2]), np.array([0.0, 0.1, np.nan, 0.4])
    known = paired_difference(0.5, 0.25, draws)
    assert (known["difference"], known["probability"]) == (0.25, 0.5), "of the two resamples in which both are known"
    assert known["interval"] == pytest.approx(np.quantile([0.1, -0.2], [0.025, 0.975]))
    for sides in ((np.nan, 0.25), (0.5, np.nan)):
        unknown = paired_difference(*sides, (draws[0], draws[0]))
        assert np.isnan([unknown["difference"], unknown["probability"], *unknown["interval"]]).all()


def test_an_au_without_positives_has_f1_zero_and_the_recall_of_the_other_class() -> None:
    counts = Counts(*[np.array([[0, 0, 0, 9], [0, 3, 0, 6]])] * 2, np.array(6), np.array(9))
    assert f1(counts).tolist() == [0, 0]
    np.testing.assert_allclose(balanced_accuracy(counts), [1, 6 / 9])


def test_average_precision_equals_a_loop_over_positives_with_ties_and_missing_scores() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(200) < 0.2, rng.integers(0, 15, 200) / 7
    score[rng.random(200) < 0.2] = np.nan
    ranked = np.where(np.isnan(score), -9, score)
    precision = [np.mean(truth[ranked >= own]) for own in ranked[truth]]
    assert average_precision(score, truth) == pytest.approx(np.mean(precision))
    assert average_precision(np.full(10, np.nan), np.arange(10) < 3) == pytest.approx(0.3), "all tied"
    assert np.isnan(average_precision(np.ones(10), np.zeros(10, bool)))


def test_auroc_equals_a_loop_over_positives_and_negatives_with_ties() -> None:
    rng = np.random.default_rng(1)
    score, positive = rng.integers(0, 9, 200) / 3, rng.random(200) < 0.3
    order = np.sign(score[positive][:, None] - score[~positive])
    assert auroc(score, positive) == pytest.approx(np.mean((order + 1) / 2))
    assert np.isnan(auroc(score, np.ones(200, bool)))
    assert np.isnan(auroc(score, np.zeros(200, bool)))


def test_macro_leaves_out_what_is_not_known() -> None:
    assert macro(np.array([1.0, np.nan, 3.0])) == 2
    assert np.isnan(macro(np.array([np.nan])))


def test_the_best_constant_maximises_half_f1_plus_accuracy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 12)) < np.linspace(0.1, 0.9, 12)
    for au, guess in enumerate(constant_decisions(truth, np.ones_like(truth))["best-constant"]):
        one = 0.5 * (sk.f1_score(truth[:, au], np.ones(400)) + truth[:, au].mean())
        assert guess == (one > 0.5 * (1 - truth[:, au].mean()))
    rows = constant_decisions(truth, np.ones_like(truth))
    assert set(rows["best-constant"]) == {False, True}
    assert not constant_decisions(np.zeros((5, 12), bool), np.ones((5, 12), bool))["best-constant"].any(), (
        "inactive on a tie"
    )
    assert (rows["all-zero"].any(), rows["all-one"].all()) == (False, True)


def test_shares_of_calibration_bins_sum_to_one_and_empty_bins_are_nan() -> None:
    bins = calibration_bins(np.array([0.5, 0.51, 1.0]), np.array([1.0, 0.0, 1.0]), low=0.5)
    claimed, observed, share = (bins[name] for name in ("claimed", "observed", "share"))
    assert share.sum() == pytest.approx(1)
    assert (observed[0], observed[14], claimed[14]) == (0.5, 1.0, 1.0)
    assert np.isnan(observed[1:14]).all()


def test_spearman_equals_scipy_and_is_unknown_for_a_constant() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 8, 100), rng.normal(size=100)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(spearman(np.ones(9), np.arange(9)))
