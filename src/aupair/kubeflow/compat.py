"""The check of a compiled file against the server's version, for options that an older server drops or rejects.

A compiled file may have a second YAML document, with the settings for Kubernetes. If that has a key under `pipelineConfig` that
the server does not know, the server ignores **the whole document** without a message: no secrets, volumes or node
selectors. If a task has an unknown key, the server rejects the file. A file is therefore checked before it is sent.

The versions are the first tags of kubeflow/pipelines whose server has the key in its protocol files
(`api/v2alpha1/pipeline_spec.proto`, `kubernetes_platform/proto/kubernetes_executor_config.proto`; up to 2.4 in the revision
that its go.mod names). Keys that every supported server knows are not listed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aupair.errors import RejectedError
from aupair.kubeflow.pipeline_file import PipelineFile

Version = tuple[int, int]

MINIMUM_SERVER: Version = (2, 14)
"""The first server that gathers the outputs of a loop's iterations into a list (`dsl.Collected`); both pipelines need it."""

_WHY_MINIMUM = "since older ones do not gather the outputs of trials or shards"

_PIPELINE_KEYS: dict[str, tuple[str, Version]] = {
    "resourceTtlOnCompletion": ("ttl", (2, 17)),
    "resourceTtlOnSuccess": ("ttl", (2, 17)),
    "resourceTtlOnFailure": ("ttl", (2, 17)),
    "activeDeadlineSeconds": ("deadline", (2, 17)),
}
"""Keys of the pipeline's settings: the compile option that writes each, and the first version that knows it."""

_TASK_KEYS: dict[str, tuple[str, Version]] = {
    "securityContext": ("run_as_user and run_as_group", (2, 16)),
    "optional": ("secrets", (2, 15)),  # kfp writes `optional: false` beside each secret
}
"""Keys of a task's settings: the compile options, and the first version that knows them."""

_UNREADABLE_FILE = ("unknown template format", "pipeline spec is invalid", "platform spec is invalid")
"""Server messages about a file that it cannot read."""


def check_server_version(file: PipelineFile, version: str) -> None:
    """Check that a server of this version neither drops nor rejects a part of a file.

    Args:
        version: such as `2.17.0`; a text without a number, such as `unknown`, counts as the oldest supported server.

    Raises:
        RejectedError: the server is too old for the pipelines, or for an option that the file was compiled with.
    """
    server = parse_version(version) or MINIMUM_SERVER
    name = f"server {version}" if parse_version(version) else "a server that does not report its version"
    if server < MINIMUM_SERVER:
        raise RejectedError(
            "the server is too old", got=name, expected=f"{_text(MINIMUM_SERVER)} or newer, {_WHY_MINIMUM}"
        )
    newer = {option: since for option, since in _used_options(file).items() if since > server}
    if newer:
        needs = ", ".join(f"{option} ({_text(since)})" for option, since in newer.items())
        dropped = any(option in newer for option, _ in _PIPELINE_KEYS.values())
        effect = "run the file without any secret, volume or node selector" if dropped else "refuse the file"
        upgrade = "upgrade the server" if parse_version(version) else "name its version by --server-version"
        raise RejectedError(
            "the server is too old for options of this file",
            where=file.path,
            got=f"{name}, which would {effect}",
            expected=f"the version that each option needs: {needs}",
            todo=f"compile without {' and '.join(newer)}, or {upgrade}",
        )


def advice_for_refusal(message: str) -> str:
    """Return a hint if a server's message shows that the server is older than the file; else an empty string."""
    if match := re.search(r'unknown field "(\w+)"', message):
        option, since = (_TASK_KEYS | _PIPELINE_KEYS).get(match[1], ("", (0, 0)))
        if option:
            return (
                f"the server is older than the file: compile without {option}, or upgrade the server to {_text(since)}"
            )
    if match or any(words in message for words in _UNREADABLE_FILE):
        return "the server may be older than the SDK: try `aupair pipeline doctor FILE.yaml`"
    return ""


def parse_version(version: str) -> Version | None:
    """Return the first two numbers of a version such as 2.17.0; None if it has none."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def _text(version: Version) -> str:
    """Return a version as text, such as 2.17."""
    return ".".join(map(str, version))


def _used_options(file: PipelineFile) -> dict[str, Version]:
    """Return the compile options in the file that need a newer server, with the first version that knows each."""
    of_pipeline = set(_keys(file.kubernetes.get("pipelineConfig")))
    of_tasks = set(_keys(file.kubernetes.get("deploymentSpec")))
    return dict(
        [option for key, option in _PIPELINE_KEYS.items() if key in of_pipeline]
        + [option for key, option in _TASK_KEYS.items() if key in of_tasks]
    )


def _keys(tree: Any) -> Iterator[str]:
    """Yield every key of a nested tree."""
    if isinstance(tree, Mapping):
        yield from tree
    for child in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ():
        yield from _keys(child)
