"""The exit handler of both pipelines: a page with the run's result, its score table and links, also after a failure.

The state that a server passes to the exit task is COMPLETE, FAILED or RUNNING, and both successful and killed runs may be
reported as RUNNING. The result is therefore determined from the record of the last task in MLflow, or else from the server's
list of tasks.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aupair import store
from aupair.errors import AupairError, scrub
from aupair.kubeflow.run_record import RunRecord, TaskState, read_run_record
from aupair.kubeflow.run_status import kubectl_logs
from aupair.kubeflow.run_tasks import FINISHED, OMITTED, failed_tasks, get_run, list_tasks
from aupair.kubeflow.server import Connection, pod_namespace, server_of_this_pod
from aupair.kubeflow.step import KfpArtifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LIST_ATTEMPTS = 6
_PAUSE_SECONDS = 5.0
"""Seconds between two attempts, since the server's list of tasks lags some seconds behind the pods."""

SUCCEEDED, FAILED, CANCELED, UNKNOWN = "SUCCEEDED", "FAILED", "CANCELED", "STATE UNKNOWN"
_MLFLOW_STATUS = {SUCCEEDED: "FINISHED", FAILED: "FAILED", CANCELED: "KILLED"}
_TASK_STATES = {"SUCCEEDED": TaskState.COMPLETE, "FAILED": TaskState.FAILED}


@dataclass(frozen=True)
class _ServerRecord:
    """The Kubeflow server's view of the run.

    Attributes:
        state: the state of the last task; None if the server could not be asked, or its list is not complete.
        failed: names of the tasks that failed.
        canceled: whether the run was stopped by a user.
        problem: why the server could not be asked.
    """

    state: TaskState | None = None
    failed: tuple[str, ...] = ()
    canceled: bool = False
    problem: str = ""


def write_run_summary(state: str, last_task: str, run_id: str, summary: KfpArtifact) -> None:
    """Write and print a run's summary, and end its parent run in MLflow.

    If MLflow or the server does not answer, the summary reports this, and the task succeeds nevertheless.

    Args:
        state: the run's state as the server passes it to the exit task: COMPLETE, FAILED, RUNNING; in a local run
            SUCCEEDED or FAILED.
        last_task: the task whose success determines the success of the run.
        run_id: Kubeflow's id of the run.
    """
    problems, record, lines = [], None, list[str]()
    try:
        record = _read_mlflow()
    except AupairError as problem:
        problems.append(f"* MLflow: {problem}")
    recorded = record.state(last_task) if record else None
    server = _ServerRecord() if recorded is TaskState.COMPLETE else _ask_server(run_id, last_task)
    result = CANCELED if server.canceled else decide_result(state, recorded, server.state)
    if record:
        try:
            _end_parent_run(record, result)
            lines = _record_lines(record)
        except AupairError as problem:
            problems.append(f"* MLflow: {problem}")
    elif result == SUCCEEDED:
        problems = []  # a prediction without an MLflow server has no record
    if result == UNKNOWN:
        problems.insert(
            0,
            f"Kubeflow reports {f'the state {state}' if state else 'no state'}, and there is no record of {last_task}.\n",
        )
    problems += [f"* failed tasks according to Kubeflow: {', '.join(server.failed)}"] if server.failed else []
    problems += [f"* Kubeflow's API: {server.problem}"] if server.problem else []
    if result != SUCCEEDED and server_of_this_pod():
        problems.append(f"* logs: `aupair pipeline logs {run_id}`, or `{kubectl_logs(run_id, pod_namespace())}`")
    text = "\n".join([f"# {result}", "", *problems, *lines]) + "\n"
    print(text)
    store.write_text(Path(summary.path), text)


def decide_result(state: str, recorded: TaskState | None, listed: TaskState | None) -> str:
    """Return the result of a run.

    Args:
        state: the run's state as the server passes it to the exit task.
        recorded: the state of the last task according to MLflow; None if MLflow has no record of this run's tasks.
        listed: the state of the last task according to the server's list; None if it is unknown.
    """
    records = (recorded, listed)
    if TaskState.COMPLETE in records:
        return SUCCEEDED
    if state == "FAILED" or TaskState.FAILED in records or TaskState.UNFINISHED in records:
        return FAILED
    if state in (SUCCEEDED, CANCELED):  # only the local runner reports SUCCEEDED, and it is reliable
        return state
    if state == "RUNNING" and TaskState.MISSING in records:
        return FAILED
    return UNKNOWN


