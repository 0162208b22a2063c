"""What a component's body calls: a stage on KFP's artifacts, by the very function that DVC and `aupair run` call.

The artifacts of a task lie where KFP put them. They are linked into a folder laid out as a checkout is, the stage runs
there, and what it wrote is moved to where KFP takes it from.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from aupair import __version__, stages, store
from aupair.console import ConsoleLog
from aupair.errors import RunFailedError
from aupair.kubeflow import views
from aupair.kubeflow.cluster import PROCESSES
from aupair.log import Log
from aupair.params import Params, parse_params


class Artifact(Protocol):
    """What is used of `kfp.dsl.Artifact`: a file or folder, and what is said of it."""

    path: str
    metadata: dict[str, Any]


def run_stage(name: str, given: Mapping[str, Any]) -> None:
    """Run a stage of the flow inside its component.

    Args:
        given: the component's arguments: artifacts and sections of the params by their names, and `trial`.

    Raises:
        AupairError: as the stage does.
    """
    stage = stages.find(name)
    trial = int(given["trial"]) if stage.per_trial else None
    params = params_of(stage, given, trial)
    with laid_out(stage, given, params.trials, trial) as root:
        places = stage.paths(root, params.trials, trial)
        with _heard(stage, params, places, trial) as log:
            _run(stage, params, root, trial, log)
        views.show(places, given)
        about = _about(places, trial)
        for artifact in stage.writes:
            given[artifact].metadata.update(about)


def params_of(stage: stages.Stage, given: Mapping[str, Any], trial: int | None) -> Params:
    """Give Params of the sections that a component gets; KFP hands whole numbers over as floats."""
    sections = {key: value for key, value in given.items() if key in Params.model_fields}
    return parse_params(
        ({} if trial is None else {"trials": [trial]}) | sections, where=f"the arguments of {stage.name}"
    )


@contextmanager
def laid_out(stage: stages.Stage, given: Mapping[str, Any], trials: Sequence[int], trial: int | None) -> Iterator[Path]:
    """Give a folder in which the stage finds its inputs; on success move its outputs to their artifacts."""
    outputs = {name: Path(given[name].path) for name in stage.writes}
    beside = next(iter(outputs.values())).parent  # on the same disk, so that moving is renaming
    beside.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".stage-", dir=beside))
    try:
        places = stage.paths(root, trials, trial)
        for name in stage.reads:
            if isinstance(places[name], list):
                links = zip(places[name], in_order(given[name], trials))
            else:
                links = zip([places[name]], [given[name]])
            for place, artifact in links:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(artifact.path).resolve())
        yield root
        for name, path in outputs.items():
            with store.atomic(path) as temporary:
                shutil.move(places[name], temporary)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def in_order(artifacts: Sequence[Artifact], trials: Sequence[int]) -> list[Artifact]:
    """Put what all trials wrote into the order of `trials`, by the trial that each names, not by its place."""
    of_trial = {int(artifact.metadata["trial"]): artifact for artifact in artifacts}
    return [of_trial[trial] for trial in trials]


def fetch_data(source: str, revision: str, remote: str, data: Artifact) -> None:
    """Bring the data folder, and say on the artifact where it came from.

    Raises:
        AupairError: see `aupair.data.fetch`.
    """
    from aupair.data.fetch import fetch

    found = fetch(source, Path(data.path), revision=revision, remote=remote, log=ConsoleLog())
    data.metadata.update({"source": found.source, "data_commit": found.commit, "files": found.files})


@contextmanager
def _heard(stage: stages.Stage, params: Params, places: Mapping[str, Any], trial: int | None) -> Iterator[Log]:
    """Give the stage's log: the console, and in a pipeline's run MLflow as well."""
    from aupair.registry import live_logging
    from aupair.registry.runs import collect_stage_run

    console = ConsoleLog()
    if not live_logging.runs_in_pipeline():
        yield console
        return
    begun = collect_stage_run(stage, params, {}, trial)
    rest = partial(collect_stage_run, stage, params, places, trial)
    with live_logging.log_while_running(begun, params.register_model.experiment, rest, console) as log:
        yield log


def _run(stage: stages.Stage, params: Params, root: Path, trial: int | None, log: Log) -> None:
    """Run the stage in this process; on several GPUs, in one process for each."""
    processes = int(os.environ.get(PROCESSES, "1"))
    if processes == 1 or not stage.resumable:
        stages.run(stage.name, params, root=root, trial=trial, log=log)
        return
    store.write_json(root / "params.yaml", params.model_dump(mode="json"))  # JSON is YAML
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    stage_there = ["-m", "aupair", "run", stage.name, "--trial", str(trial)]
    done = subprocess.run([*torchrun, *stage_there, "--root", str(root), "--params", str(root / "params.yaml")])
    if done.returncode:
        raise RunFailedError(
            f"{stage.name} on {processes} processes", got=f"exit code {done.returncode}", todo="see above"
        )


def _about(places: Mapping[str, Any], trial: int | None) -> dict[str, Any]:
    """Say of the outputs what they are from."""
    about: dict[str, Any] = {"aupair": __version__, "git_commit": os.environ.get("AUPAIR_GIT_COMMIT", "")}
    if trial is not None:
        about["trial"] = trial
    if "info" in places and places["info"].is_file():
        about["data_md5"] = store.read_json(places["info"])["md5"]
    return {key: value for key, value in about.items() if value != ""}
