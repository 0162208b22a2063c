"""A training stage on several nodes: what comes back, what is left when it fails, what a retry finds."""

import importlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aupair import stages, store
from aupair.errors import AuthError, RejectedError, RunFailedError, UnreachableError
from aupair.kubeflow import nodes, trainjob
from aupair.kubeflow.compile import importable
from aupair.kubeflow.trainjob import TrainJob
from aupair.log import Log
from aupair.params import Params
from conftest import REPOSITORY
from listener import Listener
from services.trainer_server import Cluster, trainer_server

F = stages.find("train-pseudo-intensity")
JOB = TrainJob(nodes=2, image="aupair:1")


class Artifact:
    """As kfp.dsl.Artifact, for what a step uses of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()

    def log_metric(self, name: str, value: float) -> None:
        self.metadata[name] = value


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that this process is in, and a volume that its pods share."""
    monkeypatch.setenv("AUPAIR_CHECKPOINTS", str(tmp_path / "volume"))
    monkeypatch.setenv("AUPAIR_RUN", "run-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("KFP_RUN_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.1)
    with trainer_server() as found:
        monkeypatch.setattr(trainjob, "connect", lambda image, shared: found.client())
        yield found


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A folder with the inputs of f, but without f."""
    folder = tmp_path / "root"
    for name in F.reads:
        place = folder / stages.ARTIFACTS[name]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(finished / stages.ARTIFACTS[name])
    return folder


@pytest.fixture
def steady(tiny: Params) -> Params:
    """Without dropout, whose masks differ between processes."""
    tree = tiny.model_dump()
    tree["train_pseudo_intensity"]["network"]["dropout"] = 0.0
    return Params.model_validate(tree)


def train(params: Params, root: Path, job: TrainJob = JOB, log: Log | None = None) -> None:
    nodes.train(F, params, root, 0, job, log or Listener())


def curve(folder: Path) -> list[list[float]]:
    """The loss of the batches, and that of fixed pairs: by running statistics, which lag behind biases of no gradient.

    Before a batch norm a bias has none but what the order of sums leaves, and Adam makes whole steps of that.
    """
    return [[row["train_loss"], row["loss"]] for row in store.read_jsonl(folder / "curves.jsonl")]


def test_two_nodes_in_a_component_train_what_one_process_trains(
    cluster: Cluster, finished: Path, steady: Params, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that pods would run, by the shell and torchrun, in the two ways a component is run."""
    with importable(REPOSITORY):
        function = importlib.import_module("components.train_pseudo_intensity").train_pseudo_intensity.python_func
    curves = {}
    for way, job in (("one", ""), ("nodes", JOB.model_dump_json(exclude_defaults=True))):
        monkeypatch.setenv("AUPAIR_NODES", job)
        given = {name: Artifact(finished / stages.ARTIFACTS[name]) for name in F.reads}
        out = {name: Artifact(tmp_path / way / name) for name in ("f", "scores", "curves")}
        section = steady.train_pseudo_intensity.model_dump()
        function(seed=0, trial=0, train_pseudo_intensity=section, **given, **out)
        curves[way] = curve(Path(out["f"].path))
        assert {path.name for path in (tmp_path / way).iterdir()} == {"f", "curves"}
        assert out["f"].metadata["trial"] == 0
    assert len(cluster.asked) == 1
    assert len(curves["one"]) >= 4
    for mine, other in zip(curves["nodes"], curves["one"], strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-4)
        assert mine[1] == pytest.approx(other[1], abs=1e-3)
    assert cluster.jobs == {}, "the TrainJob is deleted"
    assert list((tmp_path / "volume" / "nodes").iterdir()) == []
    assert [path.name for path in (tmp_path / "volume").iterdir()] == ["nodes"], "no checkpoint is left"


def test_nodes_that_fail_fail_the_stage_with_their_own_words(
    cluster: Cluster, finished: Path, steady: Params, root: Path, tmp_path: Path
) -> None:
    pairs = root / stages.ARTIFACTS["pairs"]
    pairs.unlink()
    shutil.copytree(finished / stages.ARTIFACTS["pairs"], pairs)
    store.write_json(pairs / "counts.json", {**store.read_json(pairs / "counts.json"), "fingerprint": "another"})
    log = Listener()
    with pytest.raises(RunFailedError, match=r"^train-pseudo-intensity on 2 nodes failed: in train-.*, got .*pairs"):
        train(steady, root, log=log)
    assert [line for line in log.lines if line.startswith("node-1: ")]
    assert cluster.jobs == {}
    assert not (root / stages.ARTIFACTS["f"].format(trial=0)).exists()
    assert list((tmp_path / "volume" / "nodes").iterdir()) == []


