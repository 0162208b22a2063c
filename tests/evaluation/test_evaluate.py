"""From arrays to metrics.json, selection.json, the table and the plots."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError, DataError
from aupair.evaluation.conditions import Conditions
from aupair.evaluation.evaluate import Evaluation, evaluate
from aupair.evaluation.pair_order import pair_accuracy
from aupair.evaluation.plots import SECONDS, timelines, video_to_show
from aupair.evaluation.reports import Places, write_reports
from aupair.evaluation.selection import Selection, Trial
from aupair.evaluation.table import terminal
from aupair.evaluation.uncertainty import best_constant_sigma, ece_of_order, pair_nll
from aupair.log import Log
from aupair.params import Evaluate
from aupair.ranking.pairs import Pairs

A = len(AUS)
PLOTS = ["f1", "reliability", "risk_coverage", "timelines"]
QUICK = Evaluate(bootstrap=50)
ROWS = ["all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2"]


def some(frames: Frames, split: str) -> Pairs:
    """Pair each active frame with the next inactive one of its video."""
    found = []
    for rows in frames.slices():
        usable = (frames.usable & frames.of_split(split))[rows]
        for au in range(A):
            high = rows.start + np.flatnonzero(usable & (frames.labels[rows, au] == 1))
            low = rows.start + np.flatnonzero(usable & (frames.labels[rows, au] == 0))
            found += [(i, j, au, 1) if k % 2 else (j, i, au, -1) for k, (i, j) in enumerate(zip(high, low))]
    return Pairs(*np.array(found).T)


def world(seed: int = 0, n: int = 50, videos: int = 9) -> tuple[Frames, Trial, dict[str, Pairs], Conditions]:
    """A third of the frames is covered: y_hat is noise there and sigma large; some have no face, some no labels."""
    rng = np.random.default_rng(seed)
    size = n * videos
    labels = (rng.random((size, A)) < np.linspace(0.1, 0.5, A)).astype(np.int8)
    truth = labels.astype(float)
    labels[rng.random(size) < 0.05] = -1
    video, frame = np.repeat(np.arange(videos, dtype=np.int32), n), np.tile(np.arange(n, dtype=np.int32), videos)
    split, ok = (video // 3).astype(np.int8), rng.random(size) < 0.95
    names = tuple(f"v{k}" for k in range(videos))
    frames = Frames(names, names, video, video, split, frame, frame / 25, ok, labels)
    covered = rng.random(size) < 0.3
    noise = np.where(covered, 2.0, 0.3)[:, None]
    y_hat = truth + noise * rng.normal(size=(size, A))
    with_uncertainty = np.where(covered[:, None], 0.3 + 0.1 * y_hat, y_hat)
    arrays = [
        a.astype(np.float32) for a in (y_hat, noise * np.exp(0.1 * rng.normal(size=(size, A))), with_uncertainty, y_hat)
    ]
    for array in arrays:
        array[~ok] = np.nan
    conditions = Conditions(0.4 * covered, 0.9 * np.repeat(covered[:, None], A, 1), rng.normal(0, 0.2, size))
    return frames, Trial(3, *arrays), {s: some(frames, s) for s in SPLITS}, conditions


@pytest.fixture(scope="module")
def found() -> Evaluation:
    frames, trial, pairs, conditions = world()
    return evaluate(frames, [trial], pairs, conditions, QUICK)


def test_metrics_have_every_key_of_the_contract(found: Evaluation) -> None:
    metrics = found.metrics
    assert [(r["name"], r["split"]) for r in metrics["rows"]] == [(n, s) for s in SPLITS[1:] for n in ROWS]
    figures = {"f1", "accuracy", "exact_match", "score"}
    for row in metrics["rows"]:
        assert figures | {"balanced_accuracy", "average_precision"} <= set(row)
        assert set(row["intervals"]) == figures
        assert list(row["per_au"]) == list(AUS)
        for key in figures:
            low, high = row["intervals"][key]
            assert low <= high
    assert {"clear", "mean", "per_au"} <= set(metrics["pair_accuracy"])
    block = metrics["uncertainty"]
    assert {"h", "constant", "constant_select", "per_au"} <= set(block["pair_nll"])
    assert set(block["auroc_correct"]) == {"margin", "margin_over_sigma"}
    assert set(block["gain_at_80"]) == {"sigma", "random", "cover"}
    assert set(block["spearman_misorder"]) == set(block["auroc_own_region"]) == {"mean", "per_au"}
    assert isinstance(block["ece"], float)
    assert set(metrics["select"]) == {"pair_accuracy", "uncertainty"}
    assert (metrics["chosen_trial"], metrics["protocol"], metrics["chosen_on"]) == (3, "ours", "select")


def test_the_rows_say_what_the_decisions_say(found: Evaluation) -> None:
    frames, *_ = world()
    rows = frames.of_split("validation") & (frames.labels[:, 0] >= 0)
    decisions, truth = found.decisions[rows], frames.labels[rows] >= 1
    p2 = next(r for r in found.rows if (r["name"], r["split"]) == ("P2", "validation"))
    assert p2["accuracy"] == pytest.approx((decisions == truth).mean())
    assert p2["exact_match"] == pytest.approx((decisions == truth).all(1).mean())
    zero = next(r for r in found.rows if (r["name"], r["split"]) == ("all-zero", "validation"))
    assert zero["accuracy"] == pytest.approx(1 - truth.mean())
    assert found.metrics["p2_over_best_constant"]["validation"]["score"] > 0.1


def test_each_row_is_decided_by_its_mapping_at_its_threshold(found: Evaluation) -> None:
    rows = {r["name"]: r["per_au"] for r in found.rows if r["split"] == "select"}
    for au in AUS:
        entry = found.selection[au]
        chosen = "with_uncertainty" if entry["variant"] == "P1" else "without"
        for name, side in (("P1", "with_uncertainty"), ("no-uncertainty", "without"), ("P2", chosen)):
            assert rows[name][au]["f1"] == pytest.approx(entry[side]["f1"])
            assert rows[name][au]["accuracy"] == pytest.approx(entry[side]["accuracy"])
    assert rows["P1"] != rows["no-uncertainty"]


def test_a_sigma_that_knows_is_found_to_know(found: Evaluation) -> None:
    block = found.metrics["uncertainty"]
    assert block["pair_nll"]["h"] < block["pair_nll"]["constant"]
    assert block["auroc_correct"]["margin_over_sigma"] > block["auroc_correct"]["margin"]
    assert block["gain_at_80"]["sigma"] > block["gain_at_80"]["random"] + 0.02
    assert block["gain_at_80"]["cover"] > block["gain_at_80"]["random"] + 0.02
    assert abs(block["gain_at_80"]["random"]) < 0.01
    assert block["auroc_own_region"]["mean"] > 0.95
    assert block["spearman_misorder"]["mean"] > 0
    assert found.metrics["pair_accuracy"]["clear"] > found.metrics["pair_accuracy"]["mean"]
    decisions = found.metrics["decisions"]
    assert decisions["error_at_80"]["confidence"] < decisions["error"]


def test_the_constants_to_beat_were_chosen_on_fit_and_on_select(found: Evaluation) -> None:
    _, trial, pairs, _ = world()
    block, own = found.metrics["uncertainty"], pairs["validation"]
    for key, split in (("constant", "fit"), ("constant_select", "select")):
        sigma = np.broadcast_to(best_constant_sigma(trial.y_hat, pairs[split]), trial.sigma.shape)
        values = pair_nll(trial.y_hat, sigma, own)
        assert block["pair_nll"][key] == pytest.approx(values.mean())
        assert block["pair_nll"]["per_au"]["AU12"][key] == pytest.approx(values[6])
    fit = np.broadcast_to(best_constant_sigma(trial.y_hat, pairs["fit"]), trial.sigma.shape)
    assert block["ece_constant"] == pytest.approx(ece_of_order(trial.y_hat, fit, own).mean())
    assert block["pair_nll"]["h"] == pytest.approx(pair_nll(trial.y_hat, trial.sigma, own).mean())


def test_a_sigma_that_knows_nothing_is_found_out(found: Evaluation) -> None:
    frames, trial, pairs, conditions = world()
    shuffled = trial.sigma.copy()
    shuffled[frames.ok] = np.random.default_rng(0).permutation(trial.sigma[frames.ok])
    block = evaluate(frames, [replace(trial, sigma=shuffled)], pairs, conditions, QUICK).metrics["uncertainty"]
    assert block["pair_nll"]["h"] > block["pair_nll"]["constant"]
    known = found.metrics["uncertainty"]["auroc_correct"]["margin_over_sigma"]
    assert block["auroc_correct"]["margin_over_sigma"] < known - 0.1
    assert abs(block["gain_at_80"]["sigma"]) < 0.02


def test_pair_accuracy_is_that_of_clear_validation_frames(found: Evaluation) -> None:
    frames, trial, _, conditions = world()
    validation = frames.of_split("validation")
    for key, subset in (
        ("mean", validation),
        ("clear", validation & (conditions.covered == 0) & (abs(conditions.yaw) < 0.3)),
    ):
        assert found.metrics["pair_accuracy"][key] == pytest.approx(pair_accuracy(trial.y_hat, frames, subset).mean())


def test_real_data_without_conditions_leaves_those_figures_empty() -> None:
    frames, trial, pairs, _ = world()
    metrics = evaluate(frames, [trial], pairs, None, QUICK).metrics
    assert metrics["pair_accuracy"]["clear"] is None
    assert metrics["uncertainty"]["gain_at_80"]["cover"] is None
    assert metrics["uncertainty"]["auroc_own_region"] == {"mean": None, "per_au": None}


def test_the_selection_survives_json_and_decides_alike(found: Evaluation, tmp_path: Path) -> None:
    store.write_json(tmp_path / "selection.json", found.selection)
    selection = Selection.from_json(store.read_json(tmp_path / "selection.json"))
    frames, trial, *_ = world()
    assert selection.trial == 3
    raw = selection.raw(trial.with_uncertainty, trial.without)
    np.testing.assert_array_equal(selection.decide(raw)[frames.ok], found.decisions[frames.ok])
    np.testing.assert_array_equal(selection.trust(raw, trial.sigma), found.confidence)
    for au in AUS:
        assert found.selection[au]["variant"] in ("P1", "P2")
        assert {"threshold", "with_uncertainty", "without", "probability_with_better"} <= set(found.selection[au])


def test_choices_do_not_see_validation() -> None:
    frames, trial, _, conditions = world()
    labels = frames.labels.copy()
    rows = np.flatnonzero(frames.of_split("validation"))
    labels[rows] = labels[np.random.default_rng(0).permutation(rows)]
    other = replace(frames, labels=labels)
    trees = [
        evaluate(f, [trial], {s: some(f, s) for s in SPLITS}, conditions, QUICK).selection for f in (frames, other)
    ]
    assert trees[0] == trees[1]


def test_the_papers_protocol_chooses_on_validation_and_is_marked() -> None:
    frames, trial, pairs, conditions = world()
    paper = evaluate(frames, [trial], pairs, conditions, Evaluate(bootstrap=50, protocol="paper"))
    ours = evaluate(frames, [trial], pairs, conditions, QUICK)
    ending = [e.rows[-1] for e in (paper, ours)]
    assert ending[0]["score"] > ending[1]["score"]
    marks = {r["name"]: r["chosen_on"] for r in paper.rows if r["split"] == "validation"}
    assert [marks[name] for name in ROWS] == [None, None, "fit", "validation", "validation", "validation"]
    assert (paper.metrics["protocol"], paper.selection["chosen_on"]) == ("paper", "validation")


def test_the_better_trial_is_chosen_and_the_result_is_repeatable() -> None:
    frames, trial, pairs, conditions = world()
    worse = replace(trial, number=0, with_uncertainty=-trial.with_uncertainty, without=-trial.without)
    once, again = (evaluate(frames, [worse, trial], pairs, conditions, QUICK) for _ in range(2))
    assert once.metrics["chosen_trial"] == 3
    assert [t["trial"] for t in once.metrics["trials"]] == [0, 3]
    assert store._plain(once.metrics) == store._plain(again.metrics)


def test_an_au_without_a_positive_is_said_and_never_called() -> None:
    frames, trial, _, conditions = world()
    labels = np.where(np.arange(A) == 4, np.minimum(frames.labels, 0), frames.labels).astype(np.int8)
    said: list[str] = []

    class Listening(Log):
        def line(self, text: str) -> None:
            said.append(text)

    bare = replace(frames, labels=labels)
    result = evaluate(bare, [trial], {s: some(bare, s) for s in SPLITS}, conditions, QUICK, Listening())
    assert [line.split(":")[0] for line in said] == list(SPLITS)
    assert all("AU7" in line for line in said)
    p2 = next(r for r in result.rows if (r["name"], r["split"]) == ("P2", "select"))
    assert (p2["per_au"]["AU7"]["f1"], p2["per_au"]["AU7"]["accuracy"]) == (0.0, 1.0)
    assert np.isfinite(result.metrics["uncertainty"]["pair_nll"]["h"])


def test_bad_input_is_refused_in_one_line() -> None:
    frames, trial, pairs, conditions = world()
    hole = trial.sigma.copy()
    row = int(np.flatnonzero(frames.ok)[60])
    hole[row, 2] = np.nan
    place = f"trial 3, sigma, video {frames.videos[frames.video[row]]}, frame {frames.frame[row]}"
    with pytest.raises(ArtifactError, match=place):
        evaluate(frames, [replace(trial, sigma=hole)], pairs, conditions, QUICK)
    with pytest.raises(ArtifactError, match="not of these frames: in trial 3, y_hat"):
        evaluate(frames, [replace(trial, y_hat=trial.y_hat[1:])], pairs, conditions, QUICK)
    bare = replace(frames, ok=frames.ok & ~frames.of_split("select"))
    with pytest.raises(DataError, match="nothing to judge by: in split select") as error:
        evaluate(bare, [trial], pairs, conditions, QUICK)
    assert "\n" not in str(error.value)


def write(found: Evaluation, folder: Path, note: str = "") -> None:
    """Write all reports into one folder."""
    pairs = [["AU", "fit", "select", "validation"], ["AU1", "500 of 1,234", "5 of 6", "0 of 0"]]
    places = Places(folder / "metrics.json", folder / "table.md", folder / "plots")
    write_reports(found, world()[0], places, pairs, note)


def test_reports_are_written_whole(found: Evaluation, tmp_path: Path) -> None:
    for _ in range(2):
        write(found, tmp_path / "reports", note="**Synthetic.**")
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == ["metrics.json", "plots", "table.md"]
    assert sorted(p.stem for p in (tmp_path / "reports" / "plots").iterdir()) == PLOTS
    for name in PLOTS:
        assert (tmp_path / "reports" / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    table = (tmp_path / "reports" / "table.md").read_text()
    assert "**Synthetic.**" in table
    p2 = next(r for r in metrics["rows"] if (r["name"], r["split"]) == ("P2", "validation"))
    assert f"{p2['score']:.3f}" in next(line for line in table.splitlines() if line.startswith("| P2"))
    assert "chosen on validation" not in table
    assert table.endswith("| AU1 | 500 of 1,234 | 5 of 6 | 0 of 0 |\n"), "the counts of pairs are the last table"
    assert all(f"| {au} " in table for au in AUS)
    assert terminal(found.metrics).row_count == len(ROWS)


def test_an_unwritable_folder_is_one_line(found: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AupairError, match="cannot write"):
        write(found, tmp_path / "file" / "reports")


def test_the_video_shown_is_the_one_with_most_to_see() -> None:
    frames, *_ = world()
    labels = frames.labels.copy()
    labels[(frames.video == 7) & (labels[:, 0] >= 0)] = 1  # always active: nothing to see
    labels[(frames.video == 6) & (labels[:, 0] >= 0), :8] = 0
    assert video_to_show(replace(frames, labels=labels)) == 8


def test_of_a_long_video_the_stretch_with_most_changes_is_shown() -> None:
    frames, trial, *_ = world(n=300)
    labels = np.zeros_like(frames.labels)
    labels[2600:2650:2] = 1
    slow = replace(frames, time=frames.frame / 2.5, labels=labels, ok=np.ones(len(frames), bool))
    arrays = (np.nan_to_num(trial.y_hat), np.nan_to_num(trial.sigma, nan=1), labels > 0)
    axis = timelines(slow, *arrays).axes[0]
    start, end = axis.get_xlim()
    assert start <= 80 < 99 <= end
    assert end - start < SECONDS + 2
