"""Logging of a stage to MLflow while it runs, and of the flow of a pipeline; for DVC see `aupair.registry.dvc_logging`.

A pipeline's run is identified by KFP_RUN_ID (Kubeflow or a local run) or by MLFLOW_RUN_ID. The latter is the MLflow run that a
KFP server with built-in MLflow creates for each task, and to which it logs the task's inputs and scalar metrics.
register-model logs what the stages could not log.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from aupair.errors import RegistryError, Stopped
from aupair.log import SILENT, Log
from aupair.registry import mlflow_store
from aupair.registry.descriptions import describe_experiment
from aupair.registry.origin import origin_tags
from aupair.registry.runs import (
    PARENT,
    FlowRun,
    StageRun,
    child_tags,
    end_run,
    get_or_create_run,
    log_metric_points,
    log_run,
    logged_steps,
    pipeline_run_id,
    set_tags,
    stage_run_tags,
)
from aupair.registry.tags import PENDING

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_SERVER_RUN = "MLFLOW_RUN_ID"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
"""The environment variable with the name of the experiment to which the tasks of a pipeline log."""


def server_run_id() -> str:
    """Return the id of the MLflow run that the KFP server created for this task; empty if there is none."""
    return os.environ.get(_SERVER_RUN, "")


def runs_in_pipeline() -> bool:
    """Return whether this process is a task of a pipeline, in which each stage logs its own run."""
    return bool(pipeline_run_id() or server_run_id())


def current_flow_id(client: "MlflowClient") -> str:
    """Return the id of the pipeline's flow: the pipeline's run, else the server's run of the whole flow."""
    return pipeline_run_id() or _server_flow_run(client)


def _server_flow_run(client: "MlflowClient") -> str:
    """Return the id of the MLflow run that the KFP server created for the whole flow: the topmost ancestor of this task's run.

    Between the two are the server's runs for the exit handler and the loop.
    """
    run_id = server_run_id()
    with mlflow_store.mlflow_errors(f"run {run_id}"):
        while parent := client.get_run(run_id).data.tags.get("mlflow.parentRunId"):
            run_id = str(parent)
    return run_id


def current_experiment_id(client: "MlflowClient", name: str) -> str:
    """Return the id of the experiment to log to.

    It is that of the KFP server's run, else the one in the environment of the pipeline's task, else the one called `name`.
    """
    if server_run_id():
        with mlflow_store.mlflow_errors(f"run {server_run_id()}"):
            return str(client.get_run(server_run_id()).info.experiment_id)
    name = os.environ.get(EXPERIMENT, name) if runs_in_pipeline() else name
    return mlflow_store.get_or_create_experiment(client, name)


def get_or_create_parent_run(client: "MlflowClient", experiment_id: str, flow_id: str) -> str:
    """Return the id of the flow's parent run, which is created if there is none.

    The first task of a pipeline creates it, before tasks run in parallel.
    """
    parent = StageRun(PARENT, tags=PENDING | origin_tags("aupair pipeline", is_job=True))
    with mlflow_store.mlflow_errors(f"flow {flow_id}"):
        if server_run_id():
            run_id = _server_flow_run(client)
            set_tags(client, run_id, stage_run_tags(parent, flow_id))
            return run_id
        describe_experiment(client, experiment_id)
        return get_or_create_run(client, experiment_id, flow_id, parent)


def open_pipeline_flow(client: "MlflowClient", experiment: str) -> FlowRun:
    """Return the flow of the pipeline to which this process belongs.

    Args:
        experiment: the name of the experiment, unless the pipeline sets another one.
    """
    flow_id, experiment_id = current_flow_id(client), current_experiment_id(client, experiment)
    return FlowRun(experiment_id, flow_id, get_or_create_parent_run(client, experiment_id, flow_id))


