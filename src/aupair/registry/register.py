"""The core of register-model: write the bundle, log the flow to MLflow, and register the bundle as a version.

Running it again changes nothing, since a registered bundle is recognised by its hash.
"""

import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import stored_aus
from aupair.data.hashing import read_data_md5
from aupair.errors import ArtifactError
from aupair.evaluation.summary import read_scores
from aupair.inference.bundle import Parts, write_bundle
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.registry import (
    dataset,
    descriptions,
    dvc_logging,
    evidence,
    live_logging,
    locks,
    mlflow_store,
    promotion,
    versions,
)
from aupair.registry.gate import AUS_TAG
from aupair.registry.model_files import BUNDLE_TAG, MODEL_TAG, hash_logged_model
from aupair.registry.origin import git_commit_tag
from aupair.registry.run_metrics import headline_metrics
from aupair.registry.runs import PARENT, FlowRun, StageRun, end_run, is_rehearsal, log_flow, pipeline_tag
from aupair.registry.tags import join_figures

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature


_LONGEST_WAIT = 600.0
"""Maximum seconds to wait for another register-model, which may upload files to a server."""

_ATTEMPT = "aupair.attempt"
"""The tag of a logged model that identifies the process that logged it."""


@dataclass(frozen=True)
class _Registration:
    """The result of register-model.

    Attributes:
        version: the number of the version; None if this is a rehearsal, and rehearsals are not registered.
        sha256: the SHA-256 of the bundle.
    """

    version: int | None
    sha256: str


def register_bundle(
    bundle: Path, parts: Parts, stages: Sequence[StageRun], reports: Sequence[Path], params: Params, log: Log = SILENT
) -> _Registration:
    """Write the bundle, log the flow, register the bundle, and set the alias `challenger` to it.

    A rehearsal (see `is_rehearsal`) is logged, but registers nothing unless `register_model.rehearsals` is set. If several
    commands run at once, one registers the bundle, and the others find it, see `aupair.registry.locks`.

    Args:
        bundle: the folder to which the bundle is written.
        parts: the files and folders of the bundle.
        stages: the content to log for each run of a stage, as children of the flow.
        reports: files and folders to log with the flow.

    Raises:
        ArtifactError: a part is missing.
        RegistryError: MLflow cannot be reached or fails.
    """
    _check_documents(parts, params)  # first, so that a malformed one raises before a store is created
    mlflow_store.open_mlflow(create=True)
    waiting = partial(log.line, "waiting for another register-model")
    with locks.exclusive("register", params.register_model.name, _LONGEST_WAIT, waiting):
        return _register_bundle(bundle, parts, stages, reports, params, log)


def _check_documents(parts: Parts, params: Params) -> None:
    """Check that the documents have all entries that the registration needs.

    Raises:
        ArtifactError: a document is missing or malformed.
    """
    read_data_md5(parts.data)
    metrics, info, selection = read_scores(parts.metrics), store.read_json(parts.data), store.read_json(parts.selection)
    with store.fitting(parts.metrics.with_name("metrics.json, data.json or selection.json")):
        headline_metrics(metrics)
        descriptions.tags_for_people(selection, metrics, info, params)
        descriptions.run_note(selection, metrics, info)


