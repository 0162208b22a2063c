"""register-model: the chosen trial becomes a bundle, the flow a set of MLflow runs, the bundle one registered version.

It has a side effect, so it is idempotent: a bundle that is registered is found by its hash, and nothing is created.
"""

import os
import re
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import AUS
from aupair.errors import ArtifactError
from aupair.inference.bundle import Parts, data_hash, write_bundle
from aupair.inference.recognizer import read_selection
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.registry import live_logging, mlflow_store, versions
from aupair.registry.runs import PARENT, Flow, StageRun, finite_numbers, hash_flow, log_flow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature


HEADLINE = re.compile(
    r"rows\.(P1|P2|no-uncertainty|best-constant)\.(select|validation)\.(score|f1|accuracy)"
    r"|intensity_rows\.(P1|P2|no-uncertainty|fit-median|fit-mean)\.(select|validation)\.(icc|mae)"
    r"|pair_accuracy\.(clear|mean)"
    r"|uncertainty\.(pair_nll\.(h|constant)|(auroc_correct|gain_at_80)\.\w+)"
)
"""The metrics that the parent run has, to compare flows by; evaluate's run has all."""


@dataclass(frozen=True)
class Registration:
    """What register-model did.

    Attributes:
        version: the number of the version.
        created: False if it was there already.
        sha256: the bundle's hash.
    """

    version: int
    created: bool
    sha256: str


def register_bundle(
    bundle: Path, parts: Parts, stages: Sequence[StageRun], reports: Sequence[Path], params: Params, log: Log = SILENT
) -> Registration:
    """Write the bundle, log the flow, register the bundle, and point `challenger` to it.

    Args:
        bundle: where the bundle is written.
        parts: what goes into it, of the chosen trial.
        stages: every run of a stage, to be logged below the flow.
        reports: files and folders to keep with the flow.

    Raises:
        ArtifactError: a part is missing.
        RegistryError: MLflow cannot be reached or refuses.
    """
    sha256 = write_bundle(bundle, parts, params)
    client, name = mlflow_store.open_mlflow(create=True), params.register_model.name
    version = versions.find_version(client, sha256, name)
    created = version is None
    if version is None:
        metrics, data = store.read_json(parts.metrics), data_hash(store.read_json(parts.data))
        tags = version_tags(bundle, metrics, data, sha256) | origin_tags()
        experiment = live_logging.current_experiment(client, params.register_model.experiment)
        flow = live_logging.current_flow_id(client, hash_flow(params.model_dump_json(), data, sha256))
        whole = StageRun(
            PARENT, params=params.model_dump(mode="json"), metrics=headline_metrics(metrics), artifacts=tuple(reports)
        )
        about = {"data.md5": data, versions.HASH_TAG: sha256} | origin_tags()
        parent = (
            live_logging.get_or_create_parent_run(client, experiment, flow) if live_logging.runs_in_pipeline() else ""
        )
        run_id = log_flow(client, Flow(flow, experiment, whole, stages, about, live_logging.pipeline_run_id(), parent))
        version = versions.create_version(client, log_bundle(client, bundle, run_id, params), run_id, tags, name)
        if parent:
            client.update_run(parent, "RUNNING")  # logging a model has ended it, but the pipeline goes on
    versions.set_challenger(client, version, name)
    log.line(f"{name} version {version}: {'registered' if created else 'registered before, nothing new'}")
    return Registration(version, created, sha256)


