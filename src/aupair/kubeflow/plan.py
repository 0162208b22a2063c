"""Say what a compiled file would run: each task, how often, with what, what for; and what a runner does not heed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aupair.kubeflow.compiled import Compiled, effective

Runner = Literal["subprocesses", "containers", "cluster"]

ALWAYS = "always"
CACHED = "unless equal inputs ran before on that server"
AT_THE_END = "at the end, whatever happened"


@dataclass(frozen=True)
class Planned:
    """A task of the pipeline.

    Attributes:
        name: the component's, with hyphens.
        times: how often it runs, such as `3 (trial 0, 1, 2)`.
        why: when it runs.
        params: the parameters it gets, with the values of this run: scalars, and sections by name.
        asks: resources, retries and what else the file asks a cluster for, by name.
    """

    name: str
    times: str
    why: str
    params: Mapping[str, Any]
    asks: Mapping[str, str]


def plan(compiled: Compiled, given: Mapping[str, Any], runner: Runner = "cluster") -> list[Planned]:
    """List the tasks in the order in which they can run.

    Args:
        given: arguments, checked (`compiled.arguments`).
    """
    values = effective(compiled, given)
    return list(_tasks(compiled, compiled.spec["root"]["dag"]["tasks"], values, "1", runner))


def not_heeded(compiled: Compiled, runner: Runner) -> list[str]:
    """Say in a line each which settings of the file the runner leaves aside, and what it does instead."""
    if runner == "cluster":
        return []
    tasks = plan(compiled, {}, "cluster")
    asked = sorted({key for task in tasks for key in task.asks} - {"retries"})
    if compiled.platform.get("platforms", {}).get("kubernetes", {}).get("pipelineConfig"):
        asked.append("ttl and deadline")
    instead = {
        "secrets": "the environment of this shell",
        "pvcs": "folders of this machine; checkpoints lie in the run's folder",
        "run id": "an id of its own",
    }
    lines = [f"{key}: {instead.get(key, 'not heeded')}" for key in asked]
    if runner == "subprocesses":
        lines.insert(0, f"image {', '.join(compiled.images)}: this environment's own Python and package")
    if any(task.why == CACHED for task in tasks):
        lines.append("cache: off, every task runs")
    return [*lines, "parallelism: at most 2 at once"]


def _tasks(
    compiled: Compiled, tasks: Mapping[str, Any], values: Mapping[str, Any], times: str, runner: Runner
) -> Iterator[Planned]:
    """Walk a graph of tasks, in order, into loops and exit handlers."""
    for name in _ordered(tasks):
        task = tasks[name]
        component = compiled.spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            inner = _times(task, values) or times
            yield from _tasks(compiled, component["dag"]["tasks"], values, inner, runner)
            continue
        label = component["executorLabel"]
        at_the_end = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        cached = task.get("cachingOptions", {}).get("enableCache") and runner == "cluster"
        params = {
            key: values[key] for key in component.get("inputDefinitions", {}).get("parameters", {}) if key in values
        }
        why = AT_THE_END if at_the_end else CACHED if cached else ALWAYS
        yield Planned(task["taskInfo"]["name"], times, why, params, _asks(compiled, label, task))


def _plain(value: Any) -> Any:
    """Write a whole float as an int: the file knows numbers only."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(tasks: Mapping[str, Any]) -> list[str]:
    """Sort tasks so that each stands after those it depends on, else by name."""
    left, done = dict(sorted(tasks.items())), []
    while left:
        ready = [name for name, task in left.items() if not set(task.get("dependentTasks", ())) & set(left)]
        done += ready
        left = {name: task for name, task in left.items() if name not in ready}
    return done


def _times(task: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Say how often a loop runs; empty for a graph that is none."""
    items = task.get("parameterIterator", {}).get("items", {})
    if not items:
        return ""
    listed = values.get(items.get("inputParameter", "").removeprefix("pipelinechannel--"))
    if not isinstance(listed, list):
        return f"once a shard, at most {int(values['shards'])}" if "shards" in values else "once an item"
    return f"{len(listed)} (trial {', '.join(str(int(item)) for item in listed)})"


def _asks(compiled: Compiled, label: str, task: Mapping[str, Any]) -> dict[str, str]:
    """Say what the file asks a cluster for, for one task."""
    container = compiled.spec["deploymentSpec"]["executors"][label]["container"]
    resources = container.get("resources", {})
    gpu = resources.get("accelerator", {})
    kubernetes = (
        compiled.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    ).get(label, {})
    found = {
        "GPU": f"{gpu.get('resourceCount', gpu.get('count'))} {gpu.get('resourceType', gpu.get('type'))}"
        if gpu
        else "",
        "memory": str(resources.get("resourceMemoryLimit", "")),
        "cpu": str(resources.get("resourceCpuLimit", "")),
        "secrets": " ".join(secret["secretName"] for secret in kubernetes.get("secretAsEnv", ())),
        "pvcs": " ".join(str(mount.get("constant", "")) for mount in kubernetes.get("pvcMount", ())),
        "scratch": " ".join(volume["size"] for volume in kubernetes.get("genericEphemeralVolume", ())),
        "shm": " ".join(mount["sizeLimit"] for mount in kubernetes.get("emptyDirMounts", ())),
        "tolerations": str(len(kubernetes.get("tolerations", ())) or ""),
        "node": " ".join(f"{k}={v}" for k, v in kubernetes.get("nodeSelector", {}).get("labels", {}).items()),
        "timeout": f"{kubernetes['activeDeadlineSeconds']} s" if "activeDeadlineSeconds" in kubernetes else "",
        "run id": "yes" if "fieldPathAsEnv" in kubernetes else "",
        "pull policy": kubernetes.get("imagePullPolicy", ""),
        "retries": str(task.get("retryPolicy", {}).get("maxRetryCount", "")),
    }
    return {key: value for key, value in found.items() if value}
