"""The data of a flow as an MLflow dataset: its name, DVC's hash and counts. The data itself is not uploaded."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "data"
"""The name of the dataset, which is that of the folder tracked by data.dvc."""

_CONTEXT = "mlflow.data.context"


def log_dataset(client: "MlflowClient", run_id: str, info: Mapping[str, Any]) -> None:
    """Log the data as an input of a run; logging it again adds nothing.

    Args:
        info: the content of data.json.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile, source = json.dumps(dataset_profile(info)), json.dumps({"uri": NAME})
    dataset = Dataset(NAME, str(info["md5"]), "local", source, profile=profile)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(_CONTEXT, ", ".join(info.get("counts", {})))])])


def dataset_profile(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of each split: people, videos, frames, and the active frames of each AU."""
    counts = info.get("counts", {})
    splits = {
        split: {key: count[key] for key in ("subjects", "videos", "frames", "annotated", "positives")}
        for split, count in counts.items()
    }
    return {"num_rows": sum(count["frames"] for count in counts.values()), "splits": splits}


def describe_data(info: Mapping[str, Any]) -> str:
    """Return a short description of the data: the hash and the numbers of people, videos and frames."""
    counts = info.get("counts", {}).values()
    total = {key: sum(count[key] for count in counts) for key in ("subjects", "videos", "frames")}
    amount = f", {total['subjects']:,} people, {total['videos']:,} videos, {total['frames']:,} frames" if counts else ""
    return f"{str(info['md5'])[:6]}{amount}"
