"""The choice of thresholds, and mappings, and its evidence."""

from dataclasses import replace

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.data.frames import Frames
from aupair.evaluation.choice import choose_mappings
from aupair.evaluation.confidence import TERMS
from aupair.evaluation.selection import (
    MAPPINGS,
    Outputs,
    Selection,
    annotated_cells,
    uses_uncertainty,
)
from aupair.evaluation.thresholds import tune_threshold
from aupair.params import Evaluate, ThresholdRule
from evaluation.worlds import make_outputs
from frame_sets import make_frames

A = len(AFFWILD2)
QUICK = Evaluate(bootstrap=200)


def score(raw: np.ndarray, truth: np.ndarray, threshold: float, rule: ThresholdRule = "tuned") -> float:
    """1/2 (F1 + accuracy) or F1, frame by frame."""
    decisions = [bool(x >= threshold) for x in raw]
    tp = sum(d and t for d, t in zip(decisions, truth))
    errors = sum(d != t for d, t in zip(decisions, truth))
    f1 = 2 * tp / (2 * tp + errors) if tp + errors else 0.0
    return f1 if rule == "tuned_f1" else 0.5 * (f1 + 1 - errors / len(truth))


@pytest.mark.parametrize("rule", ["tuned", "tuned_f1"])
@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_tuned_one(seed: int, rule: ThresholdRule) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < rng.uniform(0.05, 0.9)
    raw = (np.round(rng.normal(0.3 + 0.3 * truth, 0.3), 1 + seed % 2)).astype(np.float32)
    raw[rng.random(60) < 0.1] = np.nan
    result = tune_threshold(raw, truth, rule)
    best = max(
        score(raw, truth, t, rule) for t in [-9.0, 9.0, *(np.unique(raw[np.isfinite(raw)]).astype(float) - 1e-4)]
    )
    assert score(raw, truth, result, rule) == pytest.approx(best, abs=1e-6)


def test_f1_alone_finds_more_of_a_rare_au() -> None:
    truth = np.array([0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool)[::-1]
    raw = np.arange(20.0)
    lower, higher = tune_threshold(raw, truth, "tuned_f1"), tune_threshold(raw, truth)
    assert lower < higher
    assert score(raw, truth, lower, "tuned_f1") > score(raw, truth, higher, "tuned_f1")
    assert score(raw, truth, lower) < score(raw, truth, higher)


def test_without_an_active_frame_f1_is_the_same_everywhere_and_accuracy_decides() -> None:
    assert tune_threshold(np.array([0.2, 0.3, 0.8]), np.zeros(3, bool), "tuned_f1") == pytest.approx(1.3)
    assert tune_threshold(np.array([0.2, 0.8]), np.array([False, True]), "half") == 0.5


def test_the_middle_of_the_optimal_interval_is_taken() -> None:
    # any threshold between .2 and .9 is perfect
    assert tune_threshold(np.array([0.1, 0.2, 0.9, 1.0]), np.array([False, False, True, True])) == pytest.approx(0.55)


# one positive missed, or two more negatives called: thresholds below the 3rd and below the 6th value score alike
TIED = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0], bool)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([0.0, 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], 0.25),  # .1 to .4 is wider than .6 to .7
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.9, 1.0], 0.55),
        ([0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0], 0.5625),  # equally wide: nearer to .5
    ],
)
def test_of_equally_good_intervals_the_widest_is_taken(raw: list[float], expected: float) -> None:
    assert score(np.array(raw), TIED, raw[2] - 0.01) == pytest.approx(score(np.array(raw), TIED, raw[5] - 0.01))
    assert tune_threshold(np.array(raw), TIED) == pytest.approx(expected)


def test_all_or_nothing_active() -> None:
    assert tune_threshold(np.array([0.2, 0.8]), np.array([False, False])) == pytest.approx(1.3)
    assert tune_threshold(np.array([0.2, 0.8]), np.array([True, True])) == pytest.approx(-0.3)
    assert tune_threshold(np.array([np.nan, np.nan]), np.array([True, False])) == 0.5


def world(better: float, n: int = 200, videos: int = 6) -> tuple[Frames, Outputs]:
    """Select frames where the mapping with uncertainty has the noise .5 - better in all AUs."""
    rng = np.random.default_rng(0)
    size = n * videos
    labels = (rng.random((size, A)) < 0.3).astype(np.int8)
    ok = rng.random(size) < 0.95
    frames = make_frames(np.ones(videos), labels, ok=ok)
    noise = rng.normal(size=(size, A))
    arrays = [(labels + s * noise).astype(np.float32) for s in (0.5, 0.5 - better)]
    for array in arrays:
        array[~ok] = np.nan
    return frames, make_outputs(arrays[0], np.abs(arrays[0]), arrays[1], arrays[0])


