"""The exit task's result: every state that a server hands over, with every record of the last task."""

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aupair.kubeflow import server, summary
from aupair.kubeflow.pipeline_file import read_pipeline_file
from aupair.kubeflow.run_record import TaskState, read_run_record, record_task
from aupair.kubeflow.summary import decide_result, write_run_summary
from aupair.log import SILENT
from aupair.registry import live_logging, mlflow_store
from aupair.registry.runs import StageRun
from kfp_artifact import Artifact
from listener import Listener
from services.kfp_nodes import node
from services.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("clean_environment")

COMPLETE, FAILED, UNFINISHED, MISSING = TaskState
LAST = "register-model"
COUNTER = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a new store."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def run_id(clean_environment: None, store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let this process be a task of a new run of a pipeline, and return the run's id."""
    name = f"run-{next(COUNTER)}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("KFP_RUN_ID", name)
    return name


def log_stage(name: str, state: TaskState, trial: int | None = None) -> None:
    """Log a stage that ends in a state."""
    if state is MISSING:
        return
    stage = StageRun(name, trial)
    with suppress(ValueError), live_logging.log_while_running(stage, "aupair", lambda: stage):
        if state is not COMPLETE:
            raise ValueError("boom")
    if state is UNFINISHED:  # a process that is killed cannot end its run
        client = mlflow_store.open_mlflow()
        client.update_run(read_run_record(client).stages[stage_title(name, trial)][0].info.run_id, "RUNNING")


def stage_title(name: str, trial: int | None) -> str:
    """Return the title of a stage in the record."""
    return name if trial is None else f"{name} (trial {trial})"


def summarise(state: str, tmp_path: Path, run_id: str, last: str = LAST) -> str:
    """Return the summary's text."""
    page = Artifact(tmp_path / "summary")
    write_run_summary(state, last, run_id, page)
    return Path(page.path).read_text()


def parent_status() -> str:
    """Return the status of the run's parent in MLflow."""
    parent = read_run_record(mlflow_store.open_mlflow()).parent
    assert parent is not None
    return str(parent.info.status)


RESULTS = {
    COMPLETE: {"COMPLETE": "SUCCEEDED", "FAILED": "SUCCEEDED", "RUNNING": "SUCCEEDED", "SUCCEEDED": "SUCCEEDED"},
    FAILED: {"COMPLETE": "FAILED", "FAILED": "FAILED", "RUNNING": "FAILED", "SUCCEEDED": "FAILED"},
    UNFINISHED: {"COMPLETE": "FAILED", "FAILED": "FAILED", "RUNNING": "FAILED", "SUCCEEDED": "FAILED"},
    MISSING: {"COMPLETE": "STATE UNKNOWN", "FAILED": "FAILED", "RUNNING": "FAILED", "SUCCEEDED": "SUCCEEDED"},
    None: {"COMPLETE": "STATE UNKNOWN", "FAILED": "FAILED", "RUNNING": "STATE UNKNOWN", "SUCCEEDED": "SUCCEEDED"},
}
CASES = [(record, state, result) for record, results in RESULTS.items() for state, result in results.items()]


@pytest.mark.parametrize(("record", "state", "result"), CASES)
def test_a_run_is_good_only_if_a_record_of_its_last_task_says_so(
    record: TaskState | None, state: str, result: str
) -> None:
    assert decide_result(state, record, None) == result
    assert decide_result(state, None, record) == result
    assert decide_result(state, record, COMPLETE) == "SUCCEEDED"


@pytest.mark.parametrize(("record", "state"), [(r, s) for r in TaskState for s in ("COMPLETE", "FAILED", "RUNNING")])
def test_the_page_and_the_parent_run_say_the_same(tmp_path: Path, run_id: str, record: TaskState, state: str) -> None:
    log_stage("check-data", COMPLETE)
    log_stage(LAST, record)
    text = summarise(state, tmp_path, run_id)
    result = RESULTS[record][state]
    assert text.splitlines()[0] == f"# {result}"
    assert parent_status() == {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "STATE UNKNOWN": "RUNNING"}[result]
    line = {FAILED: f"* failed: {LAST}", UNFINISHED: f"* did not end: {LAST}"}.get(record)
    assert line is None or line in text.splitlines()
    if result == "STATE UNKNOWN":
        assert f"Kubeflow reports the state {state}, and there is no record of {LAST}." in text


def test_failed_and_killed_stages_are_named_with_their_trial(tmp_path: Path, run_id: str) -> None:
    for trial, state in enumerate((COMPLETE, FAILED, UNFINISHED)):
        log_stage("train-pseudo-intensity", state, trial)
    lines = summarise("RUNNING", tmp_path, run_id).splitlines()
    assert lines[0] == "# FAILED"
    assert "* failed: train-pseudo-intensity (trial 1)" in lines
    assert "* did not end: train-pseudo-intensity (trial 2)" in lines


def test_a_task_that_succeeded_at_its_second_try_is_good(tmp_path: Path, run_id: str) -> None:
    log_stage(LAST, UNFINISHED)
    log_stage(LAST, FAILED)
    log_stage(LAST, COMPLETE)
    text = summarise("FAILED", tmp_path, run_id)
    assert text.startswith("# SUCCEEDED")
    assert "failed" not in text


def test_without_an_id_of_the_run_nothing_is_claimed(tmp_path: Path) -> None:
    text = summarise("COMPLETE", tmp_path, "")
    assert text.startswith("# STATE UNKNOWN")
    assert "compile with `--set run_id=true`" in text


