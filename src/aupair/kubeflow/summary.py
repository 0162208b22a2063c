"""The exit handler: whatever became of a run, leave a page for people: status, score table, where to look."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aupair import store
from aupair.errors import AupairError
from aupair.kubeflow.step import Artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def summarise(state: str, error: str, summary: Artifact) -> None:
    """Write the summary, print it, and end the run's parent in MLflow.

    Args:
        state: SUCCEEDED, FAILED or CANCELLED, as KFP has it.
        error: what KFP says of a failure; may be empty.
    """
    lines = [f"# {state}", "", *([error, ""] if error else []), *_of_mlflow(state)]
    text = "\n".join(lines) + "\n"
    print(text)
    store.write_text(Path(summary.path), text)


def _of_mlflow(state: str) -> list[str]:
    """Say what MLflow knows of the run; that it cannot be asked is part of the summary, not the end of it."""
    from aupair.registry import live_logging, mlflow_store

    if not live_logging.runs_in_pipeline():
        return [
            "MLflow was told by register-model alone: this run has no id of its own (compile with `--set run_id=true`)."
        ]
    try:
        client = mlflow_store.open_mlflow()
        with mlflow_store.mlflow_errors("the run's summary"):
            return _told(client, state)
    except AupairError as problem:
        return [f"MLflow: {problem}"]


def _told(client: "MlflowClient", state: str) -> list[str]:
    """Read the flow's runs: the failed stages, the score table, the version; and end the parent."""
    from aupair.registry import live_logging, mlflow_store
    from aupair.registry.runs import PARENT

    flow = live_logging.current_flow_id(client)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.flow_id = '{flow}'", max_results=1000)
    if not runs:
        return [f"No stage of `{flow}` was logged to MLflow."]
    of_stage = {run.data.tags["stage"]: run for run in runs}
    parent = of_stage.get(PARENT)
    lines = [f"* run: `{flow}`", f"* stages logged: {len(runs) - (parent is not None)}"]
    failed = sorted({run.data.tags["stage"] for run in runs if run.info.status == "FAILED"} - {PARENT})
    lines += [f"* failed: {', '.join(failed)}"] if failed else []
    lines += [f"* data: `{parent.data.tags['data.md5']}`"] if parent and "data.md5" in parent.data.tags else []
    if parent is not None:
        lines.append(f"* MLflow: {link(mlflow_store.tracking_uri(), parent)}")
        if not live_logging.server_run_id():
            client.set_terminated(parent.info.run_id, "FINISHED" if state == "SUCCEEDED" else "FAILED")
    return lines + _table(client, of_stage.get("evaluate"))


def link(uri: str, run: "Run") -> str:
    """Say where a person finds a run."""
    place = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    if uri.startswith(("http://", "https://")):
        return os.environ.get("MLFLOW_UI_URL", uri).rstrip("/") + place
    return f"`mlflow ui --backend-store-uri {uri}`, then http://127.0.0.1:5000{place}"


def _table(client: "MlflowClient", evaluate: "Run | None") -> list[str]:
    """Give the first part of the table that evaluate logged: the scores on validation."""
    if evaluate is None:
        return ["", "No scores: evaluate did not run."]
    names = {item.path for item in client.list_artifacts(evaluate.info.run_id)}
    if "table.md" not in names:
        return ["", "No scores: evaluate did not end."]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(evaluate.info.run_id, "table.md", folder)).read_text()
    return ["", "\n## ".join(text.split("\n## ")[:2])]