@pytest.mark.parametrize(
    ("better", "uses", "low", "high"), [(0.2, True, 0.95, 1), (-0.3, False, 0, 0.05), (0.0, True, 0.5, 0.5)]
)
def test_the_better_mapping_is_chosen_and_that_with_uncertainty_on_a_tie(
    better: float, uses: bool, low: float, high: float
) -> None:
    frames, outputs = world(better)
    choice = choose_mappings(outputs, frames, annotated_cells(frames, "select"), QUICK)
    assert (choice.uses_uncertainty == uses).all()
    for entry in choice.evidence:
        assert entry["mapping"] == MAPPINGS[uses]
        assert entry["threshold"] == entry[entry["mapping"]]["threshold"]
        difference = entry["with_uncertainty"]["score"] - entry["without_uncertainty"]["score"]
        assert entry["difference"] == pytest.approx(difference)
        assert low <= entry["probability_with_better"] <= high
        assert (entry["difference_interval"][0] > 0) == (better > 0)


def test_the_tolerance_of_a_tie_counts() -> None:
    frames, outputs = world(better=-0.02)
    cells = annotated_cells(frames, "select")
    gains = [entry["difference"] for entry in choose_mappings(outputs, frames, cells, QUICK).evidence]
    for tie in (0.0, 0.01, 0.05):
        params = Evaluate(bootstrap=10, tie=tie, loss_confidence=0.5)
        uses = choose_mappings(outputs, frames, cells, params).uses_uncertainty
        assert uses.tolist() == [gain >= -tie for gain in gains]
    assert sum(gain < -0.01 for gain in gains) > 0


def test_a_loss_that_may_be_chance_does_not_count() -> None:
    """One of six people loses much, the others gain a little: the mean is a loss, another draw of people might show none."""
    frames, outputs = world(better=0.02)
    raw = outputs.raws["both"].copy()
    one = frames.video == 0
    raw[one] = np.random.default_rng(1).normal(0.5, 1.0, (one.sum(), A))
    outputs = replace(outputs, raws={**outputs.raws, "both": raw})
    cells = annotated_cells(frames, "select")
    any_loss, sure_loss = (
        choose_mappings(outputs, frames, cells, Evaluate(bootstrap=200, loss_confidence=confidence))
        for confidence in (0.5, 0.95)
    )
    assert not any_loss.uses_uncertainty.any()
    assert sure_loss.uses_uncertainty.all()
    for entry in sure_loss.evidence:
        assert -entry["loss_limit"] < entry["difference"] < -0.01


def test_thresholds_of_half_are_half() -> None:
    frames, outputs = world(better=0.1)
    choice = choose_mappings(
        outputs, frames, annotated_cells(frames, "select"), Evaluate(bootstrap=10, thresholds="half")
    )
    assert all((own == 0.5).all() for own in choice.thresholds.values())


def test_frames_without_a_face_count_with_the_outputs_of_their_neighbour() -> None:
    frames, outputs = world(better=0.2)
    cells = annotated_cells(frames, "select")
    assert len(cells.rows) == len(frames)
    assert choose_mappings(outputs, frames, cells, QUICK).evidence[0]["positives"] == int(
        (frames.labels[:, 0] == 1).sum()
    )


@pytest.mark.parametrize(("key", "names"), [("mapping", MAPPINGS), ("variant", ("P2", "P1"))])
def test_a_selection_names_the_mapping_of_each_au_one_of_version_0_1_by_a_letter(
    key: str, names: tuple[str, str]
) -> None:
    entry = {"threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.25)}
    tree = {au: {key: names[k % 2], **entry} for k, au in enumerate(AFFWILD2)}
    selection = Selection.from_json(tree)
    np.testing.assert_array_equal(selection.uses_uncertainty, np.arange(len(AFFWILD2)) % 2 == 1)
    assert selection.thresholds.tolist() == [0.5] * len(AFFWILD2)
    assert selection.aus == AFFWILD2, "a file without the key"


def test_a_selection_names_its_aus_in_their_order() -> None:
    aus = ("Head-shake", "AU12L", "AU1")
    entries = {
        au: {"mapping": MAPPINGS[0], "threshold": k, "confidence": dict.fromkeys(TERMS, k)} for k, au in enumerate(aus)
    }
    selection = Selection.from_json({**dict(reversed(entries.items())), "aus": list(aus)})
    assert (selection.aus, selection.thresholds.tolist()) == (aus, [0, 1, 2])
    assert selection.confidence.coefficients[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("entry", "error"), [({}, KeyError), ({"variant": "P3"}, KeyError), ({"mapping": "P1"}, ValueError)]
)
def test_an_entry_without_a_mapping_that_exists_is_an_error(entry: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        uses_uncertainty(entry)
