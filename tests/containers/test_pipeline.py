"""The compiled training pipeline in containers of the image: data on S3, metrics in an MLflow server with PostgreSQL."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.data.frames import load_frames
from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.params import Params
from aupair.ranking.ensemble import load_ensemble
from aupair.stage import ARTIFACTS
from services.mlflow_server import BUCKET, MLflowServer, mlflow_server
from services.s3 import S3, s3_server

pytestmark = pytest.mark.containers
REPOSITORY = Path(__file__).parents[2]
SHOW = "import mlflow, sys; print(mlflow.MlflowClient().get_model_version_by_alias('aupair', 'challenger').version)"


@dataclass(frozen=True)
class Cloud:
    """The servers that a cluster has access to."""

    s3: S3
    mlflow: MLflowServer

    def environment(self) -> dict[str, str]:
        """Return a user's variables: keys of S3, the address of MLflow, nothing of this machine's."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "KFP_"))}
        return own | self.s3.environment() | self.mlflow.environment()


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str
    root: Path

    @property
    def line(self) -> str:
        """The last line on standard error."""
        return self.err.splitlines()[-1]

    @property
    def artifacts(self) -> Path:
        """KFP's folder of the outputs."""
        (folder,) = self.root.glob("work/pipeline/local-*/artifacts/*")
        return folder


@pytest.fixture(scope="module")
def image() -> str:
    return os.environ["AUPAIR_TEST_IMAGE"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Cloud]:
    """Yield a bucket with the tiny corpus, and an MLflow server."""
    with s3_server(tmp_path_factory.mktemp("s3"), ["data", BUCKET]) as s3:
        client = s3.client()
        for path in corpus.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "data", f"corpus/{path.relative_to(corpus).as_posix()}")
        with mlflow_server(tmp_path_factory.mktemp("mlflow"), s3) as mlflow:
            yield Cloud(s3, mlflow)


def run(root: Path, image: str, tiny: Params, environment: dict[str, str], *given: str) -> Run:
    """Compile the pipeline with an image, and run the file in containers."""
    compile_pipeline("train", tiny, load_cluster(None, [f"image={image}"]), root / "train.yaml", REPOSITORY)
    command = ["aupair", "pipeline", "run", "train.yaml", "--local", "--containers"]
    command += ["--param", "register_model.rehearsals=true"]
    for text in given:
        command += ["--param", text]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return Run(done.returncode, done.stdout, done.stderr, root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, image: str, tiny: Params, cloud: Cloud) -> Run:
    """Run the whole pipeline with two trials."""
    return run(tmp_path_factory.mktemp("whole"), image, tiny, cloud.environment(), "source=s3://data/corpus")


def test_it_ends_with_the_results_of_one_process(whole: Run, finished: Path) -> None:
    """Compare the container's results with the host's; test_local.py compares subprocesses with it, byte by byte.

    numpy and torch choose their kernels by the CPU and by variables that a container may not have, so that float32 sums
    differ in their order. Three steps of Adam at a learning rate of .003 can turn a rounding error into differences of
    some thousandths (tests/kubeflow/test_step.py). A choice between near-equal trials or mappings can flip with them; the
    scores of f stay correlated (those of another seed or trial are not), and rows without a network do not change.
    """
    assert whole.code == 0, whole.err
    labels = whole.artifacts / "check-data" / "labels"
    assert labels.read_bytes() == (finished / ARTIFACTS["labels"]).read_bytes(), "no arithmetic is in them"
    count = len(load_frames(*(finished / ARTIFACTS[name] for name in ("labels", "faces"))))
    for trial in (0, 1):
        folder = whole.artifacts / f"for-loop-2-iteration-{trial}" / "train-pseudo-intensity" / "f"
        on_host = load_ensemble([finished / ARTIFACTS["f"].format(trial=trial)], count, "all").y_hat
        inside = load_ensemble([folder], count, "all").y_hat
        scored = np.isfinite(on_host)
        np.testing.assert_array_equal(np.isfinite(inside), scored)
        assert np.corrcoef(inside[scored], on_host[scored])[0, 1] > 0.9
    expected = store.read_json(finished / ARTIFACTS["metrics"])
    metrics = store.read_json(whole.artifacts / "evaluate" / "metrics")
    assert metrics.keys() == expected.keys()
    assert len(metrics["rows"]) == len(expected["rows"]) > 6
    for row, same in zip(metrics["rows"], expected["rows"]):
        assert (row["name"], row["split"], row.keys()) == (same["name"], same["split"], same.keys())
        if row["name"] in ("all-zero", "all-one", "best-constant"):
            assert row["score"] == pytest.approx(same["score"], abs=1e-12)


def test_the_data_came_from_s3_and_are_what_they_were(whole: Run, finished: Path) -> None:
    fetched = store.read_json(whole.artifacts / "fetch-data" / "executor_output.json")
    (artifact,) = fetched["artifacts"]["data"]["artifacts"]
    assert artifact["metadata"]["source"] == "s3://data/corpus"
    info = store.read_json(whole.artifacts / "check-data" / "info")
    assert info["md5"] == store.read_json(finished / "work" / "data.json")["md5"]


