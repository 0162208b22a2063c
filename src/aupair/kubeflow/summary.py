"""The exit handler of both pipelines: a page with the run's status, its score table and links, also after a failure."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aupair import store
from aupair.errors import AupairError
from aupair.kubeflow.step import KfpArtifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def write_run_summary(state: str, error: str, summary: KfpArtifact) -> None:
    """Write and print a run's summary, and end its parent run in MLflow.

    Args:
        state: KFP's: SUCCEEDED, FAILED or CANCELLED.
        error: KFP's message about a failure; may be empty.
    """
    lines = [f"# {state}", "", *([error, ""] if error else []), *_mlflow_lines(state)]
    text = "\n".join(lines) + "\n"
    print(text)
    store.write_text(Path(summary.path), text)


def _mlflow_lines(state: str) -> list[str]:
    """Return the lines about the run's stages and scores in MLflow.

    If MLflow does not answer, a line says so, and the task succeeds all the same.
    """
    from aupair.registry import live_logging, mlflow_store

    if not live_logging.runs_in_pipeline():
        return [
            "Only register-model logged to MLflow: this run has no id of its own (compile with `--set run_id=true`)."
        ]
    try:
        client = mlflow_store.open_mlflow()
        with mlflow_store.mlflow_errors("the run's summary"):
            return _logged_runs(client, state)
    except AupairError as problem:
        return [f"MLflow: {problem}"]


def _logged_runs(client: "MlflowClient", state: str) -> list[str]:
    """Return the flow's logged stages, the failed ones and the score table; end the parent run."""
    from aupair.registry import live_logging, mlflow_store
    from aupair.registry.runs import PARENT

    flow = live_logging.current_flow_id(client)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.flow_id = '{flow}'", max_results=1000)
    if not runs:
        return [f"No stage of `{flow}` was logged to MLflow."]
    by_stage = {run.data.tags["stage"]: run for run in runs}
    parent = by_stage.get(PARENT)
    lines = [f"* run: `{flow}`", f"* stages logged: {len(runs) - (parent is not None)}"]
    failed = sorted({run.data.tags["stage"] for run in runs if run.info.status == "FAILED"} - {PARENT})
    lines += [f"* failed: {', '.join(failed)}"] if failed else []
    lines += [f"* data: `{parent.data.tags['data.md5']}`"] if parent and "data.md5" in parent.data.tags else []
    if parent is not None:
        lines.append(f"* MLflow: {_mlflow_link(mlflow_store.tracking_uri(), parent)}")
        if not live_logging.server_run_id():
            client.set_terminated(parent.info.run_id, "FINISHED" if state == "SUCCEEDED" else "FAILED")
    return lines + _score_table(client, by_stage.get("evaluate"))


def _mlflow_link(uri: str, run: "Run") -> str:
    """Return the page of a run, or how to open it."""
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    if uri.startswith(("http://", "https://")):
        return os.environ.get("MLFLOW_UI_URL", uri).rstrip("/") + page
    return f"`mlflow ui --backend-store-uri {uri}`, then http://127.0.0.1:5000{page}"


def _score_table(client: "MlflowClient", evaluate: "Run | None") -> list[str]:
    """Return the first part of the table that evaluate logged: the scores on validation."""
    if evaluate is None:
        return ["", "No scores: evaluate did not run."]
    names = {item.path for item in client.list_artifacts(evaluate.info.run_id)}
    if "table.md" not in names:
        return ["", "No scores: evaluate did not end."]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(evaluate.info.run_id, "table.md", folder)).read_text()
    return ["", "\n## ".join(text.split("\n## ")[:2])]
