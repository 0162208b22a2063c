"""The nodes of an Argo workflow, as a KFP server lists them as the tasks of a run."""

import datetime
from typing import Any


def node(workflow: str, name: str, state: str, *children: str, seconds: int = 60) -> dict[str, Any]:
    """Return a node of a workflow as the server lists it: without its own id, its pod and any message.

    Args:
        name: the full name, such as `root.exit-handler-1.check-data`.
        children: full names.
    """
    start = datetime.datetime(2026, 11, 30, 6, 0, tzinfo=datetime.UTC)
    return {
        "run_id": "run-1",
        "task_id": name,
        "display_name": name.rpartition(".")[2],
        "create_time": start.isoformat(),
        "start_time": start.isoformat(),
        "end_time": (start + datetime.timedelta(seconds=seconds)).isoformat(),
        "state": state,
        "child_tasks": [{"pod_name": f"{workflow}-{fnv(f'{workflow}.{child}')}"} for child in children],
    }


def fnv(text: str) -> int:
    """Return the FNV-1a hash of 32 bits, by which Argo names nodes and pods."""
    number = 0x811C9DC5
    for byte in text.encode():
        number = (number ^ byte) * 0x01000193 % 2**32
    return number
