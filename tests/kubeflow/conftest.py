"""What the tests of submit, schedule and their server share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aupair import params
from aupair.kubeflow import api, client, cluster
from aupair.kubeflow.compile import compile_pipeline
from conftest import REPOSITORY
from services import kfp_server as fake

FULL = [
    "gpus=2", "memory=true", "shm=8", "secrets.s3={access: AWS_ACCESS_KEY_ID}", "run_id=true", "pvcs.ckpt=/ckpt",
    "checkpoints=/ckpt/a", "retries=2", "timeout=3600", "ttl=86400", "scratch=50", "parallelism=2", "cache=true",
    "tolerations=[{key: nvidia.com/gpu, operator: Exists}]", "env.MLFLOW_TRACKING_URI=http://mlflow:5000",
]  # fmt: skip


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pipeline of prediction with nothing asked for, which is small, and that of training with everything."""
    folder, defaults = tmp_path_factory.mktemp("compiled"), params.load_params(REPOSITORY / "params.yaml")
    made = {}
    for name, pipeline, options in (("plain", "predict", []), ("full", "train", FULL)):
        made[name] = folder / f"{name}.yaml"
        compile_pipeline(pipeline, defaults, cluster.load(None, options), made[name], REPOSITORY)
    return made


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine, a home of its own, and no pause between polls."""
    for name in ("KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KFP_NAMESPACE", "KFP_CA_CERT"):
        monkeypatch.delenv(name, raising=False)
    for name in (api.TOKEN, api.COOKIE, api.POD_TOKEN, "AUPAIR_DEBUG", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)


@pytest.fixture
def kfp() -> Iterator[fake.Server]:
    """A server that lets everybody in."""
    with fake.kfp_server() as server:
        yield server
