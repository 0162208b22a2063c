"""Servers older than the SDK: what they ignore in a compiled file, or refuse.

A server refuses what it does not know in `pipelineConfig`. In the settings of a task it ignores it without a word, so that
a task starts without its /dev/shm (since 2.4.1), or fails the task (before). The versions are those of the server's own
protocol files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aupair.kubeflow.compiled import Compiled

Version = tuple[int, int]

CONFIG: dict[str, tuple[str, Version]] = {
    "resourceTtlOnCompletion": ("ttl", (2, 17)),
    "activeDeadlineSeconds": ("deadline", (2, 17)),
}
"""Keys of the pipeline's settings: the compile option that emits each, and the first version that knows it."""

TASK: dict[str, tuple[str, Version]] = {
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
"""Keys of a task's settings."""

MISREAD = ("unknown template format", "pipeline spec is invalid", "platform spec is invalid")
"""What a server says of a file that it cannot read; an unknown key in the pipeline itself is told so, too."""


def unknown_field(text: str) -> tuple[str, str] | None:
    """Find in a server's words the field that it does not know, and say how to leave it out; None where there is none."""
    found = re.search(r'unknown field "(\w+)"', text)
    if found is None:
        return None
    option, since = {**TASK, **CONFIG}.get(found[1], ("", (0, 0)))
    if not option:
        return found[1], "compile for that server's version, or upgrade it"
    return found[1], f"compile without {option}, or upgrade it to {since[0]}.{since[1]}"


def parse(version: str) -> Version | None:
    """Read the first two numbers of a version such as 2.17.0; None where it is none."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def compare(compiled: Compiled, server: str) -> str:
    """Say in one line what a server does not know of a compiled file; empty where it knows all, or no version is told.

    Args:
        server: the server's version.
    """
    sdk = str(compiled.spec.get("sdkVersion", "")).removeprefix("kfp-")
    ours, theirs = parse(sdk), parse(server)
    if ours is None or theirs is None or ours <= theirs:
        return ""
    missing = sorted(f"{option} (since {a}.{b})" for option, (a, b) in _asked(compiled).items() if (a, b) > theirs)
    known = (
        f"compile without what it does not know: {', '.join(missing)}" if missing else "it knows all that is asked for"
    )
    return f"server {server} is older than the SDK {sdk} that compiled {compiled.path}; {known}"


def kubernetes(compiled: Compiled) -> Mapping[str, Any]:
    """Give what the second document says for Kubernetes."""
    found: Mapping[str, Any] = compiled.platform.get("platforms", {}).get("kubernetes", {})
    return found


def _asked(compiled: Compiled) -> dict[str, Version]:
    """Give the compile options that show in the file, with the first version that knows each."""
    platform = kubernetes(compiled)
    executors = compiled.spec["deploymentSpec"]["executors"].values()
    resources = [executor.get("container", {}).get("resources", {}) for executor in executors]
    config, task = (
        set(_keys(platform.get("pipelineConfig"))),
        {*_keys(platform.get("deploymentSpec")), *_keys(resources)},
    )
    return dict([CONFIG[key] for key in CONFIG if key in config] + [TASK[key] for key in TASK if key in task])


def _keys(tree: Any) -> Iterator[str]:
    """Give every key of a tree."""
    if isinstance(tree, Mapping):
        yield from tree
    for child in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ():
        yield from _keys(child)
