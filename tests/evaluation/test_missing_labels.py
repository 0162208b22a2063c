"""Labels that are missing AU by AU: every figure equals a loop over the labelled cells, for 1, 3, 12 and 20 AUs."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from aupair import store
from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.evaluate import Evaluation, evaluate_flow
from aupair.evaluation.selection import Outputs, Selection, annotated_cells, filled_outputs
from aupair.evaluation.thresholds import tune_threshold
from aupair.log import Log
from aupair.ranking.pairs import Pairs
from evaluation.worlds import MISSING, QUICK, some, world

CASES = [(aus, missing) for aus in (1, 3, 12, 20) for missing in MISSING]


class Case(NamedTuple):
    """A world and its evaluation."""

    frames: Frames
    outputs: Outputs
    pairs: dict[str, Pairs]
    conditions: Conditions
    evaluation: Evaluation

    def row(self, name: str, split: str = "validation") -> dict[str, Any]:
        rows = self.evaluation.metrics["rows"]
        return next(row for row in rows if (row["name"], row["split"]) == (name, split))

    def output(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs (N, A) and the decisions of a row, from the entries of selection.json."""
        output, decisions = (np.zeros(self.frames.labels.shape, kind) for kind in (float, bool))
        filled = filled_outputs(self.outputs, self.frames)
        raws = {"without_uncertainty": filled["raw"], "with_uncertainty": filled["both"]}
        for k, au in enumerate(self.frames.aus):
            entry = self.evaluation.selection[au]
            side = {"P1": "with_uncertainty", "no-uncertainty": "without_uncertainty"}.get(name, entry["mapping"])
            output[:, k] = raws[side][:, k]
            decisions[:, k] = output[:, k] >= entry[side]["threshold"]
        return output, decisions


def evaluate(
    frames: Frames, outputs: Outputs, pairs: dict[str, Pairs], conditions: Conditions, **more: Any
) -> Evaluation:
    return evaluate_flow(frames, outputs, pairs, conditions, QUICK, **more)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    aus, missing = request.param
    parts = world(aus=aus, missing=missing)
    return Case(*parts, evaluate(*parts))


def labelled_rows(frames: Frames, split: str, au: int) -> list[int]:
    """Return the rows of a split's frames that have the label of an AU."""
    return [k for k in np.flatnonzero(frames.of_split(split)) if frames.labels[k, au] >= 0]


def naive_scores(pairs: list[tuple[bool, bool]]) -> tuple[float, float]:
    """F1 and accuracy of (decided, active); NaN of nothing."""
    hits, errors = sum(d and t for d, t in pairs), sum(d != t for d, t in pairs)
    if not pairs:
        return math.nan, math.nan
    return 2 * hits / (2 * hits + errors) if hits + errors else 0.0, 1 - errors / len(pairs)


def mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def same(value: float) -> Any:
    return pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("name", ["no-uncertainty", "P1", "P2"])
def test_the_scores_are_those_of_loops_over_labelled_cells_and_complete_frames(
    case: Case, name: str, split: str
) -> None:
    frames, row = case.frames, case.row(name, split)
    output, decisions = case.output(name)
    own = []
    for k, au in enumerate(frames.aus):
        rows = labelled_rows(frames, split, k)
        own.append(naive_scores([(decisions[r, k], frames.labels[r, k] == 1) for r in rows]))
        entry = row["per_au"][au]
        assert (entry["f1"], entry["accuracy"]) == (same(own[-1][0]), same(own[-1][1]))
        assert entry["positives"] == same(np.mean(frames.labels[rows, k] == 1))
        precision = average_precision_score(frames.labels[rows, k] == 1, output[rows, k])
        assert entry["average_precision"] == same(precision)
    assert row["f1"] == same(mean([f1 for f1, _ in own]))
    assert row["accuracy"] == same(mean([accuracy for _, accuracy in own]))
    assert row["average_precision"] == same(mean([e["average_precision"] for e in row["per_au"].values()]))

    complete = [r for r in np.flatnonzero(frames.of_split(split)) if all(label >= 0 for label in frames.labels[r])]
    annotated = [r for r in np.flatnonzero(frames.of_split(split)) if any(label >= 0 for label in frames.labels[r])]
    assert case.evaluation.metrics["frames"][split] == {"annotated": len(annotated), "complete": len(complete)}
    exact = [all(decisions[r] == (frames.labels[r] == 1)) for r in complete]
    assert row["exact_match"] == same(mean([float(value) for value in exact]))
    parts = [
        naive_scores([(decisions[r, k], frames.labels[r, k] == 1) for r in complete]) for k in range(len(frames.aus))
    ]
    score = 0.5 * mean([f1 for f1, _ in parts]) + 0.5 * mean([accuracy for _, accuracy in parts])
    assert row["score"] == same(score)
    for key in ("f1", "accuracy", "exact_match", "score"):
        low, high = row["intervals"][key]
        assert math.isnan(low) == math.isnan(high) == (key in ("exact_match", "score") and not complete)


