"""The table of the tasks of a compiled pipeline, which `aupair pipeline compile` prints."""

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

from aupair.kubeflow.pipeline_file import PipelineFile

ALWAYS = "always"
CACHED = "unless equal inputs ran before"
AT_THE_END = "at the end, also after a failure"


class TaskRow(NamedTuple):
    """A task: its name, how often and when it runs, the pipeline inputs that it receives, its settings for the cluster."""

    name: str
    times: str
    when: str
    inputs: str
    settings: str


def tabulate_tasks(file: PipelineFile) -> list[TaskRow]:
    """Return the tasks in a valid order of execution."""
    return list(_walk(file, file.spec["root"]["dag"]["tasks"]))


def _walk(file: PipelineFile, tasks: Mapping[str, Any]) -> Iterator[TaskRow]:
    """Yield the tasks of a graph in topological order, including those in loops and exit handlers."""
    for name in TopologicalSorter(
        {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
    ).static_order():
        task = tasks[name]
        component = file.spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _walk(file, component["dag"]["tasks"])
            continue
        at_the_end = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        when = AT_THE_END if at_the_end else CACHED if task.get("cachingOptions", {}).get("enableCache") else ALWAYS
        parameters = component.get("inputDefinitions", {}).get("parameters", {})
        times = next((f"once a {loop}" for loop in ("trial", "shard") if loop in parameters), "once")
        inputs = ", ".join(key for key in parameters if key in file.inputs)
        yield TaskRow(task["taskInfo"]["name"], times, when, inputs, _settings(file, component["executorLabel"], task))


def _settings(file: PipelineFile, label: str, task: Mapping[str, Any]) -> str:
    """Return a task's resources and retries as text."""
    resources = file.spec["deploymentSpec"]["executors"][label]["container"].get("resources", {})
    gpu = resources.get("accelerator", {})
    settings = {
        "GPUs": gpu.get("resourceCount"),
        "memory": resources.get("resourceMemoryLimit"),
        "CPUs": resources.get("resourceCpuLimit"),
        "retries": task.get("retryPolicy", {}).get("maxRetryCount"),
    }
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value)
