"""A stage logs itself while it runs in a pipeline; what it could not log, register-model adds."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aupair.errors import RegistryError
from aupair.registry import live_logging, mlflow_store
from aupair.registry.runs import StageRun, log_flow
from listener import Listener

STAGE = StageRun("train-mapping", 1, {"epochs": 2})


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return mlflow_store.open_mlflow(create=True)


def runs(client: Any) -> dict[str, Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.data.tags.get("stage", "?"): run for run in client.search_runs(experiments)}


@pytest.mark.usefixtures("client")
def test_without_a_pipeline_no_task_is_live() -> None:
    assert not live_logging.runs_in_pipeline()


def test_values_are_there_while_the_stage_runs(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    done = StageRun("train-mapping", 1, metrics={"done": 1})
    with live_logging.log_while_running(STAGE, "test", lambda: done) as log:
        log.metrics(3, **{"f.final.loss": 0.5})
        logged = runs(client)["train-mapping"]
        assert (logged.info.status, logged.data.metrics["f.final/loss"]) == ("RUNNING", 0.5)
    logged = runs(client)
    tags = logged["train-mapping"].data.tags
    assert (logged["train-mapping"].info.status, logged["train-mapping"].data.metrics["done"]) == ("FINISHED", 1)
    assert (tags["flow_id"], tags["pipeline_run_id"], tags["trial"], tags["logged"]) == ("k1", "k1", "1", "yes")
    assert tags["mlflow.parentRunId"] == logged["flow"].info.run_id
    assert logged["flow"].info.status == "RUNNING", "the pipeline continues"


def test_two_stages_have_one_parent_and_a_named_experiment(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    for name in ("evaluate", "check-data"):
        with live_logging.log_while_running(StageRun(name), "test", lambda: STAGE):
            pass
    logged = runs(client)
    assert {logged[name].data.tags["mlflow.parentRunId"] for name in ("evaluate", "check-data")} == {
        logged["flow"].info.run_id
    }
    assert client.get_experiment(logged["flow"].info.experiment_id).name == "named"


def test_a_stage_that_fails_has_a_failed_run(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    with pytest.raises(ZeroDivisionError), live_logging.log_while_running(STAGE, "test", lambda: STAGE):
        1 / 0  # noqa: B018
    assert runs(client)["train-mapping"].info.status == "FAILED"


@pytest.fixture
def task_run(client: Any) -> Callable[[str], str]:
    """Return a function that creates the runs of KFP's MLflow plugin (2.17.0) for a task, and returns the task's.

    The API server creates one for the pipeline's run; a driver one for the exit handler, for the loop and for each task,
    the id of which is MLFLOW_RUN_ID in the task's container.
    """
    experiment = client.create_experiment("the server's")

    def create(name: str, parent: str = "") -> str:
        tags = {"mlflow.parentRunId": parent} if parent else {"kfp.pipeline_run_id": "k1"}
        return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)

    flow = create("nightly")
    handler = create("exit-handler-1", flow)
    loop = create("for-loop-1", handler)
    above = {"summarise": flow, "evaluate": handler, "train-mapping": loop}
    return lambda name: create(name, above[name])


def launcher_ends(client: Any, run_id: str, metrics: dict[str, float], inputs: dict[str, Any]) -> None:
    """Log what the launcher of KFP 2.17.0 logs at a task's end, and end its run."""
    from mlflow.entities import Metric, Param

    params = [Param(key, json.dumps(value)) for key, value in inputs.items()]
    client.log_batch(run_id, [Metric(key, value, 0, 0) for key, value in metrics.items()], params)
    client.set_terminated(run_id, "FINISHED")


