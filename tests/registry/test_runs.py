"""A flow as MLflow runs."""

import json
from pathlib import Path

import pytest

from aupair.errors import RegistryError
from aupair.registry import mlflow_store
from aupair.registry.runs import (
    FlowRun,
    StageRun,
    curve_points,
    end_run,
    finite_numbers,
    flatten,
    get_or_create_run,
    hash_flow,
    log_flow,
)


def test_rows_go_by_name_and_split() -> None:
    tree = {"rows": [{"name": "P1", "split": "select", "f1": 0.5}], "a": {"b": [1, 2]}}
    assert flatten(tree) == {
        "rows.P1.select.name": "P1",
        "rows.P1.select.split": "select",
        "rows.P1.select.f1": 0.5,
        "a.b": [1, 2],
    }


def test_only_finite_numbers_are_metrics_and_intervals_have_two() -> None:
    tree = {"a": 1, "b": True, "c": None, "d": float("nan"), "e": "x", "f": [0.1, 0.2], "g": [1, 2, 3]}
    assert finite_numbers(tree) == {"a": 1.0, "f.low": 0.1, "f.high": 0.2}


def test_curves_keep_their_step_and_their_network() -> None:
    rows = [{"network": "fold0", "step": 5, "loss": 1.0}, {"epoch": 3, "a": 2, "loss": None}, {"b": 1}]
    assert list(curve_points(rows)) == [("fold0/loss", 1.0, 5), ("a", 2.0, 3), ("b", 1.0, 2)]


def test_the_id_depends_on_every_part_and_on_where_it_ends() -> None:
    assert hash_flow("a", "b") == hash_flow("a", "b")
    assert len({hash_flow("a", "b"), hash_flow("ab", ""), hash_flow("a", "c")}) == 3


def test_an_interrupted_run_is_completed_and_a_finished_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow_store.open_mlflow(create=True)
    curves = tmp_path / "curves.jsonl"
    curves.write_text("".join(json.dumps({"step": step, "loss": step / 2}) + "\n" for step in range(1500)))
    stages = [StageRun("train-mapping", 0, curves=(curves,)), StageRun("evaluate", artifacts=(tmp_path / "table.md",))]
    experiment = mlflow_store.get_or_create_experiment(client, "test")
    whole = StageRun("flow", params={"long": "x" * 9000})
    flow = FlowRun(experiment, "f1", get_or_create_run(client, experiment, "f1", whole))
    with pytest.raises(RegistryError, match="a report is missing"):
        log_flow(client, flow, whole, stages)
    (tmp_path / "table.md").write_text("now")
    for _ in range(2):
        log_flow(client, flow, whole, stages)
        end_run(client, flow.parent_id)

    runs = client.search_runs([experiment])
    assert sorted((run.data.tags["stage"], run.info.status) for run in runs) == [
        ("evaluate", "FINISHED"), ("flow", "FINISHED"), ("train-mapping", "FINISHED"),
    ]  # fmt: skip
    for run in runs:
        tags = run.data.tags
        assert (tags["flow_id"], tags["au"], "pipeline_run_id" in tags) == ("f1", "all", False)
        assert tags.get("mlflow.parentRunId") == (None if tags["stage"] == "flow" else flow.parent_id)
    mapping = next(run for run in runs if run.data.tags["stage"] == "train-mapping")
    assert len(client.get_metric_history(mapping.info.run_id, "loss")) == 1500


def test_a_pipelines_run_id_is_on_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow_store.open_mlflow(create=True)
    monkeypatch.setenv("KFP_RUN_ID", "r7")
    experiment = mlflow_store.get_or_create_experiment(client, "test")
    parent = get_or_create_run(client, experiment, "f1", StageRun("flow"))
    log_flow(client, FlowRun(experiment, "f1", parent), StageRun("flow"), [StageRun("evaluate")])
    runs = client.search_runs([experiment])
    assert [(run.data.tags["flow_id"], run.data.tags["pipeline_run_id"]) for run in runs] == [("f1", "r7")] * 2