def _register_bundle(
    bundle: Path, parts: Parts, stages: Sequence[StageRun], reports: Sequence[Path], params: Params, log: Log
) -> _Registration:
    """Register the bundle as `register_bundle` does, while the lock is held."""
    sha256 = write_bundle(bundle, parts, params)
    client, name = mlflow_store.open_mlflow(create=True), params.register_model.name
    with mlflow_store.mlflow_errors(f"model {name}"):
        version = versions.find_version(client, sha256, name)
        versions.delete_duplicates(client, sha256, name)
    registers = params.register_model.rehearsals or not is_rehearsal()
    created = version is None
    metrics, info, selection = (store.read_json(path) for path in (parts.metrics, parts.data, parts.selection))
    data, numbers = str(info["md5"]), headline_metrics(metrics)
    for_people = descriptions.tags_for_people(selection, metrics, info, params)
    origin = {"data.md5": data, BUNDLE_TAG: sha256} | git_commit_tag() | pipeline_tag()
    summary = StageRun(
        PARENT,
        params=params.model_dump(mode="json"),
        metrics={} if created and registers else numbers,  # `_log_model_metrics` logs them for a new version
        artifacts=tuple(reports),
        tags=for_people | origin | {"mlflow.note.content": descriptions.run_note(selection, metrics, info)},
        data=info,
    )
    in_pipeline = live_logging.runs_in_pipeline()
    if created or in_pipeline or dvc_logging.is_unfinished(client, params, data):
        flow = _open_flow(client, params, data, sha256)
        with nullcontext() if in_pipeline else dvc_logging.end_parent_on_failure(client, flow, log):
            log_flow(client, flow, summary, stages, cached=dvc_logging.runs_in_dvc())
            if version is None and registers:
                model_uri = _log_bundle(client, bundle, flow.parent_id, params, for_people)
                _log_model_metrics(client, model_uri, flow.parent_id, numbers, data)
                hashes = {MODEL_TAG: hash_logged_model(client, model_uri)} | _draws_tag(reports)
                tags = for_people | _version_tags(bundle, metrics) | origin | hashes
                version = versions.get_or_create_version(client, model_uri, flow.parent_id, tags, name)
            with mlflow_store.mlflow_errors(f"run {flow.parent_id}"):
                if in_pipeline:
                    client.update_run(flow.parent_id, "RUNNING")  # log_model ended the run, but the pipeline continues
                else:
                    end_run(client, flow.parent_id)
    if not registers:
        log.line("a rehearsal is not registered; set register_model.rehearsals to register it")
        return _Registration(None, sha256)
    assert version is not None
    with mlflow_store.mlflow_errors(f"version {version}"):
        descriptions.describe_model(client, name)
        descriptions.describe_version(client, name, version, bundle, metrics)
    promotion.set_challenger(client, version, name)
    log.line(f"{name} version {version}: {'registered' if created else 'was registered before; nothing has changed'}")
    return _Registration(version, sha256)


def _open_flow(client: "MlflowClient", params: Params, data: str, sha256: str) -> FlowRun:
    """Return the flow of this process: that of the pipeline, else the one that the stages opened, else a new one."""
    if live_logging.runs_in_pipeline():
        return live_logging.open_pipeline_flow(client, params.register_model.experiment)
    experiment_id = mlflow_store.get_or_create_experiment(client, params.register_model.experiment)
    parent = dvc_logging.describe_parent(params, data)
    return dvc_logging.open_flow(client, experiment_id, parent, {BUNDLE_TAG: sha256})


def _version_tags(bundle: Path, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return a version's tags: the AUs, the mapping of each, scores and F1 on `select`, and on `validation`.

    An undefined number has no tag. `selection.AU1` is P1 if the mapping with uncertainty decides, and P2 if the one without
    does. The evidence for this choice is among the figures, see `aupair.registry.tags`:

    * `selection.AU1.difference`: the score 1/2 (F1 + accuracy) on `select` with uncertainty minus that without
    * `selection.AU1.probability`: the probability that the score with uncertainty is higher
    * `selection.AU1.limit`, at least `selection.tie`: P2 is chosen if the difference is below minus this

    A model of intensities also has ICC and MAE: `icc.p2` for `select`, `validation.icc.p2` and so on.
    """
    from aupair.evaluation.selection import uses_uncertainty

    selection = store.read_json(bundle / "selection.json")
    aus, au_figures = stored_aus(selection), {"selection.tie": selection.get("tie")}
    means: dict[str, float | None] = {}
    for au in aus:
        au_figures[f"selection.{au}.difference"] = selection[au].get("difference")
        au_figures[f"selection.{au}.probability"] = selection[au].get("probability_with_better")
        au_figures[f"selection.{au}.limit"] = selection[au].get("loss_limit")
        au_figures[f"f1.{au}"] = _row(metrics, "P2", "select")["per_au"][au]["f1"]
    for name in ("P1", "P2"):
        for split, prefix in (("select", ""), ("validation", "validation.")):
            means |= {f"{prefix}{key}.{name.lower()}": _row(metrics, name, split)[key] for key in ("score", "f1")}
    for row in metrics.get("intensity_rows", ()):
        if row["name"] in ("P1", "P2"):
            prefix = "" if row["split"] == "select" else f"{row['split']}."
            means |= {f"{prefix}{key}.{row['name'].lower()}": row[key] for key in ("icc", "mae")}
    choices = {f"selection.{au}": "P1" if uses_uncertainty(selection[au]) else "P2" for au in aus}
    return {AUS_TAG: ",".join(aus)} | choices | _decimals(means) | join_figures(_decimals(au_figures))


def _decimals(numbers: Mapping[str, float | None]) -> dict[str, str]:
    """Return the numbers that are defined, as text."""
    return {key: f"{value:.6f}" for key, value in numbers.items() if value is not None}


def _draws_tag(reports: Sequence[Path]) -> dict[str, str]:
    """Return the tag with the hash of draws.json, with which the gate verifies the file; no tag without the file."""
    path = next((path for path in reports if path.name == evidence.FILE), None)
    return {} if path is None else {evidence.DRAWS_TAG: store.sha256(path)}


def _log_bundle(client: "MlflowClient", bundle: Path, run_id: str, params: Params, tags: Mapping[str, str]) -> str:
    """Log the bundle as a Python function (models from code) with this package, and return the model's URI."""
    import mlflow

    package, experiment = Path(__file__).parents[1], client.get_run(run_id).info.experiment_id
    attempt, oldest = secrets.token_hex(8), (time.time() - _LONGEST_WAIT) * 1000

    def log_model() -> str:
        # Delete models of earlier attempts: no version has this bundle. Behind a server, a recent one may belong to another process.
        for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
            if descriptions.MODEL_VERSIONS in model.tags:
                continue  # belongs to a version that this flow registered before it was run again
            if model.tags.get(_ATTEMPT) == attempt or model.creation_timestamp < oldest or locks.has_lock():
                client.delete_logged_model(model.model_id)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=params.register_model.name,
                python_model=str(package / "registry" / "serving.py"),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(package)],
                signature=_serving_signature(params, stored_aus(store.read_json(bundle / "selection.json"))),
                input_example=_serving_example(params.preprocess_faces.size),
                pip_requirements=str(bundle / "requirements.txt"),
                tags={**tags, _ATTEMPT: attempt},
            )
        return str(info.model_uri)

    with mlflow_store.mlflow_errors(f"bundle {bundle}"), warnings.catch_warnings():
        # MLflow warns about missing type hints; the signature contains more information.
        warnings.simplefilter("ignore", UserWarning)
        return mlflow_store.retrying(f"logging {bundle}", log_model, artifacts=True)


