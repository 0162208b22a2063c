"""Logging of the flow outside of a pipeline: its parent run, and live logging of the stages that DVC runs.

A flow is identified by its key: a hash of the params, of the data and, in a DVC experiment, of its name. The first stage that
runs opens the parent run, and later stages find it by the key. register-model ends it, or a stage that fails. A parent run
that did not succeed (a failure, Ctrl-C, SIGKILL) is continued by the next run of the same flow. If a stage begins although
the last run of the flow has finished, as with `dvc repro --force`, it opens a new parent run.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aupair.data.hashing import read_tracked
from aupair.errors import DataError, MissingPackageError, RegistryError
from aupair.extras import require
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.registry import mlflow_store
from aupair.registry.descriptions import describe_experiment
from aupair.registry.live_logging import end_status, log_stage
from aupair.registry.origin import origin_tags
from aupair.registry.runs import (
    LOGGED,
    PARENT,
    FlowRun,
    StageRun,
    collect_stage_run,
    find_runs,
    get_or_create_run,
    hash_flow,
    log_run,
)
from aupair.registry.tags import PENDING
from aupair.stage import Stage
from aupair.training_params import VggNetwork

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

OFF = "AUPAIR_LIVE_LOGGING"
"""The environment variable that, set to `off`, disables the logging of stages that DVC runs; variants of the flow set it."""

_KEY = "flow_key"
"""The tag of a parent run with the flow's key. Each parent run has its own `flow_id`, which its stages share."""


def runs_in_dvc() -> bool:
    """Return whether DVC runs this process as a stage."""
    return "DVC_STAGE" in os.environ


def _is_live(stage: Stage, trial: int | None) -> bool:
    """Return whether a stage logs itself: DVC runs it, in one process, for one trial, and it is not register-model.

    Without MLflow, as on a machine that only trains, no stage does.
    """
    one_run = (trial is not None) == stage.per_trial and stage.name != "register-model"
    if not (runs_in_dvc() and os.environ.get(OFF) != "off" and one_run and "LOCAL_RANK" not in os.environ):
        return False
    try:
        require("mlflow")
    except MissingPackageError:
        return False
    return True


def flow_key(params: Params, data: str) -> str:
    """Return the key of a flow.

    Args:
        data: DVC's hash of the data.
    """
    return hash_flow(params.model_dump_json(), data, os.environ.get("DVC_EXP_NAME", ""))


def flow_name(params: Params, data: str) -> str:
    """Return the name of a flow's parent run: DVC's experiment, a hash of all params, the data, and the choices of f and h.

    MLflow's list of runs truncates names, so that the most variable parts come first.
    """
    network = params.train_pseudo_intensity.network
    size: str = network.kind
    if isinstance(network, VggNetwork):
        size = f"width {network.width:g}" if network.width != 1 else "full width"
    trials = f"{len(params.trials)} trial{'s' if len(params.trials) > 1 else ''}"
    settings = f"{params.train_pseudo_intensity.objective}, {params.train_uncertainty.kind}, {size}, {trials}"
    own = f"params {hash_flow(params.model_dump_json())[:4]}"
    names = (os.environ.get("DVC_EXP_NAME", ""), own, f"data {data[:6]}" if data else "", settings)
    return " · ".join(filter(None, names))


def _tracked_data_hash() -> str:
    """Return the hash of the data in data.dvc of the working folder; empty if there is none."""
    try:
        return read_tracked(Path("data.dvc")).md5
    except DataError:
        return ""


def describe_parent(params: Params, data: str = "") -> StageRun:
    """Return the content to log to the parent run of a flow when it begins.

    Args:
        data: the hash of the data; if DVC runs this process, the hash in data.dvc is used instead, as in the first stage.
    """
    data = _tracked_data_hash() if runs_in_dvc() else data
    tags = PENDING | {_KEY: flow_key(params, data), "data.md5": data, "mlflow.runName": flow_name(params, data)}
    tags |= origin_tags("dvc repro" if runs_in_dvc() else "aupair run")
    return StageRun(PARENT, params=params.model_dump(mode="json"), tags=tags)