def test_a_store_that_does_not_answer_is_one_line(tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lines = summarise("RUNNING", tmp_path, run_id).splitlines()
    assert lines[0] == "# STATE UNKNOWN"
    assert any(line.startswith("* MLflow: the MLflow server does not answer") for line in lines)


class TestInAPod:
    """The server of the cluster can be asked, too."""

    @pytest.fixture(autouse=True)
    def pod(
        self, clean_environment: None, kfp: KfpServer, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setattr(server, "_POD_HOST", kfp.url)
        monkeypatch.setattr(summary, "_PAUSE_SECONDS", 0.0)
        kfp.runs["run-7"] = {
            "run_id": "run-7",
            "state": "RUNNING",
            "pipeline_spec": read_pipeline_file(files["plain"]).spec,
        }
        kfp.states = ["RUNNING"]

    def test_its_list_shows_that_the_last_task_succeeded(self, tmp_path: Path, kfp: KfpServer) -> None:
        kfp.nodes = [node("w", "root.exit-handler-1.gather-predictions", "SUCCEEDED")]
        assert summarise("RUNNING", tmp_path, "run-7", "gather-predictions").startswith("# SUCCEEDED")

    def test_it_names_the_failed_tasks_and_where_their_logs_are(self, tmp_path: Path, kfp: KfpServer) -> None:
        kfp.nodes = [node("w", "root.exit-handler-1.plan-shards", "FAILED")]
        lines = summarise("RUNNING", tmp_path, "run-7", "gather-predictions").splitlines()
        assert lines[0] == "# FAILED"
        assert "* failed tasks according to Kubeflow: plan-shards" in lines
        assert any("aupair pipeline logs run-7" in line and "pipeline/runid=run-7" in line for line in lines)

    def test_it_is_asked_again_until_its_list_is_up_to_date(self, tmp_path: Path, kfp: KfpServer) -> None:
        answers = iter(["PENDING", "RUNNING", "SUCCEEDED"])
        original = kfp._run

        def run(run_id: str) -> dict[str, Any]:
            kfp.nodes = [node("w", "root.exit-handler-1.gather-predictions", next(answers))]
            return original(run_id)

        kfp._run = run  # type: ignore[method-assign]
        assert summarise("COMPLETE", tmp_path, "run-7", "gather-predictions").startswith("# SUCCEEDED")

    def test_a_list_that_stays_behind_proves_nothing(self, tmp_path: Path, kfp: KfpServer) -> None:
        kfp.nodes = [node("w", "root.exit-handler-1.gather-predictions", "RUNNING"), node("w", "summarise", "RUNNING")]
        text = summarise("RUNNING", tmp_path, "run-7", "gather-predictions")
        assert text.startswith("# STATE UNKNOWN")
        assert "* Kubeflow's API: its list of tasks is not up to date" in text

    @pytest.mark.parametrize("state", ["COMPLETE", "RUNNING"])
    def test_a_list_that_stops_before_the_last_task_proves_nothing(
        self, tmp_path: Path, kfp: KfpServer, state: str
    ) -> None:
        """A real server's list stops where the run's state grows over 1 MiB, with all tasks in it ended."""
        kfp.nodes = [node("w", "root.exit-handler-1.plan-shards", "SUCCEEDED")]
        text = summarise(state, tmp_path, "run-7", "gather-predictions")
        assert text.startswith("# STATE UNKNOWN")
        assert "* Kubeflow's API: its list of tasks does not show gather-predictions" in text

    def test_a_last_task_that_never_began_is_a_failure(self, tmp_path: Path, kfp: KfpServer) -> None:
        kfp.nodes = [node("w", "a.plan-shards-driver", "FAILED"), node("w", "a.gather-predictions", "")]
        lines = summarise("RUNNING", tmp_path, "run-7", "gather-predictions").splitlines()
        assert lines[0] == "# FAILED"
        assert "* failed tasks according to Kubeflow: plan-shards-driver" in lines

    def test_a_run_that_somebody_stopped_is_neither_good_nor_bad(
        self, tmp_path: Path, run_id: str, kfp: KfpServer
    ) -> None:
        log_stage("check-data", UNFINISHED)
        kfp.states = ["CANCELING"]
        assert summarise("RUNNING", tmp_path, "run-7").startswith("# CANCELED")
        assert parent_status() == "KILLED"

    def test_its_refusal_is_one_line(self, tmp_path: Path, kfp: KfpServer) -> None:
        kfp.token = "another"
        lines = summarise("RUNNING", tmp_path, "run-7").splitlines()
        assert lines[0] == "# STATE UNKNOWN"
        assert any(line.startswith("* Kubeflow's API: the server does not accept") for line in lines)

    def test_it_is_not_asked_where_mlflow_knows(self, tmp_path: Path, run_id: str, kfp: KfpServer) -> None:
        log_stage(LAST, COMPLETE)
        assert summarise("RUNNING", tmp_path, "run-7").startswith("# SUCCEEDED")
        assert not kfp.requests


def test_a_task_outside_the_flow_is_recorded_on_a_server_only(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with record_task("gather-predictions", SILENT):
        pass
    assert read_run_record(mlflow_store.open_mlflow(create=True)).state("gather-predictions") is MISSING
    monkeypatch.setattr(mlflow_store, "sqlite_path", lambda uri: None)
    with record_task("gather-predictions", SILENT):
        pass
    with pytest.raises(ValueError, match="boom"), record_task("other", SILENT):
        raise ValueError("boom")
    record = read_run_record(mlflow_store.open_mlflow())
    assert record.states() == {"gather-predictions": COMPLETE, "other": FAILED}


def test_a_task_outside_the_flow_runs_without_mlflow(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    log, done = Listener(), []
    with record_task("gather-predictions", log):
        done.append(True)
    assert done
    assert "the end of gather-predictions is not recorded" in log.lines[-1]