def test_a_threshold_is_tuned_on_the_labelled_frames_of_its_au_alone(case: Case) -> None:
    frames = case.frames
    filled = filled_outputs(case.outputs, frames)
    for raw, side in ((filled["raw"], "without_uncertainty"), (filled["both"], "with_uncertainty")):
        for k, au in enumerate(frames.aus):
            rows = labelled_rows(frames, "select", k)
            expected = tune_threshold(raw[rows, k], frames.labels[rows, k] == 1)
            entry = case.evaluation.selection[au]
            assert entry[side]["threshold"] == expected
            assert entry["positives"] == sum(frames.labels[rows, k] == 1)
            assert entry["people"] == len({frames.subject[r] for r in rows})


def test_the_constants_are_chosen_on_the_labelled_frames_of_fit(case: Case) -> None:
    row = case.row("best-constant")["per_au"]
    for k, au in enumerate(case.frames.aus):
        truth = [case.frames.labels[r, k] == 1 for r in labelled_rows(case.frames, "fit", k)]
        zero, one = (sum(naive_scores([(guess, bool(t)) for t in truth])) for guess in (False, True))
        guess = one > zero
        rows = labelled_rows(case.frames, "validation", k)
        expected = naive_scores([(guess, case.frames.labels[r, k] == 1) for r in rows])
        assert (row[au]["f1"], row[au]["accuracy"]) == (same(expected[0]), same(expected[1]))


def test_the_risk_is_that_of_loops_over_labelled_cells_with_a_face(case: Case) -> None:
    frames, tree = case.frames, case.evaluation.metrics["decisions"]
    cells = []
    for k, au in enumerate(frames.aus):
        rows = [r for r in labelled_rows(frames, "validation", k) if frames.ok[r]]
        wrong = [case.evaluation.decisions[r, k] != (frames.labels[r, k] == 1) for r in rows]
        p = [case.evaluation.confidence[r, k] for r in rows]
        cells += zip(p, wrong)
        entry = tree["per_au"][au]
        assert entry["error"] == pytest.approx(np.mean(wrong))
        assert entry["confidence_brier"] == pytest.approx(np.mean([(q - (not w)) ** 2 for q, w in zip(p, wrong)]))
        ranked = [w for _, w in sorted(zip(p, wrong), key=lambda cell: -cell[0])]
        risks = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
        assert entry["aurc"]["confidence"] == pytest.approx(np.mean(risks))
        places = [max(math.ceil(c * len(risks) - 1e-9), 1) - 1 for c in np.arange(1, 21) / 20]
        np.testing.assert_allclose(entry["risk_coverage"]["confidence"]["risk"], risks[places])
    assert tree["cells"] == len(cells)
    assert tree["error"] == pytest.approx(np.mean([w for _, w in cells]))
    ranked = [w for _, w in sorted(cells, key=lambda cell: -cell[0])]
    risks = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    assert tree["aurc"]["confidence"] == pytest.approx(np.mean(risks))
    whole = next(row for row in tree["abstention"] if row["name"] == "80")
    limits = Selection.from_json(store._plain(case.evaluation.selection)).confidence.limits(0.2)
    kept, accuracies = [], []
    for k in range(len(frames.aus)):
        before = len(kept)
        for r in (r for r in labelled_rows(frames, "validation", k) if frames.ok[r]):
            decided = case.evaluation.decisions[r, k]
            if case.evaluation.confidence[r, k] >= limits[int(decided), k]:
                kept.append(decided != (frames.labels[r, k] == 1))
        accuracies.append(1 - np.mean(kept[before:]))
    assert whole["coverage"] == pytest.approx(len(kept) / len(cells))
    assert whole["error"] == pytest.approx(np.mean(kept))
    assert whole["accuracy"] == pytest.approx(np.mean(accuracies))


