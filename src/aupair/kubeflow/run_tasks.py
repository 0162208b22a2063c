"""The tasks of a run on a Kubeflow server: their states, durations and pods.

The server lists every node of the Argo workflow: each task, but also drivers, executors, loops and handlers. It returns no
error text. It lists a node's children by their Argo ids, from which the pod names are computed.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aupair.kubeflow.server_errors import kfp_errors

if TYPE_CHECKING:
    from kfp_server_api import V2beta1Run

    from aupair.kubeflow.server import Connection

FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
"""The states of a run that has ended."""

OMITTED = "OMITTED"
"""The state of a task that did not run because an earlier task failed."""

_NO_STATE = "RUNTIME_STATE_UNSPECIFIED"
"""The state that the server reports for such a task."""


@dataclass(frozen=True)
class RunTask:
    """One task of a run; a task in a loop occurs once per iteration.

    Attributes:
        name: the task's name in the pipeline, or that of its driver if that failed: `train-mapping-driver`.
        state: the state that the server reports, or OMITTED.
        seconds: its duration, including the time that its pod waited for a node; None if it has not ended.
        pods: the names of its pods: one, or one for each attempt; none for a driver.
    """

    name: str
    state: str
    seconds: float | None
    pods: tuple[str, ...]


def get_run(connection: "Connection", run_id: str) -> "V2beta1Run":
    """Return a run with its pipeline spec, which is fetched separately if the run only refers to an uploaded pipeline.

    Raises:
        AupairError: there is no run with this id, or the request fails; see `server_errors.kfp_errors`.
    """
    with kfp_errors(connection.server, f"show run {run_id}"):
        run = connection.runs.run_service_get_run(run_id)
        if (version := run.pipeline_version_reference) and not run.pipeline_spec:
            run.pipeline_spec = connection.pipelines.pipeline_service_get_pipeline_version(
                version.pipeline_id, version.pipeline_version_id
            ).pipeline_spec
    return run


def list_tasks(run: "V2beta1Run") -> list[RunTask]:
    """Return the tasks of a run in the order in which they began; drivers only if they failed."""
    details = (run.run_details.task_details if run.run_details else None) or ()
    templates = _templates(run.pipeline_spec or {})
    nodes = {node for row in details for node in _children(row)}
    rows = [row for row in details if _is_task(row, templates)]
    rows.sort(key=lambda row: (row.start_time is None, row.start_time or 0, row.display_name))
    return [_task(row, templates.get(row.display_name, ""), nodes) for row in rows]


def is_cut_off(run: "V2beta1Run") -> bool:
    """Return whether the list of tasks of a finished run is incomplete, since the exit task is missing.

    A server cannot read a run's state after Argo has compressed it, which Argo does above 1 MiB.
    """
    return run.state in FINISHED and "summarise" not in {task.name for task in list_tasks(run)}


def failed_tasks(run: "V2beta1Run") -> list[str]:
    """Return the names of the failed tasks, with the number of failed iterations for a task in a loop."""
    count = Counter(task.name for task in list_tasks(run) if task.state == "FAILED")
    return [name if number == 1 else f"{name} ({number} times)" for name, number in count.items()]


def duration(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times of the server, which writes 1970 for a time that is not set."""
    if start is None or end is None or min(start.year, end.year) <= 1970:
        return None
    return (end - start).total_seconds()


def format_duration(seconds: float | None) -> str:
    """Return a duration as text: `2 h 3 min`, `3 min 4 s`, `5 s`; empty for None."""
    if seconds is None:
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _is_task(row: Any, templates: Collection[str]) -> bool:
    """Return whether a node is one of the tasks, or a driver that failed."""
    name = str(row.display_name)
    return bool(row.state == "FAILED") if name.endswith("-driver") else name in templates


def _task(row: Any, template: str, nodes: Collection[str]) -> RunTask:
    """Return a task from its node and the ids of all nodes."""
    state = OMITTED if not row.state or row.state == _NO_STATE else row.state
    below = [] if row.display_name.endswith("-driver") else _children(row)
    # server 2.17.0 lists as children of a node not only its parts, but also the tasks that follow it
    parts = {_node_below(node, suffix) for node in nodes for suffix in (".executor", *map("({})".format, range(10)))}
    below = [node for node in below if node in parts] or below
    pods = tuple(pod for node in below for pod in _pod_names(node, template, nodes))
    return RunTask(row.display_name, state, duration(row.start_time, row.end_time), pods)


def _children(row: Any) -> list[str]:
    """Return the ids of the nodes below a node."""
    names = [child.pod_name or "" for child in row.child_tasks or ()]
    return [name for name in names if name.rpartition("-")[2].isdigit()]


def _templates(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the tasks that run a container, each with its template in Argo; empty for a run without a spec."""
    spec = spec.get("pipeline_spec", spec)
    components = spec.get("components", {})
    return {
        name: "retry-system-container-impl" if "retryPolicy" in task else "system-container-impl"
        for component in (spec.get("root", {}), *components.values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if "executorLabel" in components.get(task["componentRef"]["name"], {})
    }


def _pod_names(node: str, template: str, nodes: Collection[str]) -> Iterator[str]:
    """Yield the names of the pods below a node, `workflow-template-hash`; a node's id is `workflow-hash`.

    A retried node has a child for each attempt, with `(0)`, `(1)` ... appended to its name; a task's container runs in its
    child `.executor`.
    """
    tries = list(itertools.takewhile(nodes.__contains__, (_node_below(node, f"({i})") for i in itertools.count())))
    executor = _node_below(node, ".executor")
    for below in tries or ([executor] if executor in nodes else ()):
        yield from _pod_names(below, template, nodes)
    if not tries and executor not in nodes:
        workflow, _, digest = node.rpartition("-")
        yield f"{workflow}-{template}-{digest}"


def _node_below(node: str, suffix: str) -> str:
    """Return the id of the node whose full name is this node's plus a suffix; an id ends in the FNV-1a hash of the full name."""
    workflow, _, digest = node.rpartition("-")
    number = int(digest)
    for byte in suffix.encode():
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{workflow}-{number}"
