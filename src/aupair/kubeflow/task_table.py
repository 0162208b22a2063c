"""List the tasks of a compiled pipeline and how often each runs: the table that `aupair pipeline compile` prints."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aupair.kubeflow.pipeline_file import PipelineFile

ALWAYS = "always"
CACHED = "unless equal inputs ran before"
AT_THE_END = "at the end, also after a failure"


class TaskRow(NamedTuple):
    """A task: its name, how often and when it runs, the pipeline inputs that it gets, its settings for the cluster."""

    name: str
    times: str
    when: str
    inputs: str
    settings: str


def list_tasks(file: PipelineFile) -> list[TaskRow]:
    """Return the tasks in an order in which they can run."""
    return list(_walk(file, file.spec["root"]["dag"]["tasks"], "once"))


def _walk(file: PipelineFile, tasks: Mapping[str, Any], times: str) -> Iterator[TaskRow]:
    """Yield the tasks of a graph, in order, into loops and exit handlers."""
    for name in _sort_by_dependency(tasks):
        task = tasks[name]
        component = file.spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _walk(file, component["dag"]["tasks"], _times(file, task) or times)
            continue
        at_the_end = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        when = AT_THE_END if at_the_end else CACHED if task.get("cachingOptions", {}).get("enableCache") else ALWAYS
        inputs = [key for key in component.get("inputDefinitions", {}).get("parameters", {}) if key in file.inputs]
        settings = _settings(file, component["executorLabel"], task)
        yield TaskRow(task["taskInfo"]["name"], times, when, ", ".join(inputs), settings)


def _sort_by_dependency(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of the tasks, each after those it depends on, else by name."""
    remaining, ordered = dict(sorted(tasks.items())), []
    while remaining:
        ready = [name for name, task in remaining.items() if not set(task.get("dependentTasks", ())) & set(remaining)]
        ordered += ready
        remaining = {name: task for name, task in remaining.items() if name not in ready}
    return ordered


def _times(file: PipelineFile, task: Mapping[str, Any]) -> str:
    """Return how often the tasks of a loop run, such as "once a shard"; return "" for a graph that is not a loop."""
    items = task.get("parameterIterator", {}).get("items", {})
    if not items:
        return ""
    source = file.inputs.get(items.get("inputParameter", "").removeprefix("pipelinechannel--"))
    if source is None or not isinstance(source.default, list):
        return "once a shard"
    return f"trials {', '.join(str(int(item)) for item in source.default)}"


def _settings(file: PipelineFile, label: str, task: Mapping[str, Any]) -> str:
    """Return the settings for the cluster in which tasks differ."""
    resources = file.spec["deploymentSpec"]["executors"][label]["container"].get("resources", {})
    gpu = resources.get("accelerator", {})
    settings = {
        "GPUs": gpu.get("resourceCount"),
        "memory": resources.get("resourceMemoryLimit"),
        "CPUs": resources.get("resourceCpuLimit"),
        "retries": task.get("retryPolicy", {}).get("maxRetryCount"),
    }
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value)
