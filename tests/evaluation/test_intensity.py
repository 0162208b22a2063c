"""Figures of intensities against loops, known values and resamples of frames; their rows, and what is chosen by them."""

from dataclasses import replace

import numpy as np
import pytest

from aupair.aus import AFFWILD2, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.choice import choose_mappings
from aupair.evaluation.metrics import clamp_levels, icc, mae, mae_rounded, pcc, sum_levels
from aupair.evaluation.rows import ScoredRows, _constant_levels, score_rows
from aupair.evaluation.selection import Outputs, annotated_cells, filled_outputs
from aupair.params import Evaluate
from evaluation.worlds import make_outputs
from frame_sets import make_frames

A = len(AFFWILD2)
FIGURES = {"icc": icc, "mae": mae, "mae_rounded": mae_rounded, "pcc": pcc}


def naive_icc(x: np.ndarray, y: np.ndarray) -> float:
    """ICC(3,1) of two judges by the sums of an analysis of variance, frame by frame."""
    table = np.stack([x, y], axis=1)
    n, k = table.shape
    grand = table.mean()
    between = sum(k * (row.mean() - grand) ** 2 for row in table)
    judges = sum(n * (column.mean() - grand) ** 2 for column in table.T)
    whole = sum((value - grand) ** 2 for value in table.ravel())
    bms, ems = between / (n - 1), (whole - between - judges) / ((n - 1) * (k - 1))
    return float((bms - ems) / (bms + (k - 1) * ems))


def one(x: np.ndarray, y: np.ndarray, figure: str = "icc") -> float:
    """A figure of one AU and one video."""
    return float(FIGURES[figure](sum_levels(x[:, None], y[:, None], np.zeros(len(x), int)).total())[0])


@pytest.mark.parametrize("labelled", [1.0, 0.5])
@pytest.mark.parametrize("aus", [1, 3, 12, 20])
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_a_loop_over_labelled_cells(seed: int, aus: int, labelled: float) -> None:
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 6, (80, aus))
    raw = (0.7 * level + rng.normal(0.5, 1, (80, aus))).astype(np.float32)
    level[rng.random(level.shape) >= labelled] = -1
    sums = sum_levels(raw, level, rng.integers(0, 5, 80), level >= 0).total()
    for au in range(aus):
        own = [k for k in range(80) if level[k, au] >= 0]
        x, y = [min(max(float(v), 0.0), 5.0) for v in raw[own, au]], level[own, au]
        assert icc(sums)[au] == pytest.approx(naive_icc(np.array(x), y))
        assert pcc(sums)[au] == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert mae(sums)[au] == pytest.approx(np.mean([abs(a - b) for a, b in zip(x, y)]))
        assert mae_rounded(sums)[au] == pytest.approx(np.mean([abs(int(a + 0.5) - b) for a, b in zip(x, y)]))


def test_an_au_without_a_cell_is_undefined() -> None:
    level = np.array([[0, -1], [3, -1], [5, -1], [-1, -1], [-1, -1]])
    sums = sum_levels(level.astype(float), level, np.arange(5), level >= 0).total()
    for figure in FIGURES.values():
        assert np.isnan(figure(sums)).tolist() == [False, True]
    guesses = _constant_levels(level, level >= 0)
    assert {name: guess.tolist() for name, guess in guesses.items()} == {
        "all-zero": [0, 0], "fit-median": [3, 0], "fit-mean": [8 / 3, 0],
    }  # fmt: skip


def test_known_values() -> None:
    level = np.array([0, 0, 1, 2, 2, 1])
    assert one(level * 1.0, level) == pytest.approx(1)
    assert one(level + 0.5, level) == pytest.approx(1), "consistency: an offset is no error"
    assert one(level + 0.5, level, "mae") == pytest.approx(0.5)
    assert one(level * 2.0, level) == pytest.approx(0.8), "2 * 2 / (1 + 4): a scale is one"
    assert one(level * 2.0, level, "pcc") == pytest.approx(1)
    assert one(2.0 - level, level) == pytest.approx(-1)
    assert one(np.full(6, 0.1), level) == 0, "a constant agrees with nothing"
    assert np.isnan(one(np.full(6, 0.1), level, "pcc"))
    assert one(np.arange(6) / 2, np.zeros(6, int)) == 0
    for constant in (0.0, 0.1, 1 / 3):
        assert np.isnan(one(np.full(6, constant), np.full(6, 3))), "BMS + EMS = 0"


def test_outputs_are_clamped_and_not_rounded() -> None:
    np.testing.assert_array_equal(clamp_levels(np.array([-1, 0.3, 7, np.nan])), [0, 0.3, 5, np.nan])
    level = np.array([0, 5, 0, 3])
    assert one(np.array([-4.0, 9.0, np.nan, 2.6]), level, "mae") == pytest.approx(0.1), "no face at all is level 0"
    assert one(np.array([-4.0, 9.0, np.nan, 2.5]), level, "mae_rounded") == 0, "half is rounded up, as in decisions"