def naive_pair_accuracy(frames: Frames, y_hat: np.ndarray, rows: list[int], k: int) -> float:
    """The share of pairs of rows, an active and an inactive one of a video, that an AU's y_hat puts in the right order."""
    right: list[float] = []
    for video in {frames.video[r] for r in rows}:
        own = [r for r in rows if frames.video[r] == video]
        active, inactive = ([y_hat[r, k] for r in own if frames.labels[r, k] == label] for label in (1, 0))
        right += [0.5 * (np.sign(a - b) + 1) for a in active for b in inactive]
    return float(np.mean(right)) if right else math.nan


def test_pair_accuracy_and_its_gain_are_of_pairs_of_labelled_frames(case: Case) -> None:
    frames, y_hat, sigma = case.frames, case.outputs.y_hat, case.outputs.sigma
    values, gains = case.evaluation.metrics["pair_accuracy"]["per_au"], []
    for k, au in enumerate(frames.aus):
        rows = [r for r in labelled_rows(frames, "validation", k) if frames.ok[r]]
        whole = naive_pair_accuracy(frames, y_hat, rows, k)
        assert values[au] == pytest.approx(whole)
        certain = sorted(rows, key=lambda r: sigma[r, k])[: len(rows) - int(0.2 * len(rows))]
        gains.append(naive_pair_accuracy(frames, y_hat, certain, k) - whole)
    assert case.evaluation.metrics["uncertainty"]["gain_at_80"]["sigma"] == pytest.approx(mean(gains))


def test_json_holds_null_where_nothing_is_labelled(case: Case) -> None:
    tree = store._plain(case.evaluation.metrics)
    complete = tree["frames"]["validation"]["complete"]
    for row in (row for row in tree["rows"] if row["split"] == "validation"):
        assert (row["score"] is None) == (row["exact_match"] is None) == (complete == 0)
        assert row["f1"] is not None
    for one in (one for one in tree["comparisons"] if one["split"] == "validation"):
        undefined = one["figure"] == "score" and not complete
        for values in (one["difference"], one["probability"], *one["interval"]):
            assert (values is None) == undefined
    assert tree["aus"] == list(case.frames.aus) == case.evaluation.selection["aus"]


def test_a_selection_is_read_with_its_aus(case: Case) -> None:
    tree = store._plain(case.evaluation.selection)
    selection = Selection.from_json(tree)
    assert selection.aus == case.frames.aus
    assert selection.thresholds.tolist() == [tree[au]["threshold"] for au in selection.aus]
    raw, sigma = case.outputs.raw(selection.uses_uncertainty), case.outputs.sigma
    np.testing.assert_array_equal(selection.confidence_of(raw, sigma), case.evaluation.confidence)


POOLED = ("confidence", "confidence_quantiles")
"""what an AU shares with the others: the regression of its confidence is drawn to that of all AUs"""


def own_figures(evaluation: Evaluation, au: str) -> Iterator[tuple[str, Any]]:
    """Yield all figures of one AU that do not depend on the confidence."""
    metrics = evaluation.metrics
    yield "selection", {key: value for key, value in evaluation.selection[au].items() if key not in POOLED}
    for row in (*metrics["rows"], *metrics.get("intensity_rows", ())):
        yield f"{row['name']} {row['split']}", row["per_au"][au]
    for split in (metrics, metrics["select"]):
        yield "pairs", [split["pair_accuracy"][key][au] for key in ("per_au", "clear_per_au")]
        for key, block in split["uncertainty"].items():
            if key.endswith("per_au"):
                yield key, block[au]
            elif isinstance(block, dict) and "per_au" in block:
                yield key, block["per_au"][au]
    decisions = metrics["decisions"]["per_au"][au]
    yield "error", decisions["error"]
    for key in ("error_at_80", "aurc", "auroc_right", "risk_coverage"):
        yield key, [decisions[key][ranking] for ranking in ("margin", "certainty")]
    for row in metrics["decisions"]["selective"]["table"]:
        if row["way"] in ("certainty", "random"):
            yield row["name"], row["per_au"][au]


