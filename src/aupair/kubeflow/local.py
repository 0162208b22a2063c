"""Run a compiled pipeline on this machine: the very file that is submitted, in subprocesses or in containers.

kfp runs the tasks; how one task is run is ours (`aupair.kubeflow.tasks`), so that each has a log of its own, a container
that failed is not taken for a success, and what went wrong is said at the end.
"""

import contextlib
import secrets
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aupair import store
from aupair.errors import ParamsError, RunFailedError
from aupair.kubeflow.compiled import Compiled, effective
from aupair.kubeflow.tasks import Containers, Subprocesses, Tasks
from aupair.log import SILENT, Log
from aupair.registry import live_logging, mlflow_store

KFP = "2.17."
"""The versions of kfp whose task handlers are known to be as `aupair.kubeflow.tasks` takes them."""
PAGES = ("gather-predictions/overview", "summarise/summary")


@dataclass(frozen=True)
class LocalRun:
    """A run that succeeded.

    Attributes:
        run_id: by which MLflow knows it.
        folder: its artifacts and logs.
        summary: the pages that it left for people.
    """

    run_id: str
    folder: Path
    summary: str


def run_local(
    compiled: Compiled, given: Mapping[str, Any], out: Path, *, containers: bool = False, log: Log = SILENT
) -> LocalRun:
    """Run a compiled pipeline and wait for its end.

    Args:
        given: arguments, checked (`compiled.arguments`).
        out: the folder in which the run gets one of its own: `artifacts`, `logs` (one a task), `kfp.log`.
        containers: run each task in a container of the compiled image, by the Docker API (docker or podman).

    Raises:
        RunFailedError: a task failed; which, why, and where its log is.
        UnreachableError: there is no container engine.
    """
    import kfp
    from kfp import components, local

    if not kfp.__version__.startswith(KFP):
        raise ParamsError("local runs", got=f"kfp {kfp.__version__}", expected=f"kfp {KFP}*", todo="install the lock")
    run_id = f"local-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = out.resolve() / run_id
    try:
        (folder / "logs").mkdir(parents=True)
    except OSError as error:
        raise store.unwritable(folder, error) from error
    environment = variables(run_id, effective(compiled, given), out)
    kind = Containers if containers else Subprocesses
    tasks = kind(folder / "logs", environment, folders(given, environment), log)
    with tasks.watched() as runner, _stopped_by_a_signal(tasks), _quiet(folder / "kfp.log"):
        local.init(runner=runner, pipeline_root=str(folder / "artifacts"), raise_on_error=True)
        function = components.load_component_from_file(str(compiled.path))
        try:
            function(**given)
        except RuntimeError as error:
            problem = failure(tasks, error, folder)
            if failed := tasks.failed():
                log.line(failed.traceback())
            raise problem from error
    return LocalRun(run_id, folder, _pages(folder))


def variables(run_id: str, values: Mapping[str, Any], out: Path) -> dict[str, str]:
    """Give the environment that every task gets: the run's id, where MLflow is, where checkpoints are kept."""
    found = {
        live_logging.RUN_ID: run_id,
        "MLFLOW_TRACKING_URI": mlflow_store.tracking_uri(),
        "AUPAIR_CHECKPOINTS": str(out.resolve() / "checkpoints"),
    }
    experiment = (values.get("register_model") or {}).get("experiment")
    return found | ({live_logging.EXPERIMENT: experiment} if experiment else {})


def folders(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[Path, bool]:
    """Give the folders of this machine that tasks use, and whether they write there: what containers must see."""
    found = {Path(environment["AUPAIR_CHECKPOINTS"]): True}
    database = mlflow_store.sqlite_path(environment["MLFLOW_TRACKING_URI"])
    if database is not None:
        found[database.parent] = True
    source = str(given.get("source", "")).removeprefix("git+").removeprefix("file://")
    if source.startswith("/") and Path(source).exists():
        found[Path(source)] = False
    model = str(given.get("model", ""))
    if model.startswith("/") and Path(model).exists():
        found[Path(model)] = False
    return found


def failure(tasks: Tasks, error: Exception, folder: Path) -> RunFailedError:
    """Give the error of the first task that failed for good; of none, what kfp said."""
    failed = tasks.failed()
    if failed is None:
        got = str(error).replace("\x1b", "").splitlines()[0]
        return RunFailedError("the local run failed", got=got, todo=f"see {folder / 'kfp.log'}")
    cause = failed.cause() or f"exit code {failed.code}"
    return RunFailedError(f"{failed.title} failed", where=failed.log, got=cause, todo="the log has the rest")


@contextlib.contextmanager
def _stopped_by_a_signal(tasks: Tasks) -> Iterator[None]:
    """End the tasks on Ctrl-C and SIGTERM, before kfp waits for them."""

    def stop(*_: object) -> None:
        tasks.stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet(kfp_log: Path) -> Iterator[None]:
    """Send what kfp prints into a file: tasks have logs of their own, and two at once would mix."""
    with open(kfp_log, "w") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp: settings that only a cluster knows; `aupair pipeline plan` lists them
        yield


def _pages(folder: Path) -> str:
    """Read what the run left for people: the overview of predictions, the exit handler's summary."""
    found = (path for name in PAGES for path in sorted(folder.glob(f"artifacts/*/{name}")))
    return "\n".join(path.read_text() for path in found)
