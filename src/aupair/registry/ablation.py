"""An ablation in MLflow: a parent run, and below it a run for each judged row with its settings and figures."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aupair.registry import mlflow_store
from aupair.registry.runs import Flow, StageRun, log_flow

PARENT = "ablation"


def log_ablation(tree: Mapping[str, Any], reports: tuple[Path, ...], experiment: str) -> str:
    """Log it, and give the parent's run id; the same ablation again adds nothing.

    Args:
        tree: that of ablation.json.
        reports: files to keep beside the parent.

    Raises:
        RegistryError: MLflow refused, or does not answer.
    """
    client = mlflow_store.open_mlflow(create=True)
    judged = [row for row in tree["rows"] if row["state"] == "judged"]
    identity = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
    runs = [
        StageRun(
            f"{PARENT}.{row['name']}",
            params={"row": row["name"], "judged": row["judged"], **row["settings"]},
            metrics={key: row[key] for key in ("validation", "select", "evidence", "cost")},
        )
        for row in judged
    ]
    parent = StageRun(PARENT, artifacts=reports)
    tags = {"data.md5": str(tree.get("data", "")), "mlflow.runName": PARENT}
    return log_flow(
        client, Flow(identity, mlflow_store.get_or_create_experiment(client, experiment), parent, runs, tags)
    )
