"""Logging of an ablation to MLflow: a parent run, and a child run for each scored row with its settings and figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aupair.registry import mlflow_store
from aupair.registry.runs import FlowRun, StageRun, end_run, get_or_create_run, hash_flow, log_flow

_ABLATION = "ablation"


def log_ablation(tree: Mapping[str, Any], reports: tuple[Path, ...], experiment: str) -> str:
    """Log an ablation and return the id of the parent run; logging the same ablation again adds nothing.

    Args:
        tree: the content of ablation.json.
        reports: files to log with the parent run.

    Raises:
        RegistryError: MLflow fails, or does not answer.
    """
    client = mlflow_store.open_mlflow(create=True)
    experiment_id = mlflow_store.get_or_create_experiment(client, experiment)
    identity = hash_flow(json.dumps(tree, sort_keys=True))
    runs = [
        StageRun(
            f"{_ABLATION}.{row['name']}",
            params={"row": row["name"], "rule": row["rule"], **row["settings"]},
            metrics={key: row[key] for key in ("validation", "select", "evidence", "cost")},
        )
        for row in tree["rows"]
        if row["state"] == "scored"
    ]
    tags = {"data.md5": str(tree.get("data", "")), "mlflow.runName": _ABLATION}
    parent = StageRun(_ABLATION, artifacts=reports, tags=tags)
    flow = FlowRun(experiment_id, identity, get_or_create_run(client, experiment_id, identity, parent))
    log_flow(client, flow, parent, runs)
    end_run(client, flow.parent_id)
    return flow.parent_id