@contextmanager
def log_while_running(
    stage: StageRun, experiment: str, collect: Callable[[], StageRun], log: Log = SILENT
) -> Iterator[Log]:
    """Log the stage of a pipeline that runs in the block, see `log_stage`.

    If the store cannot be reached at the start, the stage does not begin.

    Args:
        experiment: the name of the experiment, unless the pipeline sets another one.

    Raises:
        RegistryError: the store cannot be reached, or fails, at the start.
    """
    client = mlflow_store.open_mlflow(create=True)
    with log_stage(client, open_pipeline_flow(client, experiment), stage, collect, log) as live:
        yield live


@contextmanager
def log_stage(
    client: "MlflowClient", flow: FlowRun, stage: StageRun, collect: Callable[[], StageRun], log: Log = SILENT
) -> Iterator[Log]:
    """Log the stage that runs in the block: its metrics at once, and its results when it ends.

    If the store fails in the block for more than ten minutes, one line is logged, the stage continues, and register-model
    logs what is missing.

    Args:
        stage: its name, trial and params.
        collect: returns the content to log when the stage has ended.
        log: another log that receives the same.

    Raises:
        RegistryError: the store fails at the start.
    """
    with mlflow_store.mlflow_errors(f"run {stage.name}"):
        # The KFP server logs to its own run of the task; the stage's run is a child of it, to avoid conflicting values
        tags = child_tags(client, flow) | ({"mlflow.parentRunId": server_run_id()} if server_run_id() else {})
        run_id = get_or_create_run(
            client, flow.experiment_id, flow.flow_id, replace(stage, tags={**stage.tags, **tags})
        )
        client.update_run(run_id, "RUNNING")  # it may be the run of an earlier attempt that failed
        live = _MLflowLog(client, run_id, log)

    def finish(result: StageRun) -> None:
        log_run(client, run_id, result)
        end_run(client, run_id)

    try:
        with _system_metrics(run_id) if stage.resumable else nullcontext():
            yield live
    except BaseException as error:
        status = end_status(error)
        live.attempt(lambda: client.set_terminated(run_id, status))
        raise
    result = collect()
    live.attempt(lambda: finish(result))


@contextmanager
def _system_metrics(run_id: str) -> Iterator[None]:
    """Log the use of processors, memory, disk, network and GPUs while the block runs.

    MLflow does this in a thread, which ends without a message if the store fails. Without `psutil`, a dependency of DVC,
    nothing is logged.
    """
    if find_spec("psutil") is None:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics.system_metrics_monitor").setLevel(logging.CRITICAL)
    monitor = SystemMetricsMonitor(run_id, resume_logging=True)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def end_status(error: BaseException) -> str:
    """Return MLflow's status for a run that ends with an exception: KILLED for Ctrl-C, SIGTERM and SystemExit."""
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, Stopped) else "KILLED"


class _MLflowLog(Log):
    """A log that sends metrics to an MLflow run, and forwards all calls to another log."""

    def __init__(self, client: "MlflowClient", run_id: str, log: Log) -> None:
        self._client, self._run_id, self._log = client, run_id, log
        self._lost = False
        self._logged = logged_steps(client, run_id)  # by an earlier attempt of the stage

    def line(self, text: str) -> None:
        """Forward a line."""
        self._log.line(text)

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Forward the progress."""
        yield from self._log.progress(items, total, what, done)

    def metrics(self, step: int, **values: float) -> None:
        """Send values at a step; `network.value` is named `network/value`, as in the curves."""
        self._log.metrics(step, **values)
        points = [("/".join(key.rsplit(".", 1)), value, step) for key, value in values.items()]
        now = int(time.time() * 1000)
        self.attempt(lambda: log_metric_points(self._client, self._run_id, points, now, self._logged))

    def attempt(self, call: Callable[[], object]) -> None:
        """Call the store unless an earlier call failed; if this one fails, log one line and make no further calls."""
        if self._lost:
            return
        try:
            with mlflow_store.mlflow_errors(f"run {self._run_id}"):
                call()
        except RegistryError as error:
            self._lost = True
            self._log.line(f"{error}; the rest of this stage is not logged now; register-model will log it")
