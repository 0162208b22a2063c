"""Abstention: errors among what is kept, areas, calibration, the selective table, and what predict would do."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from aupair.aus import AUS
from aupair.evaluation.abstention import (
    Decisions,
    abstention_at_limits,
    decision_figures,
    leave_out,
    ranked_risk,
    risk_at_coverages,
    selective_risk,
)
from aupair.evaluation.confidence import TERMS, Confidence, confidence_quantiles
from aupair.params import Evaluate

A = len(AUS)
QUICK = Evaluate(bootstrap=100)


def draw(seed: int = 0, n: int = 600, sign: int = 1, surest: float = 0.99) -> Decisions:
    """Decisions that are right with the confidence that they claim; with sign -1 the confidence is upside down.

    An active one claims .5 to `surest`.
    """
    rng = np.random.default_rng(seed)
    decisions = rng.random((n, A)) < 0.25
    low, high = np.where(decisions, 0.5, 0.8), np.where(decisions, surest, 0.99)
    p = low + (high - low) * rng.random((n, A))
    truth = decisions ^ (rng.random((n, A)) > p)
    claimed = p if sign > 0 else 1.0 - p
    rankings = {"confidence": claimed, "margin": claimed + 0.1 * rng.random((n, A)), "certainty": rng.random((n, A))}
    return Decisions(decisions, truth, np.repeat(np.arange(6, dtype=np.int32), n // 6), rankings)


def test_the_figures_are_those_of_loops() -> None:
    found = draw()
    tree = decision_figures(found)
    wrong = found.active != found.truth
    assert tree["cells"] == wrong.size
    assert tree["error"] == pytest.approx(wrong.mean())
    for au, own in (("AU1", wrong[:, 0]), ("AU26", wrong[:, -1])):
        k = AUS.index(au)
        p = found.rankings["confidence"][:, k]
        order = sorted(range(len(p)), key=lambda row: -p[row])
        risks = [sum(own[row] for row in order[:kept]) / kept for kept in range(1, len(p) + 1)]
        entry = tree["per_au"][au]
        assert entry["aurc"]["confidence"] == pytest.approx(np.mean(risks))
        assert entry["aurc"]["random"] == entry["error"] == pytest.approx(own.mean())
        assert entry["error_at_80"]["confidence"] == pytest.approx(risks[int(0.8 * len(p)) - 1])
        curve = entry["risk_coverage"]["confidence"]
        np.testing.assert_allclose(curve["coverage"], np.arange(1, 21) / 20)
        np.testing.assert_allclose(curve["risk"], [risks[round(c * len(p)) - 1] for c in curve["coverage"]])
        assert entry["confidence_brier"] == pytest.approx(np.mean([(q - (not w)) ** 2 for q, w in zip(p, own)]))
        bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
        for q, w in zip(p, own):
            bins[min(int(q * 15), 14)].append((q, not w))
        gaps = [abs(sum(q for q, _ in part) - sum(right for _, right in part)) for part in bins]
        assert entry["confidence_ece"] == pytest.approx(sum(gaps) / len(p))
    pooled = risk_at_coverages(ranked_risk(wrong.ravel(), found.rankings["confidence"].ravel()))["risk"]
    assert tree["risk_coverage"]["confidence"]["risk"] == pooled


def test_a_confidence_that_knows_beats_random_and_one_upside_down_loses() -> None:
    knows, fooled = (decision_figures(draw(sign=sign)) for sign in (1, -1))
    for tree, better in ((knows, True), (fooled, False)):
        for part in (tree, *tree["per_au"].values()):
            assert (part["aurc"]["confidence"] < part["aurc"]["random"]) is better
            assert part["aurc"]["best"] < part["aurc"]["confidence"]
        assert abs(tree["aurc"]["certainty"] - tree["aurc"]["random"]) < 0.02
    assert knows["confidence_ece"] < 0.02 < 0.5 < fooled["confidence_ece"]


def test_the_reliability_of_a_true_probability_is_a_diagonal() -> None:
    bins = {key: np.array(values) for key, values in decision_figures(draw(n=6000))["reliability"].items()}
    filled = bins["share"] > 0.01
    np.testing.assert_allclose(bins["claimed"][filled], bins["observed"][filled], atol=0.03)
    assert bins["share"].sum() == pytest.approx(1)


def row(tree: dict, name: str) -> dict:
    return next(one for one in tree["table"] if one["name"] == name)


def test_the_selective_table_is_that_of_loops_over_the_kept_cells() -> None:
    found = draw()
    tree = selective_risk(found, QUICK)
    p = found.rankings["confidence"]
    for share in (0.1, 0.2, 0.5):
        name, expected, rights = str(round(100 * (1 - share))), [], []
        for k in range(A):
            kept: list[int] = []
            for side in (True, False):
                mine = [r for r in range(len(p)) if found.active[r, k] == side]
                kept += sorted(mine, key=lambda r: -p[r, k])[: round((1 - share) * len(mine))]
            expected.append(f1_score(found.truth[kept, k], found.active[kept, k]))
            rights.append(np.mean(found.truth[kept, k] == found.active[kept, k]))
        assert row(tree, f"confidence-{name}")["f1"] == pytest.approx(np.mean(expected), abs=0.003)
        assert row(tree, f"confidence-{name}")["accuracy"] == pytest.approx(np.mean(rights), abs=0.003)
        together = []
        for k in range(A):
            kept = sorted(range(len(p)), key=lambda r: -p[r, k])[: round((1 - share) * len(p))]
            together.append(f1_score(found.truth[kept, k], found.active[kept, k], zero_division=0))
        assert row(tree, f"confidence-ungrouped-{name}")["f1"] == pytest.approx(np.mean(together))


def test_nothing_left_out_is_the_same_for_all_and_random_hardly_changes_it() -> None:
    found = draw()
    tree = selective_risk(found, QUICK)
    whole = np.mean([f1_score(t, d) for t, d in zip(found.truth.T, found.active.T)])
    assert all(row(tree, f"{way}-100")["f1"] == pytest.approx(whole) for way in ("confidence", "certainty", "random"))
    for name in ("random-80", "random-50", "certainty-80"):
        assert row(tree, name)["f1"] == pytest.approx(whole, abs=0.02)
    positives = row(tree, "confidence-100")["per_au"]["AU4"]["positives"]
    assert positives == pytest.approx(found.truth[:, 2].mean())


def test_confidence_gains_over_random_and_upside_down_it_loses() -> None:
    for sign in (1, -1):
        tree = selective_risk(draw(sign=sign), QUICK)
        for figure in ("f1", "accuracy"):
            gain = tree["gain_at_80"][figure]
            own, random = row(tree, "confidence-80")[figure], row(tree, "random-80")[figure]
            assert gain["difference"] == pytest.approx(own - random)
            assert np.sign(gain["difference"]) == np.sign(gain["interval"][0]) == np.sign(gain["interval"][1]) == sign
            assert gain["probability"] == (1.0 if sign > 0 else 0.0)


def test_ranked_together_the_active_decisions_go_first_and_f1_with_them() -> None:
    tree = selective_risk(draw(surest=0.88), QUICK)  # most frames are inactive: no active decision is as sure
    kept, together = row(tree, "confidence-50"), row(tree, "confidence-ungrouped-50")
    assert together["accuracy"] > kept["accuracy"]
    assert together["f1"] < row(tree, "random-50")["f1"] < kept["f1"]
    assert together["per_au"]["AU4"]["positives"] < 0.5 * kept["per_au"]["AU4"]["positives"]


def test_what_predict_would_do_is_judged_by_the_limits_of_select() -> None:
    select, found = draw(1), draw(2)
    quantiles = confidence_quantiles(select.rankings["confidence"], select.active)
    risks = np.linspace(0.2, 0.1, 101)
    confidence = Confidence(np.zeros((A, len(TERMS))), quantiles, risks, risks + 0.05)
    rows = {one["name"]: one for one in abstention_at_limits(found, confidence)}
    assert list(rows) == ["100", "90", "80", "50"]
    for name, one in rows.items():
        assert one["coverage"] == pytest.approx(one["asked"], abs=0.02)
        assert one["risk_select"] == pytest.approx(risks[100 - int(name)])
        assert one["risk_bound"] == pytest.approx(one["risk_select"] + 0.05)
    assert rows["50"]["error"] < rows["80"]["error"] < rows["100"]["error"]
    assert rows["50"]["f1"] > rows["80"]["f1"] > rows["100"]["f1"]


def test_leave_out_drops_the_highest_of_the_usable_only() -> None:
    score = np.array([[9.0], [1.0], [5.0], [3.0], [4.0], [2.0]])
    usable = np.array([False, True, True, True, True, True])
    kept = leave_out(score, usable, 0.2, np.random.default_rng(0))
    assert kept[:, 0].tolist() == [False, True, False, True, True, True]
    draws = [leave_out(np.zeros((6, 1)), usable, 0.2, np.random.default_rng(s))[:, 0].tobytes() for s in range(20)]
    assert len(set(draws)) > 1  # equal scores: at random


@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
def test_leave_out_equals_sorting(share: float) -> None:
    rng = np.random.default_rng(3)
    score = np.stack([rng.integers(0, 4, 301) / 2, np.zeros(301), rng.normal(size=301)], axis=1)
    usable = rng.random(301) < 0.7
    rows, chance = np.flatnonzero(usable), np.random.default_rng(4)
    expected = np.zeros(score.shape, bool)
    for au in range(3):
        order = np.lexsort((chance.random(len(rows)), score[rows, au]))
        expected[rows[order[: len(rows) - int(share * len(rows))]], au] = True
    np.testing.assert_array_equal(leave_out(score, usable, share, np.random.default_rng(4)), expected)


def test_risk_falls_when_the_ranking_is_right_and_ends_at_the_error_of_all() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(1000) < 0.3
    curve = risk_at_coverages(ranked_risk(wrong, -wrong.astype(float)))
    coverage, risk = curve["coverage"], curve["risk"]
    assert (coverage[0], coverage[-1]) == (0.05, 1.0)
    assert risk[-1] == pytest.approx(wrong.mean())
    assert risk[11] == 0.0, "at coverage .6"
    order = np.argsort(wrong, kind="stable")
    for k, c in enumerate(coverage):
        assert risk[k] == pytest.approx(wrong[order[: round(1000 * c)]].mean())


def test_risk_at_every_coverage_equals_a_loop_over_all_orders_of_ties() -> None:
    wrong, ranking = np.array([True, False, False, True]), np.array([1.0, 2.0, 1.0, 0.0])
    orders = [[1, 0, 2, 3], [1, 2, 0, 3]]  # the two of ranking 1 in either order
    expected = np.mean([[np.mean(wrong[order[: k + 1]]) for k in range(4)] for order in orders], axis=0)
    np.testing.assert_allclose(ranked_risk(wrong, ranking), expected)
    assert ranked_risk(wrong, ranking).mean() == pytest.approx(expected.mean())


def test_the_area_is_below_random_for_a_ranking_that_knows_and_above_for_one_that_is_upside_down() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(2000) < 0.3
    knows = np.where(wrong, 0.0, 1.0) + rng.normal(size=2000)
    assert ranked_risk(wrong, knows).mean() < wrong.mean() - 0.05
    assert ranked_risk(wrong, -knows).mean() > wrong.mean() + 0.05
    assert ranked_risk(wrong, np.zeros(2000)).mean() == pytest.approx(wrong.mean())
    assert ranked_risk(wrong, rng.random(2000)).mean() == pytest.approx(wrong.mean(), abs=0.03)
    number = np.arange(1, 2001)
    best = np.mean(np.maximum(number - (~wrong).sum(), 0) / number)
    assert ranked_risk(wrong, (~wrong).astype(float)).mean() == pytest.approx(best)