def test_resamples_of_videos_equal_resamples_of_their_frames() -> None:
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(4), (5, 20, 9, 14))
    level = rng.integers(0, 6, (48, A))
    raw = level + rng.normal(0, 1, (48, A))
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 4, 0]])
    drawn = sum_levels(raw, level, video).weighted(weights)
    for row, own in enumerate(weights):
        frames = np.concatenate([np.flatnonzero(video == v) for v, times in enumerate(own) for _ in range(times)])
        again = sum_levels(raw[frames], level[frames], np.zeros(len(frames), int)).total()
        for figure in FIGURES.values():
            np.testing.assert_allclose(figure(drawn)[row], figure(again), rtol=1e-9)


def test_a_million_frames_of_a_constant_are_still_a_constant() -> None:
    level = np.random.default_rng(0).integers(0, 6, 10**6)
    assert one(np.full(10**6, np.float32(0.7)), level) == 0
    assert np.isnan(one(np.full(10**6, np.float32(0.7)), np.full(10**6, 4)))


def test_no_constant_has_a_smaller_error_than_the_median() -> None:
    level = np.random.default_rng(0).choice(6, (101, A), p=[0.3, 0.1, 0.2, 0.2, 0.1, 0.1])
    result = _constant_levels(level, np.ones(level.shape, bool))
    errors = [np.abs(level - guess).mean(0) for guess in np.arange(0, 5.01, 0.25)]
    np.testing.assert_allclose(np.abs(level - result["fit-median"]).mean(0), np.min(errors, axis=0))
    assert set(result["fit-median"]) <= set(range(6))
    np.testing.assert_allclose(result["fit-mean"], level.mean(0))


