"""From arrays to metrics.json, selection.json, the table and the plots."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.aus import AFFWILD2, SPLITS
from aupair.errors import ArtifactError, DataError
from aupair.evaluation.bootstrap import draw_resamples
from aupair.evaluation.evaluate import Evaluation, evaluate_flow
from aupair.evaluation.pair_order import Order, best_constant_sigma, ece_of_orders, pair_nll
from aupair.evaluation.selection import MAPPINGS, Selection, annotated_cells, filled_outputs
from aupair.log import Log
from aupair.params import Evaluate
from evaluation.worlds import QUICK, A, some, world

ROWS = ["all-zero", "all-one", "best-constant", "no-uncertainty", "constant-noise", "P1", "P2"]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    frames, outputs, pairs, conditions = world()
    return evaluate_flow(frames, outputs, pairs, conditions, QUICK)


def test_metrics_have_every_key_of_the_contract(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    assert [(r["name"], r["split"]) for r in metrics["rows"]] == [(n, s) for s in SPLITS[1:] for n in ROWS]
    figures = {"f1", "accuracy", "exact_match", "score"}
    for row in metrics["rows"]:
        assert figures | {"balanced_accuracy", "average_precision"} <= set(row)
        assert set(row["intervals"]) == figures
        assert list(row["per_au"]) == list(AFFWILD2)
        for key in figures:
            low, high = row["intervals"][key]
            assert low <= high
    assert {"clear", "mean", "per_au"} <= set(metrics["pair_accuracy"])
    block = metrics["uncertainty"]
    assert {"h", "constant", "constant_select", "per_au"} <= set(block["pair_nll"])
    assert set(block["auroc_correct"]) == {"margin", "margin_over_sigma", "gain", "per_au"}
    assert set(block["gain_at_80"]) == {"sigma", "random", "cover"}
    for name in ("spearman_misorder", "auroc_own_region", "auroc_other_region", "auroc_turned"):
        assert set(block[name]) == {"mean", "per_au"}
    assert isinstance(block["ece"], float)
    assert {name: set(curve) for name, curve in block["reliability"].items()} == {
        name: {"claimed", "observed", "share"} for name in ("h", "constant")
    }
    assert set(metrics["select"]) == {"pair_accuracy", "uncertainty"}
    assert (metrics["route"], metrics["protocol"], metrics["chosen_on"]) == ("both", "ours", "select")


def test_the_rows_score_the_decisions(evaluation: Evaluation) -> None:
    frames, *_ = world()
    rows = frames.of_split("validation") & (frames.labels[:, 0] >= 0)
    decisions, truth = evaluation.decisions[rows], frames.labels[rows] >= 1
    p2 = next(r for r in evaluation.metrics["rows"] if (r["name"], r["split"]) == ("P2", "validation"))
    assert p2["accuracy"] == pytest.approx((decisions == truth).mean())
    assert p2["exact_match"] == pytest.approx((decisions == truth).all(1).mean())
    zero = next(r for r in evaluation.metrics["rows"] if (r["name"], r["split"]) == ("all-zero", "validation"))
    assert zero["accuracy"] == pytest.approx(1 - truth.mean())


def test_rows_are_compared_in_the_same_resamples(evaluation: Evaluation) -> None:
    rows = {(r["name"], r["split"]): r for r in evaluation.metrics["rows"]}
    compared = {(one["name"], one["split"]): one for one in evaluation.metrics["comparisons"]}
    assert len(compared) == len(evaluation.metrics["comparisons"]) == 2 * 5 * 2
    for (name, split), one in compared.items():
        assert name == f"{one['a']}-{one['b']}.{one['figure']}"
        sides = [rows[one[side], split][one["figure"]] for side in ("a", "b")]
        assert one["difference"] == pytest.approx(sides[0] - sides[1])
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    best = compared["P2-best-constant.score", "validation"]
    assert (best["difference"] > 0.1, best["probability"], best["interval"][0] > 0) == (True, 1.0, True)
    assert evaluation.selection["comparisons"] == [one for (_, split), one in compared.items() if split == "select"]


def naive_f1(truth: np.ndarray, decisions: np.ndarray) -> float:
    """The mean over AUs, frame by frame."""
    values = []
    for own, decided in zip(truth.T.tolist(), decisions.T.tolist()):
        hits, misses = sum(a and b for a, b in zip(own, decided)), sum(a != b for a, b in zip(own, decided))
        values.append(2 * hits / (2 * hits + misses) if hits + misses else 0.0)
    return float(np.mean(values))


@pytest.mark.parametrize("people", [(3, 4, 5), (3, 4, 3)])
def test_a_comparison_is_that_of_a_loop_over_people_whose_clips_are_drawn_together(people: tuple[int, ...]) -> None:
    frames, outputs, pairs, conditions = world()
    subject = np.array([0, 1, 2, *people, 6, 7, 8], np.int32)[frames.video]
    frames = replace(frames, subject=subject)
    evaluation = evaluate_flow(frames, outputs, pairs, conditions, QUICK)
    cells = annotated_cells(frames, "select")
    names = sorted(set(people))
    drawn = draw_resamples(len(names), QUICK.bootstrap, (QUICK.seed, SPLITS.index("select")))
    decided = {}
    raws = filled_outputs(outputs, frames)
    for name, route, side in (
        ("no-uncertainty", "raw", "without_uncertainty"),
        ("P1", "both", "with_uncertainty"),
    ):
        decided[name] = raws[route][cells.rows] >= np.array(
            [evaluation.selection[au][side]["threshold"] for au in AFFWILD2]
        )
    gaps = []
    for weights in drawn:
        rows = np.concatenate([np.tile(np.flatnonzero(subject[cells.rows] == p), w) for p, w in zip(names, weights)])
        f1 = {name: naive_f1(cells.truth[rows], own[rows]) for name, own in decided.items()}
        gaps.append(f1["P1"] - f1["no-uncertainty"])
    one = next(
        c for c in evaluation.metrics["comparisons"] if (c["name"], c["split"]) == ("P1-no-uncertainty.f1", "select")
    )
    np.testing.assert_allclose(one["interval"], np.quantile(gaps, [0.025, 0.975]))
    assert one["probability"] == pytest.approx((np.array(gaps) > 0).mean() + 0.5 * (np.array(gaps) == 0).mean())


def test_each_row_is_decided_by_its_mapping_at_its_threshold(evaluation: Evaluation) -> None:
    rows = {r["name"]: r["per_au"] for r in evaluation.metrics["rows"] if r["split"] == "select"}
    for au in AFFWILD2:
        entry = evaluation.selection[au]
        chosen = entry["mapping"]
        for name, side in (("P1", "with_uncertainty"), ("no-uncertainty", "without_uncertainty"), ("P2", chosen)):
            assert rows[name][au]["f1"] == pytest.approx(entry[side]["f1"])
            assert rows[name][au]["accuracy"] == pytest.approx(entry[side]["accuracy"])
    assert rows["P1"] != rows["no-uncertainty"]


def test_an_informative_sigma_beats_constants_and_random_abstention(evaluation: Evaluation) -> None:
    block = evaluation.metrics["uncertainty"]
    assert block["pair_nll"]["h"] < block["pair_nll"]["constant"]
    assert block["auroc_correct"]["margin_over_sigma"] > block["auroc_correct"]["margin"]
    gains = evaluation.draws["gains"]
    for figure, name, sign in (("pair_nll", "less_constant", -1), ("auroc_correct", "gain", 1)):
        gain, drawn = block[figure][name], gains[f"uncertainty.{figure}.{name}"]
        assert min(sign * edge for edge in gain["interval"]) > 0
        assert gain["probability"] == (sign > 0)
        np.testing.assert_allclose(np.quantile(drawn, [0.025, 0.975]), gain["interval"], atol=1e-6)
    assert block["gain_at_80"]["sigma"] > block["gain_at_80"]["random"] + 0.02
    assert block["gain_at_80"]["cover"] > block["gain_at_80"]["random"] + 0.02
    assert abs(block["gain_at_80"]["random"]) < 0.01
    assert block["auroc_own_region"]["mean"] > 0.95
    assert block["spearman_misorder"]["mean"] > 0
    assert evaluation.metrics["pair_accuracy"]["clear"] > evaluation.metrics["pair_accuracy"]["mean"]
    assert block["auroc_turned"]["mean"] == pytest.approx(0.5, abs=0.15), "turned faces are as good here"
    decisions = evaluation.metrics["decisions"]
    assert decisions["error_at_80"]["confidence"] < decisions["error"]
    for part in (decisions, *decisions["per_au"].values()):
        assert part["aurc"]["confidence"] < part["aurc"]["random"]
    assert decisions["selective"]["gain_at_80"]["f1"]["difference"] > 0


def test_a_cover_of_the_own_region_is_distinguished_from_that_of_another() -> None:
    frames, outputs, pairs, conditions = world()
    hidden = np.zeros_like(conditions.hidden)
    kind = np.random.default_rng(5).integers(0, 3, len(frames))  # nothing, the region of AU1, that of AU2
    hidden[kind == 1, 0] = hidden[kind == 2, 1] = 0.9
    known = replace(conditions, hidden=hidden, covered=0.2 * (kind > 0))
    sigma = np.where(kind[:, None] == 1, 2.0, 1.0) * np.exp(0.2 * np.random.default_rng(6).normal(size=hidden.shape))
    sigma = np.where(frames.ok[:, None], sigma, np.nan).astype(np.float32)  # AU1's cover raises the sigma of all AUs
    block = evaluate_flow(frames, replace(outputs, sigma=sigma), pairs, known, QUICK).metrics["uncertainty"]
    assert block["auroc_own_region"]["per_au"]["AU1"] > 0.95
    assert block["auroc_other_region"]["per_au"]["AU1"] > 0.95
    assert block["auroc_own_region"]["per_au"]["AU2"] == pytest.approx(0.5, abs=0.15)
    assert block["auroc_other_region"]["per_au"]["AU2"] < 0.05
    assert np.isnan(block["auroc_other_region"]["per_au"]["AU4"]), "never hidden"


def test_figures_of_each_au_have_the_mean_that_stands_above_them(evaluation: Evaluation) -> None:
    block = evaluation.metrics["uncertainty"]
    for name in ("margin", "margin_over_sigma"):
        own = [block["auroc_correct"]["per_au"][au][name] for au in AFFWILD2]
        assert block["auroc_correct"][name] == pytest.approx(np.mean(own))
    assert block["ece"] == pytest.approx(np.mean([block["ece_per_au"][au]["h"] for au in AFFWILD2]))
    assert block["ece_constant"] == pytest.approx(np.mean([block["ece_per_au"][au]["constant"] for au in AFFWILD2]))
    decisions = evaluation.metrics["decisions"]
    assert decisions["error"] == pytest.approx(np.mean([decisions["per_au"][au]["error"] for au in AFFWILD2]))
    for curve in (decisions["risk_coverage"]["confidence"], decisions["per_au"]["AU1"]["risk_coverage"]["confidence"]):
        np.testing.assert_allclose(curve["coverage"], np.arange(1, 21) / 20)
    assert decisions["risk_coverage"]["confidence"]["risk"][-1] == pytest.approx(decisions["error"])


def test_the_constants_to_beat_were_chosen_on_fit_and_on_select(evaluation: Evaluation) -> None:
    _, outputs, pairs, _ = world()
    block, own = evaluation.metrics["uncertainty"], pairs["validation"]
    for key, split in (("constant", "fit"), ("constant_select", "select")):
        sigma = np.broadcast_to(best_constant_sigma(outputs.y_hat, pairs[split]), outputs.sigma.shape)
        values = pair_nll(outputs.y_hat, sigma, own)
        assert block["pair_nll"][key] == pytest.approx(values.mean())
        assert block["pair_nll"]["per_au"]["AU12"][key] == pytest.approx(values[6])
    fit = np.broadcast_to(best_constant_sigma(outputs.y_hat, pairs["fit"]), outputs.sigma.shape)
    assert block["ece_constant"] == pytest.approx(ece_of_orders(outputs.y_hat, fit, own).mean())
    assert block["pair_nll"]["h"] == pytest.approx(pair_nll(outputs.y_hat, outputs.sigma, own).mean())


def test_a_shuffled_sigma_beats_nothing(evaluation: Evaluation) -> None:
    frames, outputs, pairs, conditions = world()
    shuffled = outputs.sigma.copy()
    shuffled[frames.ok] = np.random.default_rng(0).permutation(outputs.sigma[frames.ok])
    block = evaluate_flow(frames, replace(outputs, sigma=shuffled), pairs, conditions, QUICK).metrics["uncertainty"]
    assert block["pair_nll"]["h"] > block["pair_nll"]["constant"]
    known = evaluation.metrics["uncertainty"]["auroc_correct"]["margin_over_sigma"]
    assert block["auroc_correct"]["margin_over_sigma"] < known - 0.1
    assert abs(block["gain_at_80"]["sigma"]) < 0.02


def test_pair_accuracy_is_that_of_clear_validation_frames(evaluation: Evaluation) -> None:
    frames, outputs, _, conditions = world()
    validation = frames.of_split("validation")
    for key, subset in (
        ("mean", validation),
        ("clear", validation & (conditions.covered == 0) & (abs(conditions.yaw) < 0.3)),
    ):
        assert evaluation.metrics["pair_accuracy"][key] == pytest.approx(
            Order(outputs.y_hat, frames, subset).accuracy(subset).mean()
        )


def test_real_data_without_conditions_leaves_those_figures_empty() -> None:
    frames, outputs, pairs, _ = world()
    metrics = evaluate_flow(frames, outputs, pairs, None, QUICK).metrics
    assert metrics["pair_accuracy"]["clear"] is None
    assert metrics["uncertainty"]["gain_at_80"]["cover"] is None
    for name in ("auroc_own_region", "auroc_other_region", "auroc_turned"):
        assert metrics["uncertainty"][name] == {"mean": None, "per_au": None}


def test_the_selection_survives_json_and_decides_alike(evaluation: Evaluation, tmp_path: Path) -> None:
    store.write_json(tmp_path / "selection.json", evaluation.selection)
    selection = Selection.from_json(store.read_json(tmp_path / "selection.json"))
    frames, outputs, *_ = world()
    raw = selection.raw(outputs.raws["both"], outputs.raws["raw"])
    np.testing.assert_array_equal(selection.decide(raw)[frames.ok], evaluation.decisions[frames.ok])
    np.testing.assert_array_equal(selection.confidence_of(raw, outputs.sigma), evaluation.confidence)
    assert selection.confidence.limits(0.2).shape == (2, A)
    assert selection.confidence.bounds is not None
    for au in AFFWILD2:
        assert evaluation.selection[au]["mapping"] in MAPPINGS
        assert {"threshold", "with_uncertainty", "without_uncertainty", "probability_with_better"} <= set(
            evaluation.selection[au]
        )


def test_choices_do_not_see_validation() -> None:
    frames, outputs, _, conditions = world()
    labels = frames.labels.copy()
    rows = np.flatnonzero(frames.of_split("validation"))
    labels[rows] = labels[np.random.default_rng(0).permutation(rows)]
    other = replace(frames, labels=labels)
    trees = [
        evaluate_flow(f, outputs, {s: some(f, s) for s in SPLITS}, conditions, QUICK).selection for f in (frames, other)
    ]
    assert trees[0] == trees[1]


def test_the_papers_protocol_chooses_on_validation_and_is_marked() -> None:
    frames, outputs, pairs, conditions = world()
    paper = evaluate_flow(frames, outputs, pairs, conditions, Evaluate(bootstrap=50, protocol="paper"))
    ours = evaluate_flow(frames, outputs, pairs, conditions, QUICK)
    ending = [e.metrics["rows"][-1] for e in (paper, ours)]
    assert ending[0]["score"] > ending[1]["score"]
    marks = {r["name"]: r["chosen_on"] for r in paper.metrics["rows"] if r["split"] == "validation"}
    assert [marks[name] for name in ROWS] == [None, None, "fit", *["validation"] * 4]
    assert (paper.metrics["protocol"], paper.selection["chosen_on"]) == ("paper", "validation")


def test_the_result_is_repeatable() -> None:
    frames, outputs, pairs, conditions = world()
    once, again = (evaluate_flow(frames, outputs, pairs, conditions, QUICK) for _ in range(2))
    assert store._plain(once.metrics) == store._plain(again.metrics)


def test_an_au_without_a_positive_is_logged_and_never_active() -> None:
    frames, outputs, _, conditions = world()
    labels = np.where(np.arange(A) == 4, np.minimum(frames.labels, 0), frames.labels).astype(np.int8)
    lines: list[str] = []

    class Listening(Log):
        def line(self, text: str) -> None:
            lines.append(text)

    bare = replace(frames, labels=labels)
    result = evaluate_flow(bare, outputs, {s: some(bare, s) for s in SPLITS}, conditions, QUICK, Listening())
    assert [line.split(":")[0] for line in lines] == list(SPLITS)
    assert all("AU7" in line for line in lines)
    p2 = next(r for r in result.metrics["rows"] if (r["name"], r["split"]) == ("P2", "select"))
    assert (p2["per_au"]["AU7"]["f1"], p2["per_au"]["AU7"]["accuracy"]) == (0.0, 1.0)
    assert np.isfinite(result.metrics["uncertainty"]["pair_nll"]["h"])


def test_bad_input_is_refused_in_one_line() -> None:
    frames, outputs, pairs, conditions = world()
    hole = outputs.sigma.copy()
    row = int(np.flatnonzero(frames.ok)[60])
    hole[row, 2] = np.nan
    place = f"sigma, video {frames.videos[frames.video[row]]}, frame {frames.frame[row]}"
    with pytest.raises(ArtifactError, match=place):
        evaluate_flow(frames, replace(outputs, sigma=hole), pairs, conditions, QUICK)
    with pytest.raises(ArtifactError, match="outputs of other frames: in y_hat"):
        evaluate_flow(frames, replace(outputs, y_hat=outputs.y_hat[1:]), pairs, conditions, QUICK)
    bare = replace(frames, ok=frames.ok & ~frames.of_split("select"))
    with pytest.raises(DataError, match="a split cannot be scored: in split select") as error:
        evaluate_flow(bare, outputs, pairs, conditions, QUICK)
    assert "\n" not in str(error.value)


def test_unguarded_sigma_and_smoothed_values_have_figures_beside_the_others() -> None:
    frames, outputs, pairs, conditions = world()
    truth = frames.labels.astype(np.float32)
    more = replace(outputs, unguarded=1 / outputs.sigma, smoothed={"both": truth, "constant": outputs.y_hat})
    metrics = evaluate_flow(frames, more, pairs, conditions, QUICK).metrics
    nll, accuracy = metrics["uncertainty"]["pair_nll"], metrics["pair_accuracy"]
    assert nll["h"] < nll["constant"] < nll["unguarded"]
    assert metrics["uncertainty"]["ece"] < metrics["uncertainty"]["ece_unguarded"]
    assert accuracy["smoothed"]["both"] == {"clear": 1, "mean": 1}
    assert accuracy["smoothed"]["constant"] == {name: accuracy[name] for name in ("clear", "mean")}


def test_without_a_route_that_reads_uncertainty_p1_and_p2_are_the_row_without() -> None:
    frames, outputs, pairs, conditions = world()
    alone = replace(outputs, raws={"raw": outputs.raws["raw"]}, with_route="raw")
    evaluation = evaluate_flow(frames, alone, pairs, conditions, QUICK)
    rows = {r["name"]: r for r in evaluation.metrics["rows"] if r["split"] == "validation"}
    assert list(rows) == [name for name in ROWS if name != "constant-noise"]
    for key in ("f1", "intervals", "per_au"):
        assert rows["P1"][key] == rows["P2"][key] == rows["no-uncertainty"][key]
    assert {evaluation.selection[au]["mapping"] for au in AFFWILD2} == {"without_uncertainty"}