def version_tags(bundle: Path, metrics: Mapping[str, Any], data: str, sha256: str) -> dict[str, str]:
    """Give a version's tags: the mapping of each AU, scores and F1 on `select`, scores on `validation`, the hashes.

    `selection.AU1` is P1 where the mapping with uncertainty decides, P2 where the one without does. The evidence is
    beside it: `selection.AU1.difference` is 1/2 (F1 + accuracy) with uncertainty less without, where it was chosen,
    `selection.AU1.probability` that with is better; above `selection.tie` uncertainty is used.
    A model of intensities has ICC and MAE too: `icc.p2` of `select`, `validation.icc.p2` and so on.
    """
    uses = read_selection(bundle / "selection.json").uses_uncertainty
    tags = {f"selection.{au}": "P1" if used else "P2" for au, used in zip(AUS, uses)}
    tags |= _evidence(store.read_json(bundle / "selection.json"))
    select = {name: _row(metrics, name, "select") for name in ("P1", "P2")}
    for name, row in select.items():
        tags[f"score.{name.lower()}"] = _tag(row["score"])
        tags[f"validation.score.{name.lower()}"] = _tag(_row(metrics, name, "validation")["score"])
    for au in AUS:
        tags[f"f1.{au}"] = _tag(select["P2"]["per_au"][au]["f1"])
    for row in metrics.get("intensity_rows", ()):
        if row["name"] in ("P1", "P2"):
            prefix = "" if row["split"] == "select" else f"{row['split']}."
            tags |= {f"{prefix}{key}.{row['name'].lower()}": _tag(row[key]) for key in ("icc", "mae")}
    return {key: value for key, value in tags.items() if value} | {"data.md5": data, versions.HASH_TAG: sha256}


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Pick the handful of metrics.json that flows are compared by."""
    return {key: value for key, value in finite_numbers(metrics).items() if HEADLINE.fullmatch(key)}


def origin_tags() -> dict[str, str]:
    """Give the tags that say what made a version: git.commit, and the pipeline's run, where one runs the flow."""
    run = live_logging.pipeline_run_id()
    return git_commit_tag() | ({"pipeline_run_id": run} if run else {})


def git_commit_tag() -> dict[str, str]:
    """Give the tag git.commit: of the image (AUPAIR_GIT_COMMIT), else of the working folder.

    None outside a repository, before its first commit, without git.
    """
    if of_image := os.environ.get("AUPAIR_GIT_COMMIT"):
        return {"git.commit": of_image}
    try:
        done = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    except OSError:  # no git on this machine: the tag is a help, not a need
        return {}
    return {} if done.returncode else {"git.commit": done.stdout.strip()}


def log_bundle(client: "MlflowClient", bundle: Path, run_id: str, params: Params) -> str:
    """Log the bundle as a python function (models from code) beside this package, and give the model's URI."""
    import mlflow

    package = Path(__file__).parents[1]
    with mlflow_store.mlflow_errors(f"bundle {bundle}"), warnings.catch_warnings():
        # MLflow wants an input example and type hints; the signature says more than both
        warnings.simplefilter("ignore", UserWarning)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=params.register_model.name,
                python_model=str(package / "registry" / "serving.py"),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(package)],
                signature=serving_signature(params),
                pip_requirements=str(bundle / "requirements.txt"),
            )
    return str(info.model_uri)


def serving_signature(params: Params) -> "ModelSignature":
    """Give what is served: (n, size, size, 3) uint8 and `fps` in; a row of numbers for each face out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    names = ["raw", "pseudo_intensity", "uncertainty", "confidence"]
    if params.target == "intensity":
        names.insert(0, "intensity")
    size = params.preprocess_faces.size
    columns: list[ColSpec | TensorSpec] = []
    for au in AUS:
        columns.append(ColSpec("integer", au))
        columns += [ColSpec("float", f"{au}_{name}") for name in names]
    # an unnamed tensor: with a name, predict would receive a dict
    faces = Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))])
    # MLflow wants a default; predict refuses this one, since no rate is true of every video
    return ModelSignature(faces, Schema(columns), ParamSchema([ParamSpec("fps", "double", 0.0)]))


def _row(metrics: Mapping[str, Any], name: str, split: str) -> Mapping[str, Any]:
    """Find a row of metrics.json."""
    for row in metrics["rows"]:
        if (row["name"], row["split"]) == (name, split):
            return row
    raise ArtifactError("no such row", where="metrics.json", got=f"{name} on {split}", todo="run evaluate again")


def _evidence(selection: Mapping[str, Any]) -> dict[str, str]:
    """Give the tags that say why each AU's mapping was chosen; what is not there gives an empty one."""
    tags = {"selection.tie": _tag(selection.get("tie"))}
    for au in AUS:
        tags[f"selection.{au}.difference"] = _tag(selection[au].get("difference"))
        tags[f"selection.{au}.probability"] = _tag(selection[au].get("probability_with_better"))
    return tags


def _tag(value: float | None) -> str:
    """Write a number as a tag; an undefined one gives none."""
    return "" if value is None else f"{value:.6f}"
