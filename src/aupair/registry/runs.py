"""Log a flow to MLflow: a parent run, and below it a run for each stage and trial. Logging again adds nothing.

What is logged comes from the files that the stages wrote: curves.jsonl, metrics, reports. In a pipeline the stages log
themselves (`aupair.registry.live_logging`), and this module adds what is missing.
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
from aupair.params import Params
from aupair.registry import mlflow_store
from aupair.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

BATCH = 1000
"""The most metrics that MLflow takes at once; it takes 100 params."""

PARENT = "flow"
"""The `stage` tag of the parent run of a flow."""

LOGGED = "logged"
"""The tag of a complete run; the status does not tell, since a KFP server ends its runs whatever they contain."""


@dataclass(frozen=True)
class StageRun:
    """The content to log for one run of a stage.

    Attributes:
        stage: its name, with hyphens.
        trial: which trial, or None for a stage that runs once.
        params: its section of params.yaml.
        curves: its files of JSON lines; `step` or `epoch` is the step, a text becomes a prefix of the metric's name.
        metrics: final values.
        artifacts: small files or folders to log with the run.
    """

    stage: str
    trial: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[Path, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the run: the stage, and the trial if there is one."""
        return self.stage if self.trial is None else f"{self.stage}-{self.trial}"


def collect_stage_run(stage: Stage, params: Params, places: Mapping[str, Path], trial: int | None = None) -> StageRun:
    """Return the parameters, curves, metrics and reports to log for a stage.

    Args:
        places: the paths of its artifacts; if empty, as before the stage has run, only the parameters are returned.
    """
    section = getattr(params, stage.section).model_dump(mode="json")
    trained = [places[name] for name in ("f", "h", "mapping") if name in stage.writes and name in places]
    curves = tuple(folder / "curves.jsonl" for folder in trained)
    if stage.name != "evaluate" or not places:
        return StageRun(stage.name, trial, section, curves)
    metrics = store.read_json(places["metrics"])
    return StageRun(stage.name, trial, section, curves, metrics, (places["table"], places["plots"], places["report"]))


@dataclass(frozen=True)
class FlowRun:
    """One run of all stages.

    Attributes:
        flow_id: the same for the same params, data and bundle.
        experiment: the id of MLflow's experiment.
        parent: what to log for the flow as a whole.
        stages: what to log for each run of a stage.
        tags: more tags of the parent run.
        pipeline_run_id: the run of the pipeline that runs the flow; empty if none does.
        parent_id: the parent run if a pipeline has created it; if empty, it is found by the flow_id, or created.
    """

    flow_id: str
    experiment: str
    parent: StageRun
    stages: Sequence[StageRun]
    tags: Mapping[str, str] = field(default_factory=dict)
    pipeline_run_id: str = ""
    parent_id: str = ""


def hash_flow(*parts: str) -> str:
    """Return an id that depends on the parts alone (params, hash of the data, hash of the bundle)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def log_flow(client: "MlflowClient", flow: FlowRun) -> str:
    """Log what was not logged before, and return the id of the parent run.

    A complete run stays as it is. One that was interrupted is deleted and logged again; in a pipeline, where it may
    still be in use, what is missing is added to it instead.

    Raises:
        RegistryError: MLflow refused, or a report is missing.
    """
    with mlflow_store.mlflow_errors(f"flow {flow.flow_id}"):
        parent = flow.parent_id
        if parent:
            for key, value in flow.tags.items():
                client.set_tag(parent, key, value)
            log_run(client, parent, flow.parent)
        else:
            parent = _log_once(client, flow, flow.parent, flow.tags)
        for stage in flow.stages:
            _log_once(client, flow, stage, {"mlflow.parentRunId": parent})
    return parent


def stage_run_tags(stage: StageRun, flow: str, pipeline_run_id: str) -> dict[str, str]:
    """Return the tags that identify the MLflow run of a stage."""
    trial = "none" if stage.trial is None else str(stage.trial)
    tags = {"flow_id": flow, "stage": stage.stage, "trial": trial, "au": "all"}
    return tags | ({"pipeline_run_id": pipeline_run_id} if pipeline_run_id else {})


def log_run(client: "MlflowClient", run_id: str, stage: StageRun, curves: bool = True) -> None:
    """Log the params, curves, metrics and artifacts of a stage to a run."""
    from mlflow.entities import Param

    params = [Param(key, _text(value)) for key, value in flatten(dict(stage.params)).items()]
    for batch in _batches(params, 100):
        client.log_batch(run_id, params=batch)
    points = [point for path in stage.curves for point in curve_points(store.read_jsonl(path))] if curves else []
    points += [(key, value, 0) for key, value in finite_numbers(dict(stage.metrics)).items()]
    log_metric_points(client, run_id, points, int(client.get_run(run_id).info.start_time))
    for path in stage.artifacts:
        _log_artifact(client, run_id, path)


def log_metric_points(client: "MlflowClient", run_id: str, points: Sequence[tuple[str, float, int]], time: int) -> None:
    """Log metrics, given as (name, value, step); `time` is in milliseconds."""
    from mlflow.entities import Metric

    for batch in _batches([Metric(_metric_name(key), value, time, step) for key, value, step in points], BATCH):
        client.log_batch(run_id, metrics=batch)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as `a.b.c: value`; a list of rows goes by their names (and splits), not by their index."""
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
    """Return the finite numbers of a tree of metrics; a pair of numbers is an interval: `.low`, `.high`."""
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


def _log_once(client: "MlflowClient", flow: FlowRun, stage: StageRun, tags: Mapping[str, str]) -> str:
    """Return the id of the complete run of a stage in this flow; log it first if there is none."""
    stage_tags = stage_run_tags(stage, flow.flow_id, flow.pipeline_run_id)
    query = " and ".join(f"tags.{key} = '{stage_tags[key]}'" for key in ("flow_id", "stage", "trial"))
    incomplete: list[str] = []
    for run in client.search_runs([flow.experiment], query):
        if (run.info.status == "FINISHED" and not flow.parent_id) or run.data.tags.get(LOGGED):
            return str(run.info.run_id)
        incomplete.append(str(run.info.run_id))
    if flow.parent_id and incomplete:
        run_id = incomplete[0]
    else:
        for old in incomplete:
            client.delete_run(old)
        run_id = str(client.create_run(flow.experiment, tags={**stage_tags, **tags}, run_name=stage.name).info.run_id)
    log_run(client, run_id, stage)
    client.set_tag(run_id, LOGGED, "yes")
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_artifact(client: "MlflowClient", run_id: str, path: Path) -> None:
    """Log a file or a folder."""
    if path.is_dir():
        client.log_artifacts(run_id, str(path), path.name)
    elif path.exists():
        client.log_artifact(run_id, str(path))
    else:
        raise RegistryError("a report is missing", where=path, todo="run the stage that writes it")


def _metric_name(key: str) -> str:
    """Return a metric's name without the characters that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key)


def _text(value: Any) -> str:
    """Return a param as text, cut to the 6,000 characters that MLflow takes."""
    return (value if isinstance(value, str) else json.dumps(value))[:6000]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
