"""A run and its artifact through a real MLflow server: PostgreSQL, S3, and a client that has no key of either."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.mlflow_server import BUCKET, mlflow_server
from services.s3 import S3, s3_server

pytestmark = pytest.mark.containers

CLIENT = """
import json, sys, mlflow
mlflow.set_experiment("e")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("seventeen bytes.\\n", "notes/a.txt")
read = mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a.txt")
print(json.dumps({"run": run.info.run_id, "read": read, "where": run.info.artifact_uri}))
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3"), [BUCKET]) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def logged(folder: Path, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a client saw that knew the address alone; the server has ended."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "PG"))}
    home = {"HOME": str(tmp_path_factory.mktemp("home")), "AWS_EC2_METADATA_DISABLED": "true"}
    with mlflow_server(folder, s3) as server:
        printed = subprocess.check_output(
            [sys.executable, "-c", CLIENT], env=own | home | server.environment(), text=True
        )
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def test_an_artifact_goes_through_the_server_into_the_bucket(logged: dict[str, Any], s3: S3) -> None:
    assert logged["read"] == "seventeen bytes.\n"
    assert logged["where"].startswith("mlflow-artifacts:/"), "the client does not see the bucket"
    keys = [entry["Key"] for entry in s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]]
    (key,) = [key for key in keys if key.endswith(f"{logged['run']}/artifacts/notes/a.txt")]
    assert s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"seventeen bytes.\n"


def test_the_run_is_in_postgresql_and_not_in_the_servers_folder(logged: dict[str, Any], folder: Path, s3: S3) -> None:
    assert [path.name for path in folder.iterdir()] == ["mlflow.log"], "no mlflow.db, no mlruns"
    assert s3.secret_key not in (folder / "mlflow.log").read_text()
