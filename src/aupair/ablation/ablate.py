"""The ablation study: run the flow for each row and score it (`aupair ablate`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aupair.ablation.rows import Row, select_rows
from aupair.ablation.scoring import FinishedRun
from aupair.ablation.workspace import Workspace
from aupair.data.hashing import read_tracked
from aupair.data.layout import read_layout
from aupair.data.sheets import read_sheets
from aupair.errors import ParamsError, RunFailedError
from aupair.log import SILENT, Log
from aupair.params import Params


def run_ablation(home: Path, base: Params, names: Sequence[str], log: Log = SILENT) -> list[dict[str, Any]]:
    """Run the flow for each row of the ablation in a project, and score it.

    Args:
        base: the params that the rows change.
        names: rows or groups; all rows if empty.

    Returns:
        A dict for each row: name, group, text, rule, settings, another_f (f was trained again) and state: `scored` (with
        counts and costs), or `failed` or `unfit` (with the reason in `why`).

    Raises:
        ParamsError: an unknown row, or the paper's protocol, which chooses on validation.
        ArtifactError: the project has no data tracked by DVC, or another command is in the workspace.
    """
    if base.evaluate.protocol == "paper":
        raise ParamsError(
            "`aupair ablate` needs the protocol ours",
            got="evaluate.protocol: paper",
            expected="ours, which chooses on select",
        )
    rows, workspace = select_rows(names), Workspace(home)
    results: dict[str, dict[str, Any]] = {}
    runs: dict[Params, list[Row]] = {}
    with workspace.locked():
        workspace.prepare(base)
        aus = count_aus(workspace.root, base)
        for row in rows:
            if why := row.why_unfit(base, aus):
                results[row.name] = {"state": "unfit", "why": why, "settings": {}, "another_f": False}
            else:
                runs.setdefault(row.params(base, aus), []).append(row)
        for k, (params, group) in enumerate(runs.items(), 1):
            log.line(f"[{k} of {len(runs)}] {', '.join(row.name for row in group)}")
            settings = changed_settings(base, params)
            details = {"settings": settings, "another_f": group[0].trains_f(base, aus)}
            results |= {row: {**result, **details} for row, result in _run(workspace, params, group, log)}
    return [
        {"name": row.name, "group": row.group, "text": row.text, "rule": row.rule, **results[row.name]} for row in rows
    ]


def _run(workspace: Workspace, params: Params, rows: Sequence[Row], log: Log) -> list[tuple[str, dict[str, Any]]]:
    """Run the flow with the params that some rows share, and return the name and the result of each."""
    try:
        workspace.run(params, rows[0].name, log)
    except RunFailedError as error:
        log.line(f"  failed: {error}")
        return [(row.name, {"state": "failed", "why": str(error)}) for row in rows]
    run = FinishedRun.load(workspace.root, params)
    return [(row.name, {"state": "scored", **run.score(row.rule)}) for row in rows]


def count_aus(home: Path, base: Params) -> int:
    """Return the number of AUs of the flow in a project: those that the params list, or all that are annotated.

    Raises:
        DataError: the params list no AUs, and there are no annotations.
    """
    if base.aus != "all":
        return len(base.aus)
    layout = read_layout(home / "data")
    files = layout.intensities if base.target == "intensity" else layout.annotations
    return len(read_sheets(files[:1], np.float32).aus)


def tracked_data_hash(home: Path) -> str:
    """Return the MD5 of the data folder that DVC tracks in a project.

    Raises:
        DataError: data.dvc is missing or malformed.
    """
    return read_tracked(home / "data.dvc").md5


def changed_settings(base: Params, params: Params) -> dict[str, Any]:
    """Return the settings of `params` that differ from `base`, as `section.key` -> value."""

    def changes(a: Any, b: Any, prefix: str) -> dict[str, Any]:
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return {} if a == b else {prefix: b}
        changed: dict[str, Any] = {}
        for key in b:
            changed |= changes(a.get(key), b[key], f"{prefix}.{key}" if prefix else key)
        return changed

    return changes(base.model_dump(mode="json"), params.model_dump(mode="json"), "")