def _find_last_parent(client: "MlflowClient", experiment_id: str, key: str) -> "Run | None":
    """Return the last parent run of a flow; None if there is none."""
    query = f"tags.{_KEY} = '{key}' and tags.stage = '{PARENT}'"
    with mlflow_store.mlflow_errors(f"flow {key}"):
        runs = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"])
    return next(iter(runs), None)


def is_unfinished(client: "MlflowClient", params: Params, data: str) -> bool:
    """Return whether stages of this flow have logged themselves, and its parent run has not succeeded."""
    experiment_id = mlflow_store.get_or_create_experiment(client, params.register_model.experiment)
    last = _find_last_parent(client, experiment_id, describe_parent(params, data).tags[_KEY])
    return last is not None and last.info.status != "FINISHED"


def open_flow(
    client: "MlflowClient", experiment_id: str, parent: StageRun, finished_as: Mapping[str, str] | None = None
) -> FlowRun:
    """Return a flow with its parent run: the last one if that did not succeed, else a new one.

    Args:
        parent: the content of a new parent run, see `describe_parent`.
        finished_as: tags; if the last run succeeded and has these tags, it is returned.
    """
    last = _find_last_parent(client, experiment_id, parent.tags[_KEY])
    with mlflow_store.mlflow_errors(f"flow {parent.tags[_KEY]}"):
        if last is not None and last.info.status == "FINISHED":
            last = last if finished_as and finished_as.items() <= last.data.tags.items() else None
        elif last is not None:
            client.update_run(last.info.run_id, "RUNNING")
        if last is not None:
            return FlowRun(experiment_id, last.data.tags["flow_id"], last.info.run_id)
        flow_id = f"{parent.tags[_KEY]}-{uuid.uuid4().hex[:6]}"
        flow = FlowRun(experiment_id, flow_id, get_or_create_run(client, experiment_id, flow_id, parent))
        log_run(client, flow.parent_id, parent)
        describe_experiment(client, experiment_id)
        return flow


@contextmanager
def log_dvc_stage(stage: Stage, params: Params, root: Path, trial: int | None, log: Log = SILENT) -> Iterator[Log]:
    """Log the stage of the block, if DVC runs it; a failure of MLflow is only logged as one line.

    Args:
        root: the working folder of the stage.
    """
    if not _is_live(stage, trial):
        yield log
        return
    places = stage.paths(root, params.trials, trial)
    begun = collect_stage_run(stage, params, {}, trial)
    collect = partial(collect_stage_run, stage, params, places, trial)
    with ExitStack() as stack:
        try:
            client = mlflow_store.open_mlflow(create=True)
            experiment_id = mlflow_store.get_or_create_experiment(client, params.register_model.experiment)
            flow = open_flow(client, experiment_id, describe_parent(params))
            _forget_complete_run(client, flow, begun)
            stack.enter_context(end_parent_on_failure(client, flow, log))
            live = stack.enter_context(log_stage(client, flow, begun, collect, log))
        except RegistryError as error:
            log.line(f"{error}; {begun.name} runs, and register-model will log it")
            live = log
        yield live


def _forget_complete_run(client: "MlflowClient", flow: FlowRun, stage: StageRun) -> None:
    """Delete the complete run of a stage that runs again in an unfinished flow, since its values may change."""
    with mlflow_store.mlflow_errors(f"run {stage.name}"):
        for run in find_runs(client, flow.experiment_id, flow.flow_id, stage):
            if LOGGED in run.data.tags:
                client.delete_run(run.info.run_id)


@contextmanager
def end_parent_on_failure(client: "MlflowClient", flow: FlowRun, log: Log = SILENT) -> Iterator[None]:
    """End the parent run of a flow if the block fails."""
    try:
        yield
    except BaseException as error:
        try:
            with mlflow_store.mlflow_errors(f"run {flow.parent_id}"):
                client.set_terminated(flow.parent_id, end_status(error))
        except RegistryError as unreachable:  # the failure of the block is raised, not this one
            log.line(str(unreachable))
        raise
