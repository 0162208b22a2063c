"""Compare the versions of the SDK and the server: what an older server ignores in a compiled file, or refuses.

A server refuses fields of `pipelineConfig` that it does not know. Unknown settings of a task are silently ignored since
2.4.1, so that a task may start without its /dev/shm; older servers fail the task. The versions are those of the server's own
protocol files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aupair.kubeflow.pipeline_file import PipelineFile

Version = tuple[int, int]

_PIPELINE_OPTIONS: dict[str, tuple[str, Version]] = {
    "resourceTtlOnCompletion": ("ttl", (2, 17)),
    "activeDeadlineSeconds": ("deadline", (2, 17)),
}
"""Keys of the pipeline's settings: the compile option that emits each, and the first version that knows it."""

_TASK_OPTIONS: dict[str, tuple[str, Version]] = {
    "secretNameParameter": ("secrets", (2, 5)),
    "pvcNameParameter": ("pvcs", (2, 5)),
    "emptyDirMounts": ("shm", (2, 3)),
    "resourceCpuLimit": ("cpu", (2, 3)),
    "resourceMemoryLimit": ("memory", (2, 3)),
    "resourceCount": ("gpus", (2, 3)),
    "genericEphemeralVolume": ("scratch", (2, 2)),
    "fieldPathAsEnv": ("run_id", (2, 1)),
    "tolerations": ("tolerations", (2, 1)),
    "imagePullPolicy": ("image_pull_policy", (2, 1)),
}
"""Keys of a task's settings, likewise."""

_UNREADABLE_FILE = ("unknown template format", "pipeline spec is invalid", "platform spec is invalid")
"""Server messages about a file that it cannot read."""


def advice_for_refusal(message: str) -> str:
    """Return what to do about a server's message, if it says that the server is older than the file; else nothing."""
    if match := re.search(r'unknown field "(\w+)"', message):
        option, since = (_TASK_OPTIONS | _PIPELINE_OPTIONS).get(match[1], ("", (0, 0)))
        if option:
            return (
                f"the server is older than the file: compile without {option}, or upgrade it to {since[0]}.{since[1]}"
            )
    if match or any(words in message for words in _UNREADABLE_FILE):
        return "the server may be older than the SDK: try `aupair pipeline doctor FILE.yaml`"
    return ""


def parse_version(version: str) -> Version | None:
    """Return the first two numbers of a version such as 2.17.0; None if it has none."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def warn_of_older_server(file: PipelineFile, server: str) -> str:
    """Return one line on what a server of that version does not know of a file; empty if it is new enough or unknown."""
    sdk = str(file.spec.get("sdkVersion", "")).removeprefix("kfp-")
    of_sdk, of_server = parse_version(sdk), parse_version(server)
    if of_sdk is None or of_server is None or of_sdk <= of_server:
        return ""
    missing = sorted(
        f"{option} (since {a}.{b})" for option, (a, b) in _used_options(file).items() if (a, b) > of_server
    )
    advice = (
        f"compile without what it does not know: {', '.join(missing)}" if missing else "it knows all that the file uses"
    )
    return f"server {server} is older than the SDK {sdk} that compiled {file.path}; {advice}"


def _used_options(file: PipelineFile) -> dict[str, Version]:
    """Return the compile options that show in the file, with the first version that knows each."""
    of_pipeline = set(_keys(file.kubernetes.get("pipelineConfig")))
    of_tasks = {*_keys(file.kubernetes.get("deploymentSpec")), *_keys(file.spec["deploymentSpec"])}
    return dict(
        [option for key, option in _PIPELINE_OPTIONS.items() if key in of_pipeline]
        + [option for key, option in _TASK_OPTIONS.items() if key in of_tasks]
    )


def _keys(tree: Any) -> Iterator[str]:
    """Yield every key of a nested tree."""
    if isinstance(tree, Mapping):
        yield from tree
    for child in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ():
        yield from _keys(child)
