"""Log a stage to MLflow while it runs, below its pipeline's run.

A pipeline's run is known by KFP_RUN_ID (of Kubeflow, or of a local run), or by the run that a server with MLflow built in
gives each task in MLFLOW_RUN_ID. Without either, register-model logs the whole flow afterwards; and with one, what is
missing.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from aupair.errors import RegistryError
from aupair.log import SILENT, Log
from aupair.registry import mlflow_store
from aupair.registry.runs import LOGGED, PARENT, StageRun, log_metric_points, log_run, parent_run_tags, stage_run_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

RUN_ID = "KFP_RUN_ID"
GIVEN = "MLFLOW_RUN_ID"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"


def pipeline_run_id() -> str:
    """Give the id of the pipeline's run; empty where no pipeline runs."""
    return os.environ.get(RUN_ID, "")


def server_run_id() -> str:
    """Give the MLflow run that the pipeline's server made for this task; empty where it made none."""
    return os.environ.get(GIVEN, "")


def runs_in_pipeline() -> bool:
    """Say whether stages log themselves."""
    return bool(pipeline_run_id() or server_run_id())


def current_flow_id(client: "MlflowClient", otherwise: str = "") -> str:
    """Give what all runs of this flow are found by: the pipeline's run, else the given run's parent, else `otherwise`."""
    if pipeline_run_id() or not server_run_id():
        return pipeline_run_id() or otherwise
    with mlflow_store.mlflow_errors(f"run {server_run_id()}"):
        return str(client.get_run(server_run_id()).data.tags.get("mlflow.parentRunId", server_run_id()))


def current_experiment(client: "MlflowClient", name: str) -> str:
    """Give the experiment of the given run; else, in a pipeline, of the variable's name; else the one of that name."""
    if not server_run_id():
        return mlflow_store.get_or_create_experiment(
            client, os.environ.get(EXPERIMENT, name) if runs_in_pipeline() else name
        )
    with mlflow_store.mlflow_errors(f"run {server_run_id()}"):
        return str(client.get_run(server_run_id()).info.experiment_id)


def get_or_create_parent_run(client: "MlflowClient", experiment: str, flow: str) -> str:
    """Find the flow's parent run, or make it: the first task does, before others run side by side."""
    with mlflow_store.mlflow_errors(f"flow {flow}"):
        if server_run_id():
            parent = str(client.get_run(server_run_id()).data.tags.get("mlflow.parentRunId", server_run_id()))
            for key, value in parent_run_tags(flow, pipeline_run_id()).items():
                client.set_tag(parent, key, value)
            return parent
        found = client.search_runs([experiment], f"tags.flow_id = '{flow}' and tags.stage = '{PARENT}'")
        if found:
            return str(min(found, key=lambda run: run.info.start_time).info.run_id)
        return str(
            client.create_run(experiment, tags=parent_run_tags(flow, pipeline_run_id()), run_name=flow).info.run_id
        )


@contextmanager
def log_while_running(
    stage: StageRun, experiment: str, left: Callable[[], StageRun], log: Log = SILENT
) -> Iterator[Log]:
    """Log a stage while it runs: its params at once, metrics as they come, what it left at the end.

    A store that cannot be reached at the start stops the stage before it has cost anything; one that goes away later
    costs a line, and register-model makes up for it.

    Args:
        stage: its name, trial and params.
        left: gives what the stage left, once it is through.
        log: what hears everything as well.

    Raises:
        RegistryError: the store cannot be reached, or refuses, at the start.
    """
    client = mlflow_store.open_mlflow(create=True)
    flow, place = current_flow_id(client), current_experiment(client, experiment)
    parent = get_or_create_parent_run(client, place, flow)
    tags = stage_run_tags(stage, flow, pipeline_run_id())
    with mlflow_store.mlflow_errors(f"run {stage.name}"):
        if server_run_id():
            run_id = server_run_id()
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
        else:
            tags["mlflow.parentRunId"] = parent
            run_id = str(client.create_run(place, tags=tags, run_name=stage.name).info.run_id)
    live = LiveLog(client, run_id, log)
    try:
        yield live
    except BaseException:
        live.attempt(lambda: client.set_terminated(run_id, "FAILED") if not server_run_id() else None)
        raise
    rest = left()
    live.attempt(lambda: _finish(client, run_id, rest, live.count == 0))


def _finish(client: "MlflowClient", run_id: str, rest: StageRun, curves: bool) -> None:
    """Log what a stage left, and mark its run as whole."""
    log_run(client, run_id, rest, curves)
    client.set_tag(run_id, LOGGED, "yes")
    if not server_run_id():
        client.set_terminated(run_id, "FINISHED")


class LiveLog(Log):
    """Passes everything on, and metrics to an MLflow run.

    Attributes:
        count: how many values went there.
    """

    def __init__(self, client: "MlflowClient", run_id: str, log: Log) -> None:
        self._client, self._run_id, self._log = client, run_id, log
        self._lost = False
        self.count = 0

    def line(self, text: str) -> None:
        """Pass it on."""
        self._log.line(text)

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Pass it on."""
        yield from self._log.progress(items, total, what, done)

    def metrics(self, step: int, **values: float) -> None:
        """Log values at a step; `network.value` is called `network/value`, as in the curves."""
        self._log.metrics(step, **values)
        points = [("/".join(key.rsplit(".", 1)), value, step) for key, value in values.items()]
        self.attempt(lambda: log_metric_points(self._client, self._run_id, points, int(time.time() * 1000)))
        self.count += len(points) if not self._lost else 0

    def attempt(self, what: Callable[[], object]) -> None:
        """Call the store, unless it was lost before; tell if it is lost now."""
        if self._lost:
            return
        try:
            with mlflow_store.mlflow_errors(f"run {self._run_id}"):
                what()
        except RegistryError as error:
            self._lost = True
            self._log.line(f"{error}; this stage is not logged any further, register-model will")
