"""The local run of a compiled pipeline, in subprocesses or containers (`aupair pipeline run FILE.yaml --local`).

kfp runs the graph, and `aupair.kubeflow.local_tasks` runs each task, so that each task has its own log, a failed container is
not reported as a success, and the error names the task and its cause.
"""

import contextlib
import secrets
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aupair import store
from aupair.errors import RunFailedError
from aupair.kubeflow.cluster import CHECKPOINTS, VOLUMES
from aupair.kubeflow.local_tasks import LocalTasks
from aupair.kubeflow.pipeline_file import PipelineFile
from aupair.log import SILENT, Log
from aupair.registry import live_logging, mlflow_store
from aupair.registry.runs import LOCAL, RUN_ID

_PAGES = ("gather-predictions/overview", "summarise/result")


def run_local(
    file: PipelineFile, arguments: Mapping[str, Any], out: Path, *, containers: bool = False, log: Log = SILENT
) -> tuple[Path, str]:
    """Run a compiled pipeline and wait for its end.

    Args:
        arguments: from `pipeline_file.parse_arguments`.
        out: the parent of the run's own folder, which holds `artifacts`, `logs` (one for each task) and `kfp.log`.
        containers: run each task in a container of the compiled image, by the Docker API (docker or podman).

    Returns:
        The run's folder, named by its run id, and the text of its Markdown pages (overview, summary).

    Raises:
        RunFailedError: a task failed; the error names it, its cause and its log.
        UnreachableError: there is no container engine.
    """
    from kfp import components, local

    run_id = f"{LOCAL}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = out.resolve() / run_id
    with store.writing(folder):
        (folder / "logs").mkdir(parents=True)
    environment = _environment(run_id, file.values(arguments), out)
    tasks = LocalTasks(folder / "logs", environment, _used_folders(arguments, environment), log)
    with tasks.kfp_runner(containers) as runner, _stopped_by_a_signal(tasks), _kfp_output_in(folder / "kfp.log"):
        local.init(runner=runner, pipeline_root=str(folder / "artifacts"), raise_on_error=True)
        pipeline = components.load_component_from_file(str(file.path))
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            raise _failure(tasks, error, folder, log) from error
    pages = (path for name in _PAGES for path in sorted(folder.glob(f"artifacts/*/{name}")))
    return folder, "\n".join(path.read_text() for path in pages)


def _environment(run_id: str, values: Mapping[str, Any], out: Path) -> dict[str, str]:
    """Return the variables that every task gets: the run's id, the MLflow server, the folder of the checkpoints."""
    environment = {
        RUN_ID: run_id,
        "MLFLOW_TRACKING_URI": mlflow_store.tracking_uri(),
        CHECKPOINTS: str(out.resolve() / "checkpoints"),
        VOLUMES: "",  # the volumes of a cluster are not used here
    }
    experiment = (values.get("register_model") or {}).get("experiment")
    return environment | ({live_logging.EXPERIMENT: experiment} if experiment else {})


def _used_folders(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> dict[Path, bool]:
    """Return the folders of this machine to mount in containers, each with whether tasks write there."""
    folders = {Path(environment[CHECKPOINTS]): True}
    database = mlflow_store.sqlite_path(environment["MLFLOW_TRACKING_URI"])
    if database is not None:
        folders[database.parent] = True
    source = str(arguments.get("source", "")).removeprefix("git+").removeprefix("file://")
    for text in (source, str(arguments.get("model", ""))):
        if text.startswith("/") and Path(text).exists():
            folders[Path(text)] = False
    return folders


def _failure(tasks: LocalTasks, error: Exception, folder: Path, log: Log) -> RunFailedError:
    """Return the error of the first task whose last attempt failed, and log its traceback; without one, kfp's error."""
    task = tasks.first_failed()
    if task is None:
        got = str(error).replace("\x1b", "").splitlines()[0]
        return RunFailedError("the local run failed", got=got, todo=f"see {folder / 'kfp.log'}")
    log.line(task.traceback())
    cause = task.cause() or f"exit code {task.code}"
    return RunFailedError(f"{task.title} failed", where=task.log, got=cause, todo="the log has the rest")


@contextlib.contextmanager
def _stopped_by_a_signal(tasks: LocalTasks) -> Iterator[None]:
    """End the tasks on Ctrl-C and SIGTERM; kfp would wait for them."""

    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        tasks.stop()  # the exception is raised later: here it could interrupt the start of a task, which would keep running

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stopped:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _kfp_output_in(path: Path) -> Iterator[None]:
    """Redirect kfp's output to a file, since each task has its own log, and kfp would mix the output of parallel tasks."""
    with open(path, "w") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp warns about settings that only a cluster uses
        yield
