"""Risk at coverages, calibration of the confidence, scores of the kept decisions, and the effect of predict --abstain."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from aupair.aus import AFFWILD2
from aupair.evaluation.abstention import (
    Decisions,
    _abstention_at_limits,
    _count_kept,
    _ranked_risk,
    _risk_at_coverages,
    _selective_risk,
    decision_figures,
    leave_out,
)
from aupair.evaluation.calibration import _confidence_quantiles
from aupair.evaluation.confidence import TERMS, Confidence
from aupair.params import Evaluate

A = len(AFFWILD2)
QUICK = Evaluate(bootstrap=100)
CONFIDENCE = Confidence(np.zeros((A, len(TERMS))), np.zeros((101, 2, A)))


def draw(seed: int = 0, n: int = 600, sign: int = 1, surest: float = 0.99, labelled: float = 1.0) -> Decisions:
    """Decisions that are right with the confidence that they claim; with sign -1 the confidence is upside down.

    An active one claims .5 to `surest`; a share of the cells is labelled.
    """
    rng = np.random.default_rng(seed)
    decisions = rng.random((n, A)) < 0.25
    low, high = np.where(decisions, 0.5, 0.8), np.where(decisions, surest, 0.99)
    p = low + (high - low) * rng.random((n, A))
    truth = decisions ^ (rng.random((n, A)) > p)
    claimed = p if sign > 0 else 1.0 - p
    rankings = {"confidence": claimed, "margin": claimed + 0.1 * rng.random((n, A)), "certainty": rng.random((n, A))}
    video = np.repeat(np.arange(6, dtype=np.int32), n // 6)
    return Decisions(AFFWILD2, decisions, truth, rng.random((n, A)) < labelled, video, rankings)


def test_the_figures_are_those_of_loops() -> None:
    decisions = draw()
    tree = decision_figures(decisions, CONFIDENCE, QUICK)
    wrong = decisions.active != decisions.truth
    assert tree["cells"] == wrong.size
    assert tree["error"] == pytest.approx(wrong.mean())
    for au, own in (("AU1", wrong[:, 0]), ("AU26", wrong[:, -1])):
        k = AFFWILD2.index(au)
        p = decisions.rankings["confidence"][:, k]
        order = sorted(range(len(p)), key=lambda row: -p[row])
        risks = [sum(own[row] for row in order[:count]) / count for count in range(1, len(p) + 1)]
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
    pooled = _risk_at_coverages(_ranked_risk(wrong.ravel(), decisions.rankings["confidence"].ravel()))["risk"]
    assert tree["risk_coverage"]["confidence"]["risk"] == pooled


def test_a_right_confidence_beats_random_and_a_reversed_one_loses() -> None:
    knows, fooled = (decision_figures(draw(sign=sign), CONFIDENCE, QUICK) for sign in (1, -1))
    for tree, better in ((knows, True), (fooled, False)):
        for part in (tree, *tree["per_au"].values()):
            assert (part["aurc"]["confidence"] < part["aurc"]["random"]) is better
            assert part["aurc"]["best"] < part["aurc"]["confidence"]
        assert abs(tree["aurc"]["certainty"] - tree["aurc"]["random"]) < 0.02
    assert knows["confidence_ece"] < 0.02 < 0.5 < fooled["confidence_ece"]


def test_the_reliability_of_a_true_probability_is_a_diagonal() -> None:
    bins = {
        key: np.array(values)
        for key, values in decision_figures(draw(n=6000), CONFIDENCE, QUICK)["reliability"].items()
    }
    filled = bins["share"] > 0.01
    np.testing.assert_allclose(bins["claimed"][filled], bins["observed"][filled], atol=0.03)
    assert bins["share"].sum() == pytest.approx(1)


def row(tree: dict, name: str) -> dict:
    return next(one for one in tree["table"] if one["name"] == name)


@pytest.mark.parametrize("labelled", [1.0, 0.5])
def test_the_selective_table_is_that_of_loops_over_the_kept_cells(labelled: float) -> None:
    decisions = draw(labelled=labelled)
    # the labels of the confident cells are missing, so that those among all cells would be others than those among the labelled
    missing = decisions.rankings["confidence"] > np.where(decisions.active, 0.7, 0.96) if labelled < 1 else False
    decisions = replace(decisions, counted=decisions.counted & ~np.broadcast_to(missing, decisions.counted.shape))
    tree = _selective_risk(decisions, QUICK)
    p = decisions.rankings["confidence"]
    for share in (0.1, 0.2, 0.5):
        name, expected, rights, near = str(round(100 * (1 - share))), [], [], 0.003 if labelled == 1 else 0.01
        for k in range(A):
            selected: list[int] = []
            for side in (True, False):
                own_rows = [r for r in range(len(p)) if decisions.active[r, k] == side and decisions.counted[r, k]]
                selected += sorted(own_rows, key=lambda r: -p[r, k])[: round((1 - share) * len(own_rows))]
            expected.append(f1_score(decisions.truth[selected, k], decisions.active[selected, k]))
            rights.append(np.mean(decisions.truth[selected, k] == decisions.active[selected, k]))
        assert row(tree, f"confidence-{name}")["f1"] == pytest.approx(np.mean(expected), abs=near)
        assert row(tree, f"confidence-{name}")["accuracy"] == pytest.approx(np.mean(rights), abs=near)
        together = []
        for k in range(A):
            own_rows = [r for r in range(len(p)) if decisions.counted[r, k]]
            selected = sorted(own_rows, key=lambda r: -p[r, k])[: len(own_rows) - int(share * len(own_rows))]
            together.append(f1_score(decisions.truth[selected, k], decisions.active[selected, k], zero_division=0))
        assert row(tree, f"confidence-ungrouped-{name}")["f1"] == pytest.approx(np.mean(together))


def test_nothing_left_out_is_the_same_for_all_and_random_hardly_changes_it() -> None:
    decisions = draw()
    tree = _selective_risk(decisions, QUICK)
    whole = np.mean([f1_score(t, d) for t, d in zip(decisions.truth.T, decisions.active.T)])
    assert all(row(tree, f"{way}-100")["f1"] == pytest.approx(whole) for way in ("confidence", "certainty", "random"))
    for name in ("random-80", "random-50", "certainty-80"):
        assert row(tree, name)["f1"] == pytest.approx(whole, abs=0.02)
    positives = row(tree, "confidence-100")["per_au"]["AU4"]["positives"]
    assert positives == pytest.approx(decisions.truth[:, 2].mean())


def test_confidence_gains_over_random_and_a_reversed_one_loses() -> None:
    for sign in (1, -1):
        tree = _selective_risk(draw(sign=sign), QUICK)
        for figure in ("f1", "accuracy"):
            gain = tree["gain_at_80"][figure]
            own, random = row(tree, "confidence-80")[figure], row(tree, "random-80")[figure]
            assert gain["difference"] == pytest.approx(own - random)
            assert np.sign(gain["difference"]) == np.sign(gain["interval"][0]) == np.sign(gain["interval"][1]) == sign
            assert gain["probability"] == (1.0 if sign > 0 else 0.0)


def test_ranked_together_the_active_decisions_go_first_and_f1_with_them() -> None:
    tree = _selective_risk(draw(surest=0.88), QUICK)  # most frames are inactive: no active decision is as sure
    separate, together = row(tree, "confidence-50"), row(tree, "confidence-ungrouped-50")
    assert together["accuracy"] > separate["accuracy"]
    assert together["f1"] < row(tree, "random-50")["f1"] < separate["f1"]
    assert together["per_au"]["AU4"]["positives"] < 0.5 * separate["per_au"]["AU4"]["positives"]


def test_the_effect_of_predict_is_measured_at_the_limits_of_select() -> None:
    select, decisions = draw(1), draw(2)
    quantiles = _confidence_quantiles(select.rankings["confidence"], select.active, select.counted)
    risks = np.linspace(0.2, 0.1, 101)
    confidence = Confidence(np.zeros((A, len(TERMS))), quantiles, risks, risks + 0.05)
    rows = {one["name"]: one for one in _abstention_at_limits(decisions, confidence)}
    assert list(rows) == ["100", "90", "80", "50"]
    for name, one in rows.items():
        assert one["coverage"] == pytest.approx(one["asked"], abs=0.02)
        assert one["risk_select"] == pytest.approx(risks[100 - int(name)])
        assert one["risk_bound"] == pytest.approx(one["risk_select"] + 0.05)
    assert rows["50"]["error"] < rows["80"]["error"] < rows["100"]["error"]
    assert rows["50"]["f1"] > rows["80"]["f1"] > rows["100"]["f1"]


@pytest.mark.parametrize("labelled", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
def test_leave_out_equals_sorting_the_labelled_cells_of_each_au(share: float, labelled: float) -> None:
    rng = np.random.default_rng(3)
    score = np.stack([rng.integers(0, 4, 301) / 2, np.zeros(301), rng.normal(size=301)], axis=1)
    usable = (rng.random((301, 1)) < 0.7) & (rng.random((301, 3)) < [1.0, labelled, 1.0])
    rows, chance = np.flatnonzero(usable.any(axis=1)), np.random.default_rng(4)
    expected = np.zeros(score.shape, bool)
    for au in range(3):
        draws = dict(zip(rows, chance.random(len(rows))))
        own = sorted((r for r in rows if usable[r, au]), key=lambda r: (score[r, au], draws[r]))
        expected[own[: len(own) - int(share * len(own))], au] = True
    np.testing.assert_array_equal(leave_out(score, usable, share, np.random.default_rng(4)), expected)


@pytest.mark.parametrize("ranking", ["confidence", "confidence-ungrouped", "certainty", "random"])
def test_labels_that_are_missing_in_one_au_leave_the_same_cells_of_the_others(ranking: str) -> None:
    decisions = draw()
    counted = decisions.counted.copy()
    counted[np.random.default_rng(0).random(len(counted)) < 0.5, 4] = False
    before, after = (
        [count.cells for count in _count_kept(own, ranking, 0.2, 0)]
        for own in (decisions, replace(decisions, counted=counted))
    )
    for a, b in zip(before, after):
        np.testing.assert_array_equal(np.delete(a, 4, axis=1), np.delete(b, 4, axis=1))
        assert b[:, 4].sum() == counted[:, 4].sum() - int(0.2 * counted[:, 4].sum()) or ranking == "confidence"
        assert b[:, 4].sum() < a[:, 4].sum()


def test_risk_at_every_coverage_equals_a_loop_over_all_orders_of_ties() -> None:
    wrong, ranking = np.array([True, False, False, True]), np.array([1.0, 2.0, 1.0, 0.0])
    orders = [[1, 0, 2, 3], [1, 2, 0, 3]]  # the two of ranking 1 in either order
    expected = np.mean([[np.mean(wrong[order[: k + 1]]) for k in range(4)] for order in orders], axis=0)
    np.testing.assert_allclose(_ranked_risk(wrong, ranking), expected)
    assert _ranked_risk(wrong, ranking).mean() == pytest.approx(expected.mean())
