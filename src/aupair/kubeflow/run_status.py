"""Runs on a server: list them, wait for them, stop them, and read their logs (`aupair pipeline status | logs | cancel`)."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aupair.errors import AupairError, RejectedError, RunFailedError, TimedOutError, UnreachableError
from aupair.kubeflow.run_tasks import FINISHED, duration, failed_tasks, format_duration, get_run, list_tasks
from aupair.kubeflow.server import Connection
from aupair.kubeflow.server_errors import NotReadyError, kfp_errors
from aupair.log import Log

if TYPE_CHECKING:
    from kfp_server_api import V2beta1Run

_POLL_SECONDS = 5.0
_LOG_SECONDS = 60.0
_FAILED_POLLS = 60
"""Number of consecutive failed polls after which waiting for a run ends; a restart of the server takes fewer."""

_LAUNCHER_LINE = re.compile(r"I\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \w+\.go:\d+\] ")
"""The prefix of an informational line that Kubeflow's launcher writes to a task's log."""


class StillRunning(AupairError):
    """The wait for a run was ended with Ctrl-C, and the run continues on the server; the exit code is 130, as in shells."""

    exit_code = 130


@dataclass(frozen=True)
class TaskLog:
    """The log of one pod of a task.

    Attributes:
        task: the task's name and state.
        text: the log; None if the server does not have it.
        reason: why there is no log.
    """

    task: str
    pod: str
    text: str | None
    reason: str = ""


class RunRow(NamedTuple):
    """A run in a list: its id, name, state, time of creation and duration."""

    id: str
    name: str
    state: str
    created: str
    duration: str


def list_runs(connection: Connection, count: int) -> list[RunRow]:
    """Return the latest runs."""
    with kfp_errors(connection.server, "list the runs"):
        answer = connection.runs.run_service_list_runs(
            namespace=connection.namespace, page_size=count, sort_by="created_at desc"
        )
    return [_run_row(run) for run in answer.runs or ()]


def _run_row(run: "V2beta1Run") -> RunRow:
    created = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else ""
    seconds = duration(run.created_at, run.finished_at)
    return RunRow(str(run.run_id), str(run.display_name), run.state or "PENDING", created, format_duration(seconds))


def wait_for_run(connection: Connection, run_id: str, where: str, timeout: float, log: Log) -> str:
    """Wait until a run has finished, and return its duration as text.

    Args:
        where: the run's URL, or another name, for messages.

    Raises:
        RunFailedError: the run finished without success; the error names the failed tasks.
        TimedOutError: the run did not finish within `timeout` seconds.
        StillRunning: Ctrl-C.
    """
    try:
        run, seconds = _poll(connection, run_id, where, timeout, log)
    except KeyboardInterrupt:
        raise StillRunning("stopped waiting", todo=f"the run continues: {where}") from None
    took, state = format_duration(seconds), str(run.state)
    if state not in ("SUCCEEDED", "SKIPPED"):
        names = ", ".join(failed_tasks(run))
        got = f"failed tasks: {names}" if names else "no failed task"
        if run.error and run.error.message:
            got += f": {connection.server.scrub(run.error.message)[:300]}"
        todo = f"see `aupair pipeline logs {run_id}`"
        raise RunFailedError(f"the run ended as {state} after {took}", where=where, got=got, todo=todo)
    return took


def cancel_run(connection: Connection, run_id: str) -> None:
    """Stop a run; its exit task still runs.

    Raises:
        RejectedError: the run has ended or is being stopped already, or the server refuses.
    """
    run = get_run(connection, run_id)
    if run.state in (*FINISHED, "CANCELING"):
        raise RejectedError("the run has ended, or is being stopped", where=f"run {run_id}", got=run.state)
    with kfp_errors(connection.server, f"stop run {run_id}"):
        connection.runs.run_service_terminate_run(run_id)


def wait_for_end(connection: Connection, run_id: str, timeout: float, log: Log) -> str:
    """Wait until a run has ended, and return its state."""
    run, _ = _poll(connection, run_id, f"run {run_id}", timeout, log)
    return str(run.state)


def _poll(connection: Connection, run_id: str, where: str, timeout: float, log: Log) -> "tuple[V2beta1Run, float]":
    """Poll a run until it has finished; tolerate some minutes without an answer."""
    start, logged, state, failures = time.monotonic(), 0.0, "", 0
    while True:
        current = state
        try:
            run = get_run(connection, run_id)
            failures, current = 0, str(run.state or "PENDING")
        except (UnreachableError, NotReadyError) as error:
            failures += 1
            if failures >= _FAILED_POLLS:
                raise
            if failures == 1:
                log.line(f"  polling again: {error}")
        elapsed = time.monotonic() - start
        if current != state or elapsed - logged > _LOG_SECONDS:
            state, logged = current, elapsed
            log.line(f"  {state.lower()}, {format_duration(elapsed)}")
        if state in FINISHED:
            return run, elapsed
        if elapsed >= timeout:
            got = f"{state.lower()} after {format_duration(elapsed)}"
            raise TimedOutError(
                "the run has not finished", where=where, got=got, todo="the run continues; open its page"
            )
        time.sleep(min(_POLL_SECONDS, timeout - elapsed))


def read_logs(connection: Connection, run: "V2beta1Run", task: str = "") -> Iterator[TaskLog]:
    """Yield the logs of one task, or of the failed ones, or of all if none failed.

    Raises:
        RejectedError: no task of that name has begun.
    """
    tasks = list_tasks(run)
    chosen = [row for row in tasks if (row.name == task if task else row.state == "FAILED")]
    if task and not chosen:
        todo = f"known tasks: {', '.join(dict.fromkeys(row.name for row in tasks)) or 'none yet'}"
        raise RejectedError("no such task", where=f"run {run.run_id}", got=task, todo=todo)
    for row in chosen or tasks:
        for pod in row.pods:
            title = f"{row.name}, {row.state}"
            try:
                text = connection.read_log(str(run.run_id), pod, f"{run.created_at:%Y-%m-%d}")
                lines = [line for line in text.splitlines() if not _LAUNCHER_LINE.match(line)]
                yield TaskLog(title, pod, "\n".join(lines))
            except RejectedError as error:
                yield TaskLog(title, pod, None, str(error))


def kubectl_logs(run_id: str, namespace: str = "") -> str:
    """Return the kubectl command that shows the logs of all pods of a run, including Kubeflow's drivers."""
    return f"kubectl -n {namespace or 'NAMESPACE'} logs -l pipeline/runid={run_id} -c main --prefix --tail=-1"