def test_nothing_is_logged_twice_beside_the_server(
    client: Any, task_run: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curve = tmp_path / "curves.jsonl"
    curve.write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0}\n')
    task = task_run("train-mapping")
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    result = StageRun("train-mapping", 1, {"epochs": 2}, (curve,))
    with live_logging.log_while_running(STAGE, "test", lambda: result) as log:
        log.metrics(1, loss=2.0)
        log.metrics(2, loss=1.0)
    assert client.get_run(task).info.status == "RUNNING", "the server ends its own runs"
    launcher_ends(client, task, {"loss": 1.0}, {"train_mapping": {"epochs": 2}, "trial": 1})
    ours = runs(client)["train-mapping"]
    assert ours.data.tags["mlflow.parentRunId"] == task
    assert (ours.info.status, ours.data.params) == ("FINISHED", {"epochs": "2"})
    assert [(m.step, m.value) for m in client.get_metric_history(ours.info.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert [(m.step, m.value) for m in client.get_metric_history(task, "loss")] == [(0, 1.0)], "the server's alone"
    assert client.get_experiment_by_name("test") is None
    assert live_logging.current_experiment_id(client, "test") == ours.info.experiment_id


def test_all_tasks_of_the_server_are_one_flow(
    client: Any, task_run: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks in a loop, in the exit handler's group and outside of it have parents of different kinds."""
    flows = set()
    for name in ("train-mapping", "evaluate", "summarise"):
        monkeypatch.setenv("MLFLOW_RUN_ID", task_run(name))
        with live_logging.log_while_running(StageRun(name), "test", lambda name=name: StageRun(name)):
            flows.add(live_logging.current_flow_id(client))
    logged = runs(client)
    assert flows == {logged["flow"].info.run_id}
    assert {logged[name].data.tags["flow_id"] for name in ("train-mapping", "evaluate", "summarise")} == flows
    assert logged["flow"].info.run_name == "nightly"


def test_a_stage_that_starts_again_goes_on_in_its_run(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a pod that takes over from one that was lost, and whose training goes on from a checkpoint."""
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    with suppress(KeyboardInterrupt), live_logging.log_while_running(STAGE, "test", lambda: STAGE) as log:
        log.metrics(1, **{"fold 0.loss (x)": 3.0})
        log.metrics(2, **{"fold 0.loss (x)": 2.0})
        raise KeyboardInterrupt
    with live_logging.log_while_running(STAGE, "test", lambda: STAGE) as log:
        assert runs(client)["train-mapping"].info.status == "RUNNING"
        log.metrics(2, **{"fold 0.loss (x)": 2.0})
        log.metrics(3, **{"fold 0.loss (x)": 1.0})
    assert len(client.search_runs([live_logging.current_experiment_id(client, "test")])) == 2, "the flow and the stage"
    run_id = runs(client)["train-mapping"].info.run_id
    assert [point.step for point in client.get_metric_history(run_id, "fold 0/loss _x_")] == [1, 2, 3]


def test_a_store_that_goes_away_costs_a_line_and_not_the_stage(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    listener = Listener()
    with live_logging.log_while_running(STAGE, "test", lambda: STAGE, listener) as log:
        (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
        (tmp_path / "mlflow.db").write_text("")
        for step in range(3):
            log.metrics(step, loss=1.0)
    assert len(listener.lines) == 1, "one line"
    assert "register-model will" in listener.lines[0]
    (tmp_path / "away.db").replace(tmp_path / "mlflow.db")
    assert "logged" not in runs(client)["train-mapping"].data.tags


def test_a_store_that_cannot_be_reached_stops_the_stage_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with (
        pytest.raises(RegistryError, match="does not answer"),
        live_logging.log_while_running(STAGE, "test", lambda: STAGE),
    ):
        pytest.fail("the stage must not begin")


def test_register_model_adds_what_is_missing_and_leaves_the_rest(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "k1")
    scored = StageRun("evaluate", metrics={"score": 1})
    with live_logging.log_while_running(StageRun("evaluate"), "test", lambda: scored):
        pass
    with pytest.raises(KeyboardInterrupt), live_logging.log_while_running(STAGE, "test", lambda: STAGE):
        raise KeyboardInterrupt
    flow = live_logging.open_pipeline_flow(client, "test")
    rest = [StageRun("evaluate", metrics={"score": 2}), STAGE, StageRun("check-data", params={"few_positives": 5})]
    whole = StageRun("flow", metrics={"score": 1}, tags={"data.md5": "d"})
    log_flow(client, flow, whole, rest)
    logged = runs(client)
    assert logged["evaluate"].data.metrics["score"] == 1, "it was whole"
    assert (logged["train-mapping"].info.status, logged["train-mapping"].data.tags["logged"]) == ("FINISHED", "yes")
    assert logged["check-data"].data.params == {"few_positives": "5"}
    assert len(client.search_runs([flow.experiment_id])) == 4, "no run twice"
    assert logged["flow"].data.tags["data.md5"] == "d"
