"""The record of a pipeline's run in MLflow: which stages succeeded, which failed, and which were killed.

The state that a Kubeflow server passes to the exit task is not reliable: RUNNING may be a successful run for which the server
does not count the tasks of a loop, or a run whose pod was killed. Each stage therefore records its own end in MLflow.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from aupair.errors import RegistryError
from aupair.log import Log
from aupair.params import RegisterModel
from aupair.registry import live_logging, mlflow_store
from aupair.registry.runs import LOGGED, PARENT, StageRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class TaskState(Enum):
    """The end of a task, according to its record."""

    COMPLETE = "complete"
    FAILED = "failed"
    UNFINISHED = "did not end"
    MISSING = "missing"


@dataclass(frozen=True)
class RunRecord:
    """The MLflow runs of one pipeline run.

    Attributes:
        flow: the id that they share.
        parent: the parent of the stages' runs; None if no stage began.
        stages: the runs of each task, by its title such as `train-mapping (trial 1)`; a retried task has several.
    """

    flow: str
    parent: "Run | None" = None
    stages: dict[str, list["Run"]] = field(default_factory=dict)

    def states(self) -> dict[str, TaskState]:
        """Return the state of each task that began."""
        return {title: _state(runs) for title, runs in self.stages.items()}

    def state(self, task: str) -> TaskState:
        """Return the state of a task that runs once."""
        return self.states().get(task, TaskState.MISSING)

    def complete_run(self, stage: str) -> "Run | None":
        """Return the successful run of a stage that runs once; None if there is none."""
        return next((run for run in self.stages.get(stage, ()) if LOGGED in run.data.tags), None)


def read_run_record(client: "MlflowClient") -> RunRecord:
    """Return MLflow's record of the pipeline run to which this process belongs.

    Raises:
        RegistryError: MLflow fails.
    """
    flow = live_logging.current_flow_id(client)
    with mlflow_store.mlflow_errors(f"flow {flow}"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.flow_id = '{flow}'", max_results=1000)
    record = RunRecord(flow, next((run for run in runs if run.data.tags["stage"] == PARENT), None))
    for run in runs:
        stage, trial = run.data.tags["stage"], run.data.tags.get("trial", "none")
        if stage != PARENT:
            record.stages.setdefault(stage if trial == "none" else f"{stage} (trial {trial})", []).append(run)
    return record


@contextmanager
def record_task(task: str, log: Log) -> Iterator[None]:
    """Record in MLflow whether the block succeeds, for a task that is not a stage of the flow.

    This needs an MLflow server, since a database file would be lost with the pod. Predictions do not depend on MLflow: if it
    does not answer, one line is logged, and the block runs nevertheless.
    """
    with ExitStack() as stack:
        if live_logging.runs_in_pipeline() and mlflow_store.sqlite_path(mlflow_store.tracking_uri()) is None:
            run = StageRun(task)
            try:
                stack.enter_context(live_logging.log_while_running(run, RegisterModel().experiment, lambda: run, log))
            except RegistryError as error:
                log.line(f"{error}; the end of {task} is not recorded")
        yield


def _state(runs: Iterable["Run"]) -> TaskState:
    """Return the state of a task from the runs of all its attempts."""
    runs = list(runs)
    if any(LOGGED in run.data.tags for run in runs):
        return TaskState.COMPLETE
    return TaskState.UNFINISHED if any(run.info.status == "RUNNING" for run in runs) else TaskState.FAILED
