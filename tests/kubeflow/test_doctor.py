"""doctor through the command line, with a stand-in for the API server and for a container engine; S3 and the MLflow store are real."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from aupair.kubeflow.doctor import _is_pinned
from conftest import Command, Outcome
from services.kfp_server import HTML, KfpServer
from services.s3 import S3, s3_server

IMAGE = "localhost/aupair:abc"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server with two buckets, one of them with an object in it."""
    with s3_server(tmp_path_factory.mktemp("s3"), ("data", "empty")) as server:
        server.client().put_object(Bucket="data", Key="corpus/a.mp4", Body=b"1")
        yield server


@pytest.fixture(autouse=True)
def settings(clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work without a container engine and waiting, in a folder that is no checkout."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.chdir(tmp_path)


def checks_of(done: Outcome) -> dict[str, str]:
    """Return mark and line of each check by its name."""
    assert not done.err
    return {line[2:12].strip(): f"{line[0]} {line[13:]}" for line in done.out.splitlines()}


def test_with_nothing_given_nothing_fails(aupair: Command) -> None:
    done = aupair("pipeline", "doctor")
    assert done.code == 0
    checks = checks_of(done)
    assert checks["sdk"].startswith("✓ kfp 2.17.0, kfp-kubernetes 2.17")
    assert {name for name, line in checks.items() if line[0] == "?"} == {"server", "s3", "mlflow"}
    assert "pass --host" in checks["server"]


def test_a_working_server(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    kfp.namespace = "mine"
    done = aupair("pipeline", "doctor", files["plain"], "--host", kfp.url, "--namespace", "mine")
    assert done.code == 0, done.out
    checks = checks_of(done)
    assert checks["server"] == f"✓ {kfp.url}: Kubeflow Pipelines 2.17.0, many users"
    assert checks["version"] == "✓ server 2.17.0, SDK 2.17.0"
    assert checks["namespace"].startswith("✓ mine")
    assert checks["file"].endswith("aupair-predict, 4 inputs; pass --param source=...")
    assert checks["image"].startswith("? not pinned: aupair:latest;")
    assert checks["secrets"] == "✓ the file uses no secret and no volume"
    assert checks["tracking"].startswith("? the tasks get no address")


def test_the_exit_code_is_that_of_the_first_failure(
    aupair: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.always = HTML
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = aupair("pipeline", "doctor", "--host", kfp.url)
    assert done.code == 6
    checks = checks_of(done)
    assert checks["server"].startswith("✗ this is a login page")
    assert checks["mlflow"].startswith("✗ the MLflow server does not answer"), "later checks still run"
    assert "namespace" not in checks
    assert len(kfp.requests) == 1


def test_a_namespace_of_somebody_else(aupair: Command, kfp: KfpServer) -> None:
    kfp.namespace = "mine"
    done = aupair("pipeline", "doctor", "--host", kfp.url, "--namespace", "theirs")
    assert done.code == 6
    assert "not allowed to list the experiments of theirs" in checks_of(done)["namespace"]


def test_an_older_server_is_compared_with_the_file(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    kfp.version = "2.16.1"
    assert checks_of(aupair("pipeline", "doctor", "--host", kfp.url))["version"].startswith(
        "? server 2.16.1, SDK 2.17.0"
    )
    line = checks_of(aupair("pipeline", "doctor", files["full"], "--host", kfp.url))["version"]
    assert line.startswith("✗ the server is too old for options of this file: in ")
    assert line.endswith("compile without ttl and deadline, or upgrade the server")


def test_secrets_and_volumes_of_the_file_are_named(aupair: Command, files: dict[str, Path]) -> None:
    checks = checks_of(aupair("pipeline", "doctor", files["full"]))
    assert checks["secrets"].endswith("kubectl -n NAMESPACE get secret/s3 secret/pull secret/mlflow pvc/ckpt")
    assert checks["tracking"] == "✓ the tasks log to http://mlflow:5000"
    assert checks["image"] == f"✓ {IMAGE}: pinned; whether the registry has it is not checked"
    assert checks["commit"].startswith(f"? {IMAGE} cannot be checked from here")


def test_a_file_that_is_no_pipeline(aupair: Command, tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("hello: world")
    done = aupair("pipeline", "doctor", tmp_path / "words.yaml")
    assert done.code == 4
    assert checks_of(done)["file"].startswith("✗ not a compiled pipeline")


@pytest.mark.parametrize(
    ("image", "pinned"),
    [
        ("aupair", False),
        ("aupair:latest", False),
        ("registry:5000/aupair", False),
        ("registry:5000/aupair:1a2b3c", True),
        ("aupair@sha256:" + "0" * 64, True),
    ],
)
def test_a_pinned_image(image: str, pinned: bool) -> None:
    assert _is_pinned(image) == pinned


def test_the_object_store(aupair: Command, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*source: str, **changed: str) -> tuple[int, str]:
        for name, value in {**s3.environment(), **changed}.items():
            monkeypatch.setenv(name, value)
        done = aupair("pipeline", "doctor", *(("--source", *source) if source else ()))
        assert s3.secret_key not in done.out
        return done.code, checks_of(done)["s3"]

    assert look("s3://data/corpus") == (0, f"✓ s3://data/corpus can be read at {s3.endpoint}")
    code, line = look("s3://empty/corpus")
    assert (code, "nothing under this prefix" in line) == (3, True)
    code, line = look("s3://none/corpus")
    assert (code, "NoSuchBucket" in line) == (3, True)
    code, line = look("s3://data/corpus", AWS_SECRET_ACCESS_KEY="wrong")
    assert (code, "SignatureDoesNotMatch" in line) == (6, True)
    code, line = look("s3://data/corpus", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (code, "does not answer" in line) == (7, True)
    assert look("s3://data/corpus", AWS_ENDPOINT_URL="nonsense")[0] == 2
    assert look("bucket")[0] == 2


def test_the_registry(aupair: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aupair.registry import mlflow_store

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    done = aupair("pipeline", "doctor")
    assert (done.code, "no MLflow store yet" in checks_of(done)["mlflow"]) == (5, True)
    mlflow_store.open_mlflow(create=True).create_registered_model("aupair")
    done = aupair("pipeline", "doctor")
    assert (done.code, checks_of(done)["mlflow"].endswith("models aupair")) == (0, True)


def test_the_image_and_its_commit(
    aupair: Command, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "a"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    labels: dict[str, str] = {}
    image = SimpleNamespace(labels=labels)
    engine = SimpleNamespace(images=SimpleNamespace(get={IMAGE: image}.get), close=lambda: None)
    monkeypatch.setattr("docker.from_env", lambda timeout: engine)
    elsewhere = checks_of(aupair("pipeline", "doctor", files["full"]))["commit"]
    assert elsewhere == "? the image was built from an unknown commit, this folder is not a checkout of aupair"
    (tmp_path / "src" / "aupair").mkdir(parents=True)
    for revision, line in {
        head: f"✓ the image was built from the checkout's commit, {head[:12]}",
        f"{head}-dirty": f"? the image was built from {head}-dirty, the checkout is at {head}",
        "": "? the image was built from an unknown commit",
    }.items():
        labels["org.opencontainers.image.revision"] = revision
        assert checks_of(aupair("pipeline", "doctor", files["full"]))["commit"].startswith(line)
