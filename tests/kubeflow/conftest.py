"""Fixtures of the tests of submit, schedule and doctor."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aupair import params
from aupair.kubeflow import run_status, server
from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compile import compile_pipeline
from conftest import REPOSITORY
from kubeflow_options import EVERY_OPTION
from services.kfp_server import KfpServer, kfp_server


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small pipeline without cluster options, and the training pipeline with every option."""
    folder, defaults = tmp_path_factory.mktemp("compiled"), params.load_params(REPOSITORY / "params.yaml")
    paths = {}
    for name, pipeline, options in (("plain", "predict", []), ("full", "train", EVERY_OPTION)):
        paths[name] = folder / f"{name}.yaml"
        compile_pipeline(pipeline, defaults, load_cluster(None, options), paths[name], REPOSITORY)
    return paths


@pytest.fixture
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's settings of servers, set a new home folder, and poll without a pause."""
    prefixes = ("KFP_", "KF_", "AWS_", "MLFLOW_", "http_proxy", "HTTP_PROXY")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(run_status, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(server, "_PROBE_SECONDS", 0.3)


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    """Yield a server that accepts everybody."""
    with kfp_server() as running:
        yield running