def _log_model_metrics(
    client: "MlflowClient", model_uri: str, run_id: str, numbers: Mapping[str, float], data: str
) -> None:
    """Log metrics to a logged model and its run, with a reference to the data.

    Metrics that the model has are left out: log_model copies those of the run, which an interrupted command has logged.
    """
    from mlflow.entities import Metric

    model_id, start = model_uri.removeprefix("models:/"), int(client.get_run(run_id).info.start_time)
    known = {metric.key for metric in client.get_logged_model(model_id).metrics or ()}
    place = {"dataset_name": dataset.NAME, "dataset_digest": data, "model_id": model_id, "run_id": run_id}
    metrics = [Metric(key, value, start, 0, **place) for key, value in numbers.items() if key not in known]
    with mlflow_store.mlflow_errors(f"model {model_id}"):
        client.log_batch(run_id, metrics=metrics)


def _serving_example(size: int) -> tuple["np.ndarray", dict[str, float]]:
    """Return an input of the served model: one face, and the frame rate of its video."""
    import numpy as np

    shade = np.linspace(0, 255, size).astype(np.uint8)  # the served model rejects faces with few different values
    return np.broadcast_to(shade[:, None], (1, size, size, 3)).copy(), {"fps": 25.0}


def _serving_signature(params: Params, aus: Sequence[str]) -> "ModelSignature":
    """Return the signature of serving: faces (n, size, size, 3) uint8 and `fps` -> a row of numbers for each face."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    from aupair.mapping.extractor import SOURCES

    names = ["raw", "pseudo_intensity", "uncertainty", "confidence"]
    if params.target == "intensity":
        names.insert(0, "intensity")
    if params.extract_features.deciding in SOURCES:
        names += ["smoothed", "smoothed_sd"]
    size = params.preprocess_faces.size
    columns: list[ColSpec | TensorSpec] = []
    for au in aus:
        columns.append(ColSpec("integer", au))
        columns += [ColSpec("float", f"{au}_{name}") for name in names]
    # The tensor has no name; otherwise predict would receive a dict.
    faces = Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))])
    # There is no default, since no frame rate fits every video; predict rejects a request without one.
    return ModelSignature(faces, Schema(columns), ParamSchema([ParamSpec("fps", "double", None)]))


def _row(metrics: Mapping[str, Any], name: str, split: str) -> Mapping[str, Any]:
    """Return a row of metrics.json."""
    for row in metrics["rows"]:
        if (row["name"], row["split"]) == (name, split):
            return row
    raise ArtifactError("no such row", where="metrics.json", got=f"{name} on {split}", todo="run evaluate again")