@pytest.mark.parametrize("aus", [3, 12])
@pytest.mark.parametrize("target", ["occurrence", "intensity"])
def test_labels_of_one_au_change_nothing_of_another(aus: int, target: str) -> None:
    frames, outputs, _, conditions = world(aus=aus)
    if target == "intensity":
        levels = np.random.default_rng(1).integers(1, 6, frames.labels.shape)
        frames = replace(frames, labels=np.where(frames.labels == 1, levels, frames.labels).astype(np.int8))
    labels = frames.labels.copy()
    labels[np.random.default_rng(2).random(len(labels)) < 0.7, 1] = -1
    labels[:, 2] = -1
    both = [frames, replace(frames, labels=labels)]
    before, after = (evaluate(f, outputs, {s: some(f, s) for s in SPLITS}, conditions, target=target) for f in both)
    for name in frames.aus:
        pairs = zip(own_figures(before, name), own_figures(after, name))
        changed = [a[0] for a, b in pairs if store._plain(a) != store._plain(b)]
        assert bool(changed) == (name in frames.aus[1:3]), (name, changed)


def test_an_au_without_a_label_is_undefined_and_the_others_are_chosen_as_before() -> None:
    frames, outputs, _, conditions = world(aus=3)
    lines: list[str] = []

    class Listening(Log):
        def line(self, text: str) -> None:
            lines.append(text)

    labels = frames.labels.copy()
    labels[frames.of_split("select") | frames.of_split("validation"), 1] = -1
    bare = replace(frames, labels=labels)
    result = evaluate(bare, outputs, {s: some(bare, s) for s in SPLITS}, conditions, log=Listening())
    name = frames.aus[1]
    entry = store._plain(result.selection)[name]
    assert (entry["mapping"], entry["threshold"]) == ("with_uncertainty", 0.5)
    assert (entry["difference"], entry["probability_with_better"]) == (None, None)
    assert (entry["difference_interval"], entry["positives"], entry["people"]) == ([None, None], 0, 0)
    assert [line for line in lines if name in line] == [
        f"{split}: {name} not labelled: figures are undefined there, and no choice can be based on it"
        for split in ("select", "validation")
    ]
    assert sum("no frame has the labels of all AUs" in line for line in lines) == 2
    tree = store._plain(result.metrics)
    for row in tree["rows"]:
        values = row["per_au"][name]
        assert [values[key] for key in ("f1", "accuracy", "positives", "average_precision")] == [None] * 4
        assert values["f1_interval"] == [None, None]
        assert row["f1"] == pytest.approx(np.mean([row["per_au"][au]["f1"] for au in (frames.aus[0], frames.aus[2])]))
    block = tree["decisions"]
    assert [block["per_au"][name][key] for key in ("error", "confidence_ece", "confidence_brier")] == [None] * 3
    assert block["per_au"][name]["risk_coverage"]["confidence"]["risk"] == [None] * 20
    assert all(row["f1"] is not None for row in (*block["selective"]["table"], *block["abstention"]))
    assert tree["uncertainty"]["pair_nll"]["per_au"][name]["h"] is None
    assert np.isfinite(result.confidence[frames.ok]).all(), "its decisions have the confidence that all AUs share"
    Selection.from_json(store._plain(result.selection))


def test_aus_with_too_few_kinds_of_labels_are_logged() -> None:
    frames, outputs, _, conditions = world(aus=3)
    lines: list[str] = []

    class Listening(Log):
        def line(self, text: str) -> None:
            lines.append(text)

    labels, select = frames.labels.copy(), frames.of_split("select")
    labels[select, 0] = np.where(labels[select, 0] == 1, 1, -1)
    labels[select & (frames.video != 4), 2] = -1
    few = replace(frames, labels=labels)
    evaluate(few, outputs, {s: some(few, s) for s in SPLITS}, conditions, log=Listening())
    assert lines[:2] == [
        "select: AU1 never inactive: F1 is that of guessing, and no choice can be based on it",
        "select: AU3 labelled for a single person: intervals do not include differences between people",
    ]


def test_frames_without_any_label_are_not_annotated() -> None:
    frames, *_ = world(aus=3, missing="random")
    cells = annotated_cells(frames, "select")
    expected = [r for r in np.flatnonzero(frames.of_split("select")) if any(frames.labels[r] >= 0)]
    assert cells.rows.tolist() == expected
    assert cells.counted.tolist() == (frames.labels[expected] >= 0).tolist()
