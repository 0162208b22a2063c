"""A stage logs itself while it runs in a pipeline; what it could not log, register-model adds."""

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


def test_without_a_pipeline_nothing_is_live(client: Any) -> None:
    assert not live_logging.runs_in_pipeline()
    assert live_logging.current_flow_id(client, "of the params") == "of the params"


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
    assert logged["flow"].info.status == "RUNNING", "the pipeline goes on"


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


def test_the_servers_own_run_is_used_and_left_to_the_server(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As KEP-12862 has it: a parent for the pipeline's run, and a nested one for the task in MLFLOW_RUN_ID."""
    experiment = client.create_experiment("the server's")
    parent = client.create_run(experiment).info.run_id
    nested = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", nested)
    with live_logging.log_while_running(STAGE, "test", lambda: STAGE) as log:
        log.metrics(1, loss=2.0)
    logged = client.get_run(nested)
    assert (logged.info.status, logged.data.metrics["loss"], logged.data.params["epochs"]) == ("RUNNING", 2.0, "2")
    assert logged.data.tags["flow_id"] == parent, "no id of the pipeline's: the parent's"
    assert client.get_run(parent).data.tags["stage"] == "flow"
    assert client.get_experiment_by_name("test") is None
    assert live_logging.current_experiment(client, "test") == experiment


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
    experiment = live_logging.current_experiment(client, "test")
    parent = live_logging.get_or_create_parent_run(client, experiment, "k1")
    rest = [StageRun("evaluate", metrics={"score": 2}), STAGE, StageRun("check-data", params={"few_positives": 5})]
    whole = StageRun("flow", metrics={"score": 1}, tags={"data.md5": "d"}, run_id=parent)
    assert log_flow(client, experiment, "k1", whole, rest) == parent
    logged = runs(client)
    assert logged["evaluate"].data.metrics["score"] == 1, "it was whole"
    assert (logged["train-mapping"].info.status, logged["train-mapping"].data.tags["logged"]) == ("FINISHED", "yes")
    assert logged["check-data"].data.params == {"few_positives": "5"}
    assert len(client.search_runs([experiment])) == 4, "no run twice"
    assert logged["flow"].data.tags["data.md5"] == "d"
