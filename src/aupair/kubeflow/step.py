"""The run of a stage inside its KFP component, by the same function that DVC and `aupair run` call.

The input artifacts are linked into a temporary folder with the layout of a project, the stage runs there, and its outputs are
moved to the paths that KFP assigned to them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from aupair import __version__, stages, store
from aupair.console import ConsoleLog
from aupair.data.hashing import read_data_md5
from aupair.disk import temporary_folder
from aupair.errors import RunFailedError
from aupair.kubeflow.cluster import PROCESSES
from aupair.kubeflow.volumes import check_volumes
from aupair.log import Log
from aupair.params import Params, parse_params


class KfpArtifact(Protocol):
    """The part of `kfp.dsl.Artifact` that is used: a file or folder, and its metadata."""

    path: str
    metadata: dict[str, Any]


def run_component(name: str, arguments: Mapping[str, Any]) -> None:
    """Run a stage of the flow inside its component.

    Args:
        arguments: the arguments of the component: artifacts and params sections by name, and `trial`.

    Raises:
        AupairError: the stage fails.
    """
    stage = stages.get_stage(name)
    trial = int(arguments["trial"]) if stage.per_trial else None
    params = params_for(stage, arguments, trial)
    with _project_of_artifacts(stage, arguments, params.trials, trial) as root:
        places = stage.paths(root, params.trials, trial)
        with _stage_log(stage, params, places, trial) as log:
            _execute(stage, params, root, trial, log)
        _write_views(places, arguments)
        metadata = _metadata(places, trial)
        for artifact in stage.writes:
            if artifact != "summary":  # a KFP server with MLflow built in logs all metadata of metrics as numbers
                arguments[artifact].metadata.update(metadata)


def params_for(stage: stages.Stage, arguments: Mapping[str, Any], trial: int | None) -> Params:
    """Parse the params sections that a component receives; KFP passes integers as floats."""
    sections = {key: value for key, value in arguments.items() if key in Params.model_fields}
    return parse_params(
        ({} if trial is None else {"trials": [trial]}) | sections, where=f"the arguments of {stage.name}"
    )


def fetch_data_folder(source: str, revision: str, remote: str, data: KfpArtifact) -> None:
    """Fetch the data folder, and record its origin in the artifact's metadata.

    Raises:
        AupairError: a volume of this pod cannot be written; otherwise see `aupair.data.fetch`.
    """
    from aupair.data.fetch import fetch

    check_volumes(source)
    fetched = fetch(source, Path(data.path), revision=revision, remote=remote, log=ConsoleLog())
    data.metadata.update({"source": fetched.source, "data_commit": fetched.commit, "files": fetched.files})


@contextmanager
def _project_of_artifacts(
    stage: stages.Stage, arguments: Mapping[str, Any], trials: Sequence[int], trial: int | None
) -> Iterator[Path]:
    """Yield a folder with links to the stage's inputs; after a success, move the outputs to their artifacts."""
    outputs = {name: Path(arguments[name].path) for name in stage.writes}
    first = next(iter(outputs.values()))  # the folder is beside it on the same disk, so that moving is only renaming
    with temporary_folder(first) as root:
        places = stage.paths(root, trials, trial)
        for name in stage.reads:
            if isinstance(places[name], list):
                links = zip(places[name], _sort_by_trial(arguments[name], trials))
            else:
                links = zip([places[name]], [arguments[name]])
            for place, artifact in links:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(artifact.path).resolve())
        yield root
        for name, path in outputs.items():
            with store.atomic(path) as temporary:
                shutil.move(places[name], temporary)


def _sort_by_trial(artifacts: Sequence[KfpArtifact], trials: Sequence[int]) -> list[KfpArtifact]:
    """Return the artifacts of all trials in the order of `trials`, which their metadata state; KFP's order may differ."""
    by_trial = {int(artifact.metadata["trial"]): artifact for artifact in artifacts}
    return [by_trial[trial] for trial in trials]


@contextmanager
def _stage_log(stage: stages.Stage, params: Params, places: Mapping[str, Any], trial: int | None) -> Iterator[Log]:
    """Yield the log of a stage, which writes to the console and, in a run of the pipeline, also to MLflow."""
    from aupair.registry import live_logging
    from aupair.registry.runs import collect_stage_run

    console = ConsoleLog()
    if not live_logging.runs_in_pipeline():
        yield console
        return
    begun = collect_stage_run(stage, params, {}, trial)
    collect = partial(collect_stage_run, stage, params, places, trial)
    with live_logging.log_while_running(begun, params.register_model.experiment, collect, console) as log:
        yield log


def _execute(stage: stages.Stage, params: Params, root: Path, trial: int | None, log: Log) -> None:
    """Run the stage in this process, or with several GPUs in one process for each, with torchrun."""
    processes = int(os.environ.get(PROCESSES, "1"))
    if processes == 1 or not stage.resumable:
        stages.run_stage(stage.name, params, root=root, trial=trial, log=log)
        return
    own = params.model_dump(mode="json", include=params.model_fields_set)
    store.write_json(root / "params.yaml", own)  # JSON is YAML
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    aupair = ["-m", "aupair", "run", stage.name, "--own-sections", *([] if trial is None else ["--trial", str(trial)])]
    process = subprocess.run([*torchrun, *aupair, "--root", str(root), "--params", str(root / "params.yaml")])
    if process.returncode:
        raise RunFailedError(
            f"{stage.name} on {processes} processes", got=f"exit code {process.returncode}", todo="see above"
        )


def _write_views(places: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Write the outputs for KFP's web UI: scores and curves of a training stage, and scores of evaluate."""
    if "curves" in arguments:
        from aupair.registry.runs import curve_points
        from aupair.report.document import html_page
        from aupair.report.figures import training_curves

        trained = next(places[name] for name in ("mapping", "h", "f") if name in places)  # the stage's own output
        rows = store.read_jsonl(trained / "curves.jsonl")
        last_values = {name: value for name, value, _ in curve_points(rows)}
        for name, value in last_values.items():
            arguments["scores"].log_metric(name, value)
        page = html_page("report/curves.j2", "aupair: curves", "Training", drawings=training_curves(rows))
        store.write_text(Path(arguments["curves"].path), page)
    if "summary" in arguments and "registered" not in arguments:
        for name, value in store.read_json(places["summary"]).items():
            if value is not None:
                arguments["summary"].log_metric(name, value)


def _metadata(places: Mapping[str, Any], trial: int | None) -> dict[str, Any]:
    """Return the origin of the outputs: version, commit, trial and the hash of the data."""
    metadata: dict[str, Any] = {"aupair": __version__, "git_commit": os.environ.get("AUPAIR_GIT_COMMIT", "")}
    if trial is not None:
        metadata["trial"] = trial
    if "info" in places and places["info"].is_file():
        metadata["data_md5"] = read_data_md5(places["info"])
    return {key: value for key, value in metadata.items() if value != ""}
