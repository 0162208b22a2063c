"""A flow as MLflow runs: a parent, and below it a run for each stage and trial. Logging again adds nothing.

Files stay the truth: what a stage wrote (curves.jsonl, metrics, reports) is logged from there.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aupair import store
from aupair.errors import RegistryError
from aupair.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

BATCH = 1000
"""Most metrics that MLflow takes at once; of params it takes 100."""

PARENT = "flow"
"""The `stage` tag of a parent run."""


@dataclass(frozen=True)
class StageRun:
    """What one run of a stage left.

    Attributes:
        stage: its name, with hyphens.
        trial: which trial, or None for a stage that runs once.
        params: its section of params.yaml.
        curves: its files of JSON lines; `step` or `epoch` is the step, texts become a prefix of the metric's name.
        metrics: final values.
        artifacts: small files or folders to keep beside the run.
    """

    stage: str
    trial: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[Path, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The run's name: the stage, and the trial where there is one."""
        return self.stage if self.trial is None else f"{self.stage}-{self.trial}"


@dataclass(frozen=True)
class Flow:
    """One way through all stages.

    Attributes:
        flow_id: the same for the same params, data and bundle.
        experiment: MLflow's experiment.
        parent: what belongs to the flow as a whole, as if it were a stage.
        stages: its runs.
        tags: more tags of the parent.
        pipeline_run_id: of the pipeline that runs the flow; empty where none does.
    """

    flow_id: str
    experiment: str
    parent: StageRun
    stages: Sequence[StageRun]
    tags: Mapping[str, str] = field(default_factory=dict)
    pipeline_run_id: str = ""


def flow_id(*parts: str) -> str:
    """Give an id that depends on the parts alone (params, data's hash, bundle's hash)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def log_flow(client: "MlflowClient", flow: Flow) -> str:
    """Log what was not logged before, and give the parent's run id.

    A finished run is left as it is; one that was cut off is deleted and logged again.

    Raises:
        RegistryError: MLflow refused, or a value is not a number.
    """
    with tracking.told(f"flow {flow.flow_id}"):
        experiment = tracking.experiment_id(client, flow.experiment)
        parent = _find(client, experiment, flow, flow.parent)
        if parent is None:
            parent = _log(client, experiment, flow, flow.parent, flow.tags)
        for stage in flow.stages:
            if _find(client, experiment, flow, stage) is None:
                _log(client, experiment, flow, stage, {"mlflow.parentRunId": parent})
    return parent


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into `a.b.c: value`; a row with a name (and a split) goes by it, not by its place."""
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


def numbers(tree: Any) -> dict[str, float]:
    """Give the finite numbers of a tree of metrics; a pair of numbers is an interval: `.low`, `.high`."""
    found: dict[str, float] = {}
    for key, value in flatten(tree).items():
        if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
            found |= {f"{key}.low": float(value[0]), f"{key}.high": float(value[1])}
        elif _is_number(value):
            found[key] = float(value)
    return found


def curve_points(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """Give (name, value, step) of every number in rows of curves."""
    for index, row in enumerate(rows):
        step = int(row.get("step", row.get("epoch", index)))
        prefix = "/".join(value for value in row.values() if isinstance(value, str))
        for key, value in numbers({k: v for k, v in row.items() if k not in ("step", "epoch")}).items():
            yield (f"{prefix}/{key}" if prefix else key), value, step


def _find(client: "MlflowClient", experiment: str, flow: Flow, stage: StageRun) -> str | None:
    """Find the finished run of a stage in this flow; delete what a killed process left of it."""
    trial = "" if stage.trial is None else str(stage.trial)
    query = f"tags.flow_id = '{flow.flow_id}' and tags.stage = '{stage.stage}' and tags.trial = '{trial or 'none'}'"
    finished: str | None = None
    runs: Sequence[Run] = client.search_runs([experiment], query)
    for run in runs:
        if run.info.status == "FINISHED":
            finished = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
    return finished


def _log(client: "MlflowClient", experiment: str, flow: Flow, stage: StageRun, tags: Mapping[str, str]) -> str:
    """Log one run: tags, params, curves, metrics, artifacts; finished only when all is there."""
    from mlflow.entities import Metric, Param

    shared = {
        "flow_id": flow.flow_id,
        "stage": stage.stage,
        "trial": "none" if stage.trial is None else str(stage.trial),
        "au": "all",
    }
    if flow.pipeline_run_id:
        shared["pipeline_run_id"] = flow.pipeline_run_id
    run = client.create_run(experiment, tags={**shared, **tags}, run_name=stage.name)
    run_id, now = str(run.info.run_id), int(run.info.start_time)
    params = [Param(key, _text(value)) for key, value in flatten(dict(stage.params)).items()]
    for some in _batches(params, 100):
        client.log_batch(run_id, params=some)
    points = [point for path in stage.curves for point in curve_points(store.read_jsonl(path))]
    points += [(key, value, 0) for key, value in numbers(dict(stage.metrics)).items()]
    metrics = [Metric(_metric_name(key), value, now, step) for key, value, step in points]
    for batch in _batches(metrics, BATCH):
        client.log_batch(run_id, metrics=batch)
    for path in stage.artifacts:
        _log_artifact(client, run_id, path)
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_artifact(client: "MlflowClient", run_id: str, path: Path) -> None:
    if path.is_dir():
        client.log_artifacts(run_id, str(path), path.name)
    elif path.exists():
        client.log_artifact(run_id, str(path))
    else:
        raise RegistryError("a report that is not there", where=path, todo="run the stage that writes it")


def _metric_name(key: str) -> str:
    """Replace what MLflow refuses in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key)


def _text(value: Any) -> str:
    """Give a param as text; MLflow takes 6,000 characters."""
    return (value if isinstance(value, str) else json.dumps(value))[:6000]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Cut a sequence into lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
