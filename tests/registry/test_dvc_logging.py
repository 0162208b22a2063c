"""The stages that DVC runs log themselves: which flow they belong to, how its run ends, and what a restart does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aupair import stages, store
from aupair.errors import Stopped
from aupair.params import Params, parse_params
from aupair.registry import dvc_logging, mlflow_store
from aupair.registry.dvc_logging import describe_parent, log_dvc_stage, open_flow
from aupair.registry.runs import CACHED, StageRun, end_run, log_flow
from listener import Listener

DATA = "83e181c8c4bc4dd2c0c8cc151e2fd7e8.dir"
RunStage = Callable[..., Listener]
DEFAULTS = Params()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("KFP_RUN_ID", "MLFLOW_RUN_ID", "DVC_EXP_NAME", dvc_logging.OFF, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_STAGE", "check-data")
    monkeypatch.chdir(tmp_path)
    track(DATA)
    return mlflow_store.open_mlflow(create=True)


@pytest.fixture
def run_stage() -> RunStage:
    """Return a function that runs a stage as DVC does, and fails with `error` if there is one."""

    def call(name: str, params: Params = DEFAULTS, error: type[BaseException] | None = None) -> Listener:
        listener, stage = Listener(), stages.get_stage(name)
        with log_dvc_stage(stage, params, Path(), 0 if stage.per_trial else None, listener) as log:
            if error:
                raise error
            store.write_json(Path("work") / "data.json", {"md5": DATA})
            if stage.name.startswith("train"):
                for artifact in ("f", "mapping"):
                    for place in (Path("work") / artifact, Path("work") / artifact / "0"):
                        place.mkdir(parents=True, exist_ok=True)
                        (place / "curves.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
                log.metrics(1, loss=0.5)
        return listener

    return call


def track(md5: str) -> None:
    Path("data.dvc").write_text(f"outs:\n- md5: {md5}\n  path: data\n")


def finish(client: Any, params: Params = DEFAULTS) -> None:
    """End the flow as register-model does."""
    flow = open_flow(client, experiment(client), describe_parent(params))
    log_flow(client, flow, StageRun("flow"), [StageRun("check-data"), StageRun("sample-pairs")], cached=True)
    end_run(client, flow.parent_id)


def experiment(client: Any) -> str:
    return str(client.get_experiment_by_name("aupair").experiment_id)


def parents(client: Any) -> list[Any]:
    """Return the parent runs, oldest first."""
    return list(client.search_runs([experiment(client)], "tags.stage = 'flow'", order_by=["attributes.start_time ASC"]))


def children(client: Any, parent: Any) -> dict[str, Any]:
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return {run.data.tags["stage"]: run for run in client.search_runs([experiment(client)], query)}


def test_stages_of_one_flow_have_one_parent_with_its_settings(client: Any, run_stage: RunStage) -> None:
    run_stage("check-data")
    run_stage("train-pseudo-intensity")
    (parent,) = parents(client)
    assert parent.info.status == "RUNNING", "register-model has not ended it"
    assert parent.data.params["train_mapping.epochs"] == str(Params().train_mapping.epochs)
    logged = children(client, parent)
    assert {run.info.status for run in logged.values()} == {"FINISHED"}
    assert logged["train-pseudo-intensity"].data.metrics == {"loss": 0.5}
    finish(client)
    (parent,) = parents(client)
    assert parent.info.status == "FINISHED"


def test_a_run_is_named_after_data_and_settings_and_knows_its_origin(
    client: Any, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPAIR_GIT_COMMIT", "abc-dirty")
    monkeypatch.setenv("DVC_EXP_NAME", "urban-sial")
    run_stage("check-data", parse_params({"trials": [0, 1]}))
    (parent,) = parents(client)
    assert re.match("urban-sial · params [0-9a-f]{4} · data 83e181 · pairs, ", parent.info.run_name)
    assert "2 trials" in parent.info.run_name
    tags = parent.data.tags
    assert (tags["mlflow.source.name"], tags["mlflow.source.git.commit"]) == ("dvc repro", "abc-dirty")
    assert tags["mlflow.user"]
    child = children(client, parent)["check-data"].data.tags
    assert {key: child[key] for key in ("mlflow.user", "mlflow.source.name", "mlflow.source.git.commit")} == {
        key: tags[key] for key in ("mlflow.user", "mlflow.source.name", "mlflow.source.git.commit")
    }


@pytest.mark.parametrize("change", ["params", "data", "experiment"])
def test_another_flow_has_another_parent(
    client: Any, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run_stage("check-data")
    if change == "data":
        track("other.dir")
    if change == "experiment":
        monkeypatch.setenv("DVC_EXP_NAME", "urban-sial")
    run_stage("check-data", parse_params({"seed": 1} if change == "params" else {}))
    assert len({parent.info.run_name for parent in parents(client)}) == 2
    assert [len(children(client, parent)) for parent in parents(client)] == [1, 1]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Stopped("stopped"), "KILLED")]
)
def test_a_stage_that_fails_ends_the_flow_and_the_next_run_takes_it_up(
    client: Any, run_stage: RunStage, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)):
        run_stage("train-pseudo-intensity", error=error)
    (parent,) = parents(client)
    assert parent.info.status == children(client, parent)["train-pseudo-intensity"].info.status == status
    run_stage("train-pseudo-intensity")
    (parent,) = parents(client)
    assert parent.info.status == "RUNNING"
    assert children(client, parent)["train-pseudo-intensity"].info.status == "FINISHED"


def test_a_finished_flow_that_runs_again_has_a_new_parent(client: Any, run_stage: RunStage) -> None:
    """As by `dvc repro --force`: DVC runs no stage of a finished flow otherwise."""
    run_stage("check-data")
    finish(client)
    run_stage("check-data")
    first, second = parents(client)
    assert (first.info.status, second.info.status) == ("FINISHED", "RUNNING")
    assert len(children(client, first)) == 2
    assert len(children(client, second)) == 1


def test_a_stage_that_did_not_run_is_marked_as_cached(client: Any, run_stage: RunStage) -> None:
    run_stage("check-data")
    finish(client)
    logged = children(client, parents(client)[0])
    assert CACHED not in logged["check-data"].data.tags
    assert (logged["sample-pairs"].data.tags[CACHED], logged["sample-pairs"].info.run_name) == (
        "yes",
        "sample-pairs (cached)",
    )


def test_a_stage_that_runs_once_more_replaces_its_run(client: Any, run_stage: RunStage) -> None:
    run_stage("check-data")
    before = children(client, parents(client)[0])["check-data"].info.run_id
    run_stage("check-data")
    (after,) = children(client, parents(client)[0]).values()
    assert after.info.run_id != before


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/mlflow.db"])
def test_a_store_that_cannot_be_reached_is_one_line_and_the_stage_runs(
    client: Any, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (line,) = run_stage("train-mapping").lines
    assert "train-mapping runs, and register-model will log it" in line
    assert "\n" not in line


@pytest.mark.parametrize("variable", [dvc_logging.OFF, "LOCAL_RANK"])
def test_a_variant_and_a_process_of_torchrun_log_nothing(
    client: Any, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "off")
    run_stage("train-pseudo-intensity")
    assert client.get_experiment_by_name("aupair") is None