def test_the_version_is_in_the_server_and_its_bundle_in_the_bucket(whole: Run, cloud: Cloud) -> None:
    done = subprocess.run(["python", "-c", SHOW], env=cloud.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
    keys = [entry["Key"] for entry in cloud.s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [key for key in keys if key.endswith("bundle/f/0/final.safetensors")]
    assert [key for key in keys if key.endswith("artifacts/table.md")]
    assert not list(whole.root.rglob("mlflow.db")), "nothing beside the server"


def test_the_commit_of_the_image_is_on_the_version(whole: Run, cloud: Cloud, image: str) -> None:
    import docker

    label = docker.from_env().images.get(image).labels["org.opencontainers.image.revision"]
    text = (whole.artifacts / "register-model" / "executor_output.json").read_text()
    assert label in text


def test_the_files_belong_to_who_ran_it_and_no_container_is_left(whole: Run) -> None:
    import docker

    owners = {path.stat().st_uid for path in whole.root.rglob("*")}
    assert owners == {os.getuid()}
    assert not [
        c for c in docker.from_env().containers.list(all=True) if "executor_main" in str(c.attrs["Config"]["Cmd"])
    ]


def test_no_secret_is_in_a_log_a_summary_or_the_compiled_file(whole: Run, cloud: Cloud) -> None:
    for path in whole.root.rglob("*"):
        if path.is_file():
            assert cloud.s3.secret_key.encode() not in path.read_bytes(), path
    assert cloud.s3.secret_key not in whole.out + whole.err


def failing(tmp_path: Path, image: str, tiny: Params, environment: dict[str, str], *given: str) -> Run:
    done = run(tmp_path, image, tiny, environment, *given)
    assert done.code == 9, done.err
    assert "check-data" not in done.err, "nothing ran on what was not there"
    assert not list(done.root.glob("work/pipeline/local-*/artifacts/*/fetch-data/data")), "nothing half-written"
    return done


@pytest.mark.parametrize("attempt", range(3))
def test_a_container_that_fails_is_a_failure(
    tmp_path: Path, image: str, tiny: Params, cloud: Cloud, attempt: int
) -> None:
    """kfp 2.17 reports most of them as a success, not all; hence three attempts."""
    done = failing(tmp_path, image, tiny, cloud.environment(), "source=s3://data/nothing-here")
    assert re.match(r"aupair: fetch-data failed: in .*00-fetch-data\.log, got .*s3://data/nothing-here", done.line)
    assert "Traceback (most recent call last):" in done.err
    assert "FAILED with exit code 1" in done.err


def test_a_missing_secret_is_one_line(tmp_path: Path, image: str, tiny: Params, cloud: Cloud) -> None:
    environment = {key: value for key, value in cloud.environment().items() if "KEY" not in key}
    done = failing(tmp_path, image, tiny, environment, "source=s3://data/corpus")
    assert re.search(r"got .*set AWS_ACCESS_KEY_ID", done.line), done.line


def test_a_wrong_secret_is_one_line_without_it(tmp_path: Path, image: str, tiny: Params, cloud: Cloud) -> None:
    environment = cloud.environment() | {"AWS_SECRET_ACCESS_KEY": "not-the-secret-one"}
    done = failing(tmp_path, image, tiny, environment, "source=s3://data/corpus")
    assert "AWS_SECRET_ACCESS_KEY" in done.line
    assert "not-the-secret-one" not in done.err + done.out


def test_s3_out_of_reach_is_one_line(tmp_path: Path, image: str, tiny: Params, cloud: Cloud) -> None:
    environment = cloud.environment() | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = failing(tmp_path, image, tiny, environment, "source=s3://data/corpus")
    assert "127.0.0.1:9" in done.line


def test_an_image_without_the_package_is_one_line(tmp_path: Path, tiny: Params, cloud: Cloud) -> None:
    base = os.environ.get("BASE")
    if not base:
        pytest.skip("no other image at hand: BASE is not set")
    done = failing(tmp_path, base, tiny, cloud.environment(), "source=s3://data/corpus")
    assert re.search(r"got .*No module named '?kfp", done.line), done.line


def test_an_image_that_is_nowhere_is_one_line(tmp_path: Path, tiny: Params, cloud: Cloud) -> None:
    done = run(tmp_path, "localhost/not-there:1", tiny, cloud.environment(), "source=s3://data/corpus")
    assert (done.code, done.line.partition(",")[0]) == (4, "aupair: no such image: in localhost/not-there:1")


def test_a_missing_engine_is_one_line(tmp_path: Path, image: str, tiny: Params, cloud: Cloud) -> None:
    environment: dict[str, Any] = cloud.environment() | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = run(tmp_path, image, tiny, environment, "source=s3://data/corpus")
    assert (done.code, done.line.partition(",")[0]) == (
        7,
        f"aupair: no container engine: in unix://{tmp_path}/none.sock",
    )