def _read_mlflow() -> RunRecord:
    """Return MLflow's record of the run.

    Raises:
        AupairError: there is no record, or MLflow does not answer.
    """
    from aupair.registry import live_logging, mlflow_store

    if not live_logging.runs_in_pipeline():
        what = "the run's id is unknown, so only register-model logs to MLflow"
        raise AupairError(what, todo="compile with `--set run_id=true`")
    record = read_run_record(mlflow_store.open_mlflow())
    if not record.stages and mlflow_store.sqlite_path(mlflow_store.tracking_uri()) is not None:
        raise AupairError(f"no task of `{record.flow}` was logged")  # predict runs without an MLflow server
    return record


def _ask_server(run_id: str, last_task: str) -> _ServerRecord:
    """Return the server's view of the run, once its list shows every other task as ended."""
    server = server_of_this_pod()
    if server is None:
        return _ServerRecord()
    try:
        connection = Connection(server)
        for attempt in range(_LIST_ATTEMPTS):
            time.sleep(_PAUSE_SECONDS if attempt else 0)
            run = get_run(connection, run_id)
            tasks = [task for task in list_tasks(run) if task.name != "summarise"]
            current = all(task.state in (*FINISHED, OMITTED) for task in tasks)
            if current:
                break
    except AupairError as error:
        return _ServerRecord(problem=str(error))
    failed, canceled = tuple(failed_tasks(run)), run.state in ("CANCELING", "CANCELED")
    if not current:
        return _ServerRecord(None, failed, canceled, "its list of tasks is not up to date")
    states = {task.state for task in tasks if task.name == last_task}
    if not states and not failed:  # the list of a run whose state has grown over 1 MiB stops there, see `is_cut_off`
        return _ServerRecord(None, failed, canceled, f"its list of tasks does not show {last_task}")
    state = next((_TASK_STATES[name] for name in _TASK_STATES if name in states), TaskState.MISSING)
    return _ServerRecord(state, failed, canceled)


def _record_lines(record: RunRecord) -> list[str]:
    """Return the lines about the logged stages and the scores."""
    from aupair.registry import mlflow_store

    client, parent, states = mlflow_store.open_mlflow(), record.parent, record.states()
    lines = [f"* run: `{record.flow}`", f"* stages logged: {sum(map(len, record.stages.values()))}"]
    for state in (TaskState.FAILED, TaskState.UNFINISHED):
        titles = sorted(title for title, value in states.items() if value is state)
        lines += [f"* {state.value}: {', '.join(titles)}"] if titles else []
    with mlflow_store.mlflow_errors("the run's summary"):
        if parent is not None:
            lines += [f"* data: `{parent.data.tags['data.md5']}`"] if "data.md5" in parent.data.tags else []
            lines.append(f"* MLflow: {_mlflow_link(scrub(mlflow_store.tracking_uri()), parent)}")
        if "evaluate" in states:
            lines += _score_table(client, record.complete_run("evaluate"))
    return lines


def _end_parent_run(record: RunRecord, result: str) -> None:
    """End the parent run in MLflow, unless it is a run of the KFP server, which ends its own runs."""
    from aupair.registry import live_logging, mlflow_store

    if record.parent is not None and result in _MLFLOW_STATUS and not live_logging.server_run_id():
        with mlflow_store.mlflow_errors("the run's summary"):
            client = mlflow_store.open_mlflow()
            client.set_terminated(record.parent.info.run_id, _MLFLOW_STATUS[result])


def _mlflow_link(uri: str, run: "Run") -> str:
    """Return the URL of a run in MLflow, or the command and URL that open it."""
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    if uri.startswith(("http://", "https://")):
        return os.environ.get("MLFLOW_UI_URL", uri).rstrip("/") + page
    return f"`mlflow ui --backend-store-uri {uri}`, then http://127.0.0.1:5000{page}"


def _score_table(client: "MlflowClient", evaluate: "Run | None") -> list[str]:
    """Return the first part of the table that evaluate logged: the scores on validation."""
    if evaluate is None:
        return ["", "No scores: evaluate did not complete."]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(evaluate.info.run_id, "table.md", folder)).read_text()
    return ["", "\n## ".join(text.split("\n## ")[:2])]