def left_behind(cluster: Cluster, phase: str) -> str:
    """Have the TrainJob of an earlier try of this run."""
    name = nodes.job_name(F, 0, "run-1")
    spec = {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"numNodes": 2}}
    cluster.put({"metadata": {"name": name}, "spec": spec}, phase)
    return name


def test_a_try_takes_up_the_trainjob_of_the_one_before(
    cluster: Cluster, finished: Path, steady: Params, root: Path, tmp_path: Path
) -> None:
    name, log = left_behind(cluster, "Running"), Listener()
    trained = stages.ARTIFACTS["f"].format(trial=0)
    shutil.copytree(finished / trained, tmp_path / "volume" / "nodes" / name / trained)

    def succeed() -> None:
        for node in cluster.nodes[name]:
            node.given = "Succeeded"

    threading.Timer(0.5, succeed).start()
    train(steady, root, log=log)
    assert cluster.asked == []
    assert f"{name}: 2 nodes, taken up again" in log.lines
    assert {path.name for path in (root / trained).iterdir()} == {path.name for path in (finished / trained).iterdir()}


def test_a_failed_trainjob_of_the_try_before_is_made_anew(cluster: Cluster, steady: Params, root: Path) -> None:
    left_behind(cluster, "Failed")
    train(steady, root)
    assert len(cluster.asked) == 1
    assert (root / stages.ARTIFACTS["f"].format(trial=0)).is_dir()


def test_a_trainjob_that_somebody_deletes_is_missed(cluster: Cluster, steady: Params, root: Path) -> None:
    name = left_behind(cluster, "Running")
    threading.Timer(0.5, cluster.delete, [name]).start()
    with pytest.raises(RunFailedError, match=f"in {name}, got no such TrainJob any more"):
        train(steady, root)


def test_without_output_it_is_said_what_the_volume_must_be(cluster: Cluster, steady: Params, root: Path) -> None:
    left_behind(cluster, "Succeeded")
    with pytest.raises(Exception, match=r"the nodes left no output: .*ReadWriteMany"):
        train(steady, root)


def test_an_outage_of_the_api_is_waited_out_but_not_for_ever(
    cluster: Cluster, steady: Params, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = left_behind(cluster, "Running")

    def fall(status: int, seconds: float) -> None:
        threading.Timer(seconds, setattr, [cluster, "status", status]).start()

    fall(503, 0.5)
    fall(200, 1.5)
    threading.Timer(2.0, cluster.delete, [name]).start()
    with pytest.raises(RunFailedError, match="no such TrainJob any more"):
        train(steady, root)
    monkeypatch.setattr(nodes, "PATIENCE", 0.5)
    left_behind(cluster, "Running")
    fall(503, 0.5)
    with pytest.raises(UnreachableError, match=r"train-pseudo-intensity on 2 nodes: in .*503"):
        train(steady, root)


def test_sigterm_deletes_the_trainjob(cluster: Cluster, steady: Params, root: Path) -> None:
    left_behind(cluster, "Running")
    threading.Timer(0.7, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(SystemExit) as stop:
        train(steady, root)
    assert stop.value.code == 143
    assert cluster.jobs == {}


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(403, AuthError, "no right to a TrainJob: .*service account"), (500, RejectedError, "no TrainJob: .*got Failed")],
)
def test_a_refusal_is_one_line(
    cluster: Cluster, steady: Params, root: Path, status: int, error: type[Exception], message: str
) -> None:
    cluster.status = status
    with pytest.raises(error, match=message):
        train(steady, root)


def test_a_cluster_without_trainer_is_told_of(cluster: Cluster, steady: Params, root: Path) -> None:
    cluster.runtime = None
    with pytest.raises(RejectedError, match=r"install Kubeflow Trainer 2\.2 or newer"):
        train(steady, root)


def test_without_an_engine_it_is_one_line(
    steady: Params, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("AUPAIR_CHECKPOINTS", str(tmp_path / "volume"))
    with pytest.raises(UnreachableError, match="no container engine"):
        train(steady, root)


def test_the_name_is_the_same_for_each_try_and_another_for_each_run() -> None:
    names = [nodes.job_name(F, trial, run) for run in ("a", "b") for trial in (0, 1)]
    assert len(set(names)) == 4
    assert names[0] == nodes.job_name(F, 0, "a")
    assert max(map(len, names)) + len("-node-0-0-abcde") <= 63