def world(n: int = 60, videos: int = 9) -> tuple[Frames, tuple[np.ndarray, np.ndarray]]:
    """Levels of nine people; with uncertainty the odd AUs are met better than without, the even ones worse."""
    rng = np.random.default_rng(0)
    size = n * videos
    labels = rng.choice(6, (size, A), p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]).astype(np.int8)
    labels[rng.random(size) < 0.1] = -1
    frames = make_frames(np.arange(videos) // 3, labels)
    noise = rng.normal(size=(size, A))
    without, with_uncertainty = labels + noise, labels + np.where(np.arange(A) % 2, 0.2, 2) * noise
    return frames, (without, with_uncertainty)


def score(frames: Frames, outputs: Outputs, uses: np.ndarray, draws: int) -> ScoredRows:
    """Score the rows of intensity for these mappings."""
    cells, params = {split: annotated_cells(frames, split) for split in SPLITS}, Evaluate(bootstrap=draws)
    choice = choose_mappings(outputs, frames, cells["select"], params, "intensity")
    resampled = replace(choice.resampled, uses_uncertainty=np.tile(uses, (draws, 1)))
    choice = replace(choice, uses_uncertainty=uses, resampled=resampled)
    return score_rows("intensity", cells, filled_outputs(outputs, frames), choice, params)


def test_rows_are_of_their_split_and_their_outputs() -> None:
    frames, raws = world()
    uses = np.arange(A) % 2 == 1
    rows, comparisons, _ = score(frames, outputs_of(raws), uses, 100)
    names = ["all-zero", "fit-median", "fit-mean", "no-uncertainty", "constant-noise", "P1", "P2"]
    assert [(row["name"], row["split"]) for row in rows] == [(n, s) for s in ("select", "validation") for n in names]
    assert [row["chosen_on"] for row in rows[:7]] == [None, "fit", "fit", *["select"] * 4]
    by_name = {row["name"]: row for row in rows if row["split"] == "validation"}
    own_rows = frames.of_split("validation") & (frames.labels[:, 0] >= 0)
    for au, name in enumerate(AFFWILD2):
        x = np.clip(raws[int(uses[au])][own_rows, au], 0, 5)
        entry = by_name["P2"]["per_au"][name]
        assert entry["icc"] == pytest.approx(naive_icc(x, frames.labels[own_rows, au]))
        low, high = entry["icc_interval"]
        assert low <= entry["icc"] <= high
        assert entry["icc"] == max(by_name[way]["per_au"][name]["icc"] for way in ("no-uncertainty", "P1"))
    p2 = by_name["P2"]
    assert p2["icc"] == pytest.approx(np.mean([p2["per_au"][au]["icc"] for au in AFFWILD2]))
    assert all(by_name[name]["icc"] == 0 and np.isnan(by_name[name]["pcc"]) for name in names[:3])
    assert by_name["fit-median"]["mae"] <= by_name["fit-mean"]["mae"]
    result = {one["name"]: one for one in comparisons if one["split"] == "validation"}
    assert list(result) == [
        f"{name}.icc"
        for name in ("P1-no-uncertainty", "P1-constant-noise", "P2-P1", "P2-no-uncertainty", "P2-fit-mean")
    ]
    for one in result.values():
        assert one["difference"] == pytest.approx(by_name[one["a"]]["icc"] - by_name[one["b"]]["icc"])
        assert one["interval"][0] < one["difference"] < one["interval"][1]
    assert (result["P2-P1.icc"]["probability"], result["P2-fit-mean.icc"]["probability"]) == (1, 1)
    for key in FIGURES:
        assert p2["intervals"][key][0] < p2[key] < p2["intervals"][key][1]


def test_an_au_whose_figure_is_undefined_is_left_out_of_the_mean() -> None:
    frames, raws = world()
    labels = frames.labels.copy()
    labels[:, 3] = np.minimum(labels[:, 3], 0)
    rows = score(replace(frames, labels=labels), outputs_of(raws), np.zeros(A, bool), 20).rows
    zero = next(row for row in rows if row["name"] == "all-zero")
    assert np.isnan(zero["per_au"][AFFWILD2[3]]["icc"])
    assert np.isnan(zero["per_au"][AFFWILD2[3]]["icc_interval"]).all()
    assert zero["icc"] == 0
    ours = next(row for row in rows if row["name"] == "P2")
    assert ours["per_au"][AFFWILD2[3]]["icc"] == 0, "an output that varies where nothing does agrees with nothing"
    assert np.isnan(ours["per_au"][AFFWILD2[3]]["pcc"])
    assert np.isfinite(ours["intervals"]["pcc"]).all()


def outputs_of(raws: tuple[np.ndarray, np.ndarray]) -> Outputs:
    without, with_uncertainty = (raw.astype(np.float32) for raw in raws)
    return make_outputs(without, np.ones_like(without), with_uncertainty, without)


def test_p1_is_chosen_unless_its_icc_is_lower_by_more_than_a_tie() -> None:
    frames, raws = world()
    cells = annotated_cells(frames, "select")
    choice = choose_mappings(outputs_of(raws), frames, cells, Evaluate(bootstrap=100), "intensity")
    np.testing.assert_array_equal(choice.uses_uncertainty, np.arange(A) % 2 == 1)
    for au, entry in enumerate(choice.evidence):
        values = [naive_icc(np.clip(raw[cells.rows, au], 0, 5), frames.labels[cells.rows, au]) for raw in raws]
        assert [entry[side]["icc"] for side in ("without_uncertainty", "with_uncertainty")] == pytest.approx(
            values, abs=1e-6
        )
        assert entry["chosen_by"] == "icc"
        assert entry["difference"] == pytest.approx(values[1] - values[0], abs=1e-6)
        assert (
            (entry["difference_interval"][0] > 0)
            == (entry["probability_with_better"] == 1)
            == choice.uses_uncertainty[au]
        )
    best = [
        max(entry[side]["icc"] for side in ("without_uncertainty", "with_uncertainty")) for entry in choice.evidence
    ]
    assert choice.result["icc"] == pytest.approx(np.mean(best))
    gains = np.array([entry["difference"] for entry in choice.evidence])
    tie = -float(np.median(gains[gains < 0]))
    milder = choose_mappings(
        outputs_of(raws), frames, cells, Evaluate(bootstrap=10, tie=tie, loss_confidence=0.5), "intensity"
    )
    np.testing.assert_array_equal(milder.uses_uncertainty, gains >= -tie)
    assert milder.uses_uncertainty.sum() > choice.uses_uncertainty.sum()


def test_the_target_decides_which_figure_chooses() -> None:
    """One mapping tells active from not and no levels apart; the other one orders the levels and errs at the edge."""
    frames, _ = world()
    level = frames.labels.astype(float)
    binary = np.where(level >= 1, 3 + 2 * (level % 2), 0)
    noise = np.random.default_rng(1).normal(0, 0.5, level.shape)
    outputs, cells = outputs_of((binary, level + noise)), annotated_cells(frames, "select")
    by_score, by_icc = (
        choose_mappings(outputs, frames, cells, Evaluate(bootstrap=20), t) for t in ("occurrence", "intensity")
    )
    assert not by_score.uses_uncertainty.any()
    assert by_icc.uses_uncertainty.all()
    assert {entry["chosen_by"] for entry in by_score.evidence} == {"score"}
    for route, thresholds in by_score.thresholds.items():
        np.testing.assert_array_equal(thresholds, by_icc.thresholds[route])


def test_an_undefined_icc_is_no_reason_against_uncertainty() -> None:
    frames, (without, with_uncertainty) = world()
    without, with_uncertainty = without.copy(), with_uncertainty.copy()
    without[:, 2] = with_uncertainty[:, 2] = -1.0
    none = replace(frames, labels=np.where(np.arange(A) == 2, np.minimum(frames.labels, 0), frames.labels))
    outputs = outputs_of((without, with_uncertainty))
    choice = choose_mappings(outputs, none, annotated_cells(none, "select"), Evaluate(bootstrap=20), "intensity")
    assert choice.uses_uncertainty[2]
    assert np.isnan(choice.evidence[2]["difference"])
    assert np.isnan([choice.evidence[2]["probability_with_better"], *choice.evidence[2]["difference_interval"]]).all()
    assert np.isfinite(choice.result["icc"])
