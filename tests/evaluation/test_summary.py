"""The main figures of an evaluation, and the files of an older version."""

import json
from pathlib import Path

import pytest

from aupair import store
from aupair.errors import ArtifactError
from aupair.evaluation.evaluate import Evaluation, evaluate_flow
from aupair.evaluation.summary import read_metrics, summarise
from conftest import Command
from evaluation.worlds import QUICK, world


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    frames, outputs, pairs, conditions = world()
    return evaluate_flow(frames, outputs, pairs, conditions, QUICK)


def test_a_summary_is_flat_and_has_the_figures_of_the_rows_that_decide(evaluation: Evaluation) -> None:
    metrics, summary = evaluation.metrics, summarise(evaluation.metrics)
    assert 13 <= len(summary) <= 18
    assert all(isinstance(value, float) for value in summary.values())
    rows = {(row["name"], row["split"]): row for row in metrics["rows"]}
    for name, suffix in (("P2", ""), ("P1", "_p1"), ("no-uncertainty", "_no_uncertainty")):
        for figure in ("f1", "accuracy", "score"):
            assert summary[f"{figure}{suffix}"] == rows[name, "validation"][figure]
    assert summary["f1_select"] == rows["P2", "select"]["f1"] != summary["f1"]
    assert summary["pair_nll"] == metrics["uncertainty"]["pair_nll"]["h"] != summary["pair_nll_constant"]
    assert summary["coverage_at_80"] == pytest.approx(0.8, abs=0.15)


def test_draws_are_not_among_the_metrics(evaluation: Evaluation) -> None:
    assert "draws" not in json.dumps(list(_keys(evaluation.metrics)))
    assert {len(row["draws"]) for row in evaluation.draws["people"]["rows"].values()} == {QUICK.bootstrap}
    assert {len(gain) for gain in evaluation.draws["gains"].values()} == {QUICK.bootstrap}


def _keys(tree: object) -> set[str]:
    if isinstance(tree, dict):
        return set(tree) | {key for child in tree.values() for key in _keys(child)}
    return {key for child in tree for key in _keys(child)} if isinstance(tree, list) else set()


@pytest.mark.parametrize("content", [[], {"rows": [], "frames": {}}, 3])
def test_metrics_of_an_older_version_are_one_line(content: object, tmp_path: Path, aupair: Command) -> None:
    store.write_json(tmp_path / "reports" / "metrics.json", content)
    with pytest.raises(ArtifactError):
        read_metrics(tmp_path / "reports" / "metrics.json")
    line = aupair("report", "--root", tmp_path).line
    assert line.startswith("not the metrics of this version of aupair: in ")
    assert "decisions" in line
    assert line.endswith("; run evaluate again")
