"""Logging of a flow to MLflow: a parent run, and a child run for each stage and trial. Logging again adds nothing.

The content is read from the files that the stages wrote: curves.jsonl, metrics, reports. In a pipeline the stages log
themselves (`aupair.registry.live_logging`), and this module adds what is missing.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aupair import store
from aupair.errors import RegistryError
from aupair.evaluation.summary import read_scores
from aupair.params import Params
from aupair.registry import mlflow_store
from aupair.registry.dataset import log_dataset
from aupair.registry.run_metrics import evaluation_metrics
from aupair.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

RUN_ID = "KFP_RUN_ID"
"""The environment variable with the id of the pipeline's run."""

LOCAL = "local-"
"""The prefix of the id of a pipeline's run on this machine."""

PARENT = "flow"
"""The `stage` tag of the parent run of a flow."""

LOGGED = "logged"
"""The tag of a complete run; its status is not enough, since a KFP server also ends incomplete runs as finished."""

CACHED = "cached"
"""The tag of a stage that did not run in its flow: DVC had its outputs, or MLflow could not be reached while it ran."""

_LONGEST_PARAM = 6000
"""Maximum length of a param value in MLflow, in characters."""


@dataclass(frozen=True)
class StageRun:
    """The content to log for one run of a stage.

    Attributes:
        stage: its name, with hyphens.
        trial: the number of the trial; None for a stage that runs once.
        params: its section of params.yaml.
        curves: its files of JSON lines; `step` or `epoch` is the step, and a string value becomes a prefix of the metric's
            name.
        metrics: final values.
        data: the content of data.json, for a run with the data as its input.
        resumable: whether it is a training, during which system metrics are logged.
        artifacts: small files or folders to log with the run.
        tags: tags beside those that identify the run.
    """

    stage: str
    trial: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[Path, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[Path, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    resumable: bool = False

    @property
    def name(self) -> str:
        """Return the name of the run: the stage, and the trial if there is one."""
        return self.stage if self.trial is None else f"{self.stage}-{self.trial}"


@dataclass(frozen=True)
class FlowRun:
    """A flow in MLflow.

    Attributes:
        flow_id: the tag that all its runs share.
        parent_id: the id of its parent run.
    """

    experiment_id: str
    flow_id: str
    parent_id: str


def collect_stage_run(stage: Stage, params: Params, places: Mapping[str, Path], trial: int | None = None) -> StageRun:
    """Return the parameters, curves, metrics and reports to log for a stage.

    Args:
        places: the paths of its artifacts; if empty, as before the stage has run, only the parameters are returned.
    """
    section = getattr(params, stage.section).model_dump(mode="json")
    trained = [places[name] for name in ("f", "h", "mapping") if name in stage.writes and name in places]
    curves = tuple(folder / "curves.jsonl" for folder in trained)
    data = store.read_json(places["info"]) if "info" in places and stage.name in ("check-data", "evaluate") else {}
    run = StageRun(stage.name, trial, section, curves, data=data, resumable=stage.resumable)
    if stage.name != "evaluate" or not places:
        return run
    reports = tuple(places[name] for name in ("table", "plots", "report", "metrics"))
    metrics = read_scores(places["metrics"])
    with store.fitting(places["metrics"]):
        return replace(run, metrics=evaluation_metrics(metrics), artifacts=reports)


def hash_flow(*parts: str) -> str:
    """Return an id that depends only on the parts (params, hash of the data, hash of the bundle)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def log_flow(
    client: "MlflowClient", flow: FlowRun, parent: StageRun, stages: Sequence[StageRun], cached: bool = False
) -> None:
    """Log what is missing: complete runs are not changed, and interrupted ones are completed.

    Args:
        parent: the content of the parent run.
        cached: mark the stages that have no run yet as cached.

    Raises:
        RegistryError: MLflow failed, or a report is missing.
    """
    with mlflow_store.mlflow_errors(f"flow {flow.flow_id}"):
        if LOGGED not in client.get_run(flow.parent_id).data.tags:
            set_tags(client, flow.parent_id, parent.tags)
            log_run(client, flow.parent_id, parent)
        for stage in stages:
            runs = find_runs(client, flow.experiment_id, flow.flow_id, stage)
            if not any(LOGGED in run.data.tags for run in runs):
                mark = {CACHED: "yes", "mlflow.runName": f"{stage.name} (cached)"} if cached and not runs else {}
                tags = {**stage.tags, **mark, **child_tags(client, flow)}
                run_id = get_or_create_run(client, flow.experiment_id, flow.flow_id, replace(stage, tags=tags))
                log_run(client, run_id, stage)
                end_run(client, run_id)


def child_tags(client: "MlflowClient", flow: FlowRun) -> dict[str, str]:
    """Return the tags of a stage's run that come from its parent: the parent's id, user, command and commit."""
    tags = client.get_run(flow.parent_id).data.tags
    origin = {key: tags[key] for key in tags if key == "mlflow.user" or key.startswith("mlflow.source.")}
    return {"mlflow.parentRunId": flow.parent_id, **origin}


def end_run(client: "MlflowClient", run_id: str) -> None:
    """Mark a run as complete, and end it."""
    client.set_tag(run_id, LOGGED, "yes")
    client.set_terminated(run_id, "FINISHED")


def get_or_create_run(client: "MlflowClient", experiment_id: str, flow_id: str, stage: StageRun) -> str:
    """Return the id of the run of a stage in this flow, which is created if there is none.

    A stage that restarts after its pod was lost thus continues its first run.
    """

    def find_or_create() -> str:
        if runs := find_runs(client, experiment_id, flow_id, stage):
            return str(min(runs, key=lambda run: run.info.start_time).info.run_id)
        tags = {**stage.tags, **stage_run_tags(stage, flow_id)}
        name = tags.get("mlflow.runName") or (flow_id if stage.stage == PARENT else stage.name)
        return str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)

    return mlflow_store.retrying(f"the run of {stage.name}", find_or_create)


def find_runs(client: "MlflowClient", experiment_id: str, flow_id: str, stage: StageRun) -> "list[Run]":
    """Return the runs of a stage in this flow."""
    tags = stage_run_tags(stage, flow_id)
    query = " and ".join(f"tags.{key} = '{tags[key]}'" for key in ("flow_id", "stage", "trial"))
    return list(client.search_runs([experiment_id], query))


def pipeline_run_id() -> str:
    """Return the id of the pipeline's run; empty outside a pipeline."""
    return os.environ.get(RUN_ID, "")


def is_rehearsal() -> bool:
    """Return whether this process belongs to a DVC experiment, or to a pipeline's run on this machine."""
    return "DVC_EXP_NAME" in os.environ or pipeline_run_id().startswith(LOCAL)


def stage_run_tags(stage: StageRun, flow_id: str) -> dict[str, str]:
    """Return the tags that identify the MLflow run of a stage."""
    trial = "none" if stage.trial is None else str(stage.trial)
    # au: each network is trained for all AUs, so that every run concerns all of them
    tags = {"flow_id": flow_id, "stage": stage.stage, "trial": trial, "au": "all"}
    return tags | pipeline_tag()


def pipeline_tag() -> dict[str, str]:
    """Return the tag `pipeline_run_id`, or no tag outside a pipeline."""
    return {"pipeline_run_id": run} if (run := pipeline_run_id()) else {}


def set_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Set the tags of a run."""
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def log_run(client: "MlflowClient", run_id: str, stage: StageRun) -> None:
    """Log the params, metrics and artifacts of a stage to a run, and the points of its curves that the run lacks."""
    from mlflow.entities import Param

    params = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in flatten(stage.params).items()
    }
    for batch in _batches([Param(key, text[:_LONGEST_PARAM]) for key, text in params.items()], 100):
        client.log_batch(run_id, params=batch)
    if stage.data:
        log_dataset(client, run_id, stage.data)
    points = [point for path in stage.curves for point in curve_points(store.read_jsonl(path))]
    points += [(key, value, 0) for key, value in finite_numbers(stage.metrics).items()]
    log_metric_points(client, run_id, points, int(client.get_run(run_id).info.start_time), logged_steps(client, run_id))
    for path in stage.artifacts:
        if not path.exists():
            raise RegistryError("a report is missing", where=path, todo="run the stage that writes it")
        client.log_artifact(run_id, str(path))


def log_metric_points(
    client: "MlflowClient",
    run_id: str,
    points: Iterable[tuple[str, float, int]],
    time: int,
    logged: Collection[tuple[str, int]] = (),
) -> None:
    """Log metrics, each as (name, value, step).

    Args:
        time: milliseconds. MLflow treats points with equal name, value, step and time as one, so that the call can be
            repeated.
        logged: the names and steps to leave out, see `logged_steps`.
    """
    from mlflow.entities import Metric

    metrics = [Metric(_metric_name(key), value, time, step) for key, value, step in points]
    for batch in _batches([metric for metric in metrics if (metric.key, metric.step) not in logged], 1000):
        client.log_batch(run_id, metrics=batch)


def logged_steps(client: "MlflowClient", run_id: str) -> set[tuple[str, int]]:
    """Return the name and step of every metric point of a run."""
    names = client.get_run(run_id).data.metrics
    return {(name, point.step) for name in names for point in client.get_metric_history(run_id, name)}


def _metric_name(key: str) -> str:
    """Return a name with characters that MLflow does not allow replaced by `_`."""
    return re.sub(r"[^\w. :/-]", "_", key)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as `a.b.c: value`; rows in a list are keyed by name (and split), not by index."""
    if isinstance(tree, Mapping):
        pairs = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list) and tree and all(isinstance(row, Mapping) and "name" in row for row in tree):
        pairs = [(".".join(str(row[key]) for key in ("name", "split") if key in row), row) for row in tree]
    elif isinstance(tree, list) and tree and all(isinstance(value, Mapping) for value in tree):
        pairs = [(str(index), value) for index, value in enumerate(tree)]
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in pairs:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def finite_numbers(tree: Any) -> dict[str, float]:
    """Return the finite numbers of a tree of metrics; a list of two numbers is an interval: `.low`, `.high`."""
    result: dict[str, float] = {}
    for key, value in flatten(tree).items():
        if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
            result |= {f"{key}.low": float(value[0]), f"{key}.high": float(value[1])}
        elif _is_number(value):
            result[key] = float(value)
    return result


def curve_points(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """Yield (name, value, step) of every number in the rows of a curve."""
    for index, row in enumerate(rows):
        step = int(row.get("step", row.get("epoch", index)))
        prefix = "/".join(value for value in row.values() if isinstance(value, str))
        for key, value in finite_numbers({k: v for k, v in row.items() if k not in ("step", "epoch")}).items():
            yield (f"{prefix}/{key}" if prefix else key), value, step


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`, since MLflow limits a batch."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
