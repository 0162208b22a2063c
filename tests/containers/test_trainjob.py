"""The two training stages on two nodes: TrainJobs by the SDK's container backend, in containers of the image.

The compiled pipeline runs on this machine; f and h ask for their nodes as they would in a cluster.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aupair import stages, store
from aupair.errors import RunFailedError
from aupair.kubeflow import cluster as clusters
from aupair.kubeflow import nodes
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.trainjob import TrainJob
from aupair.log import Log
from aupair.params import Params
from conftest import REPOSITORY

pytestmark = pytest.mark.containers
TRAINED = {"f": "train-pseudo-intensity", "h": "train-uncertainty"}
NODES = ["nodes={train-pseudo-intensity: 2, train-uncertainty: 2}", "pvcs.v=/v", "checkpoints=/v/a"]


@dataclass(frozen=True)
class Run:
    """A run of the pipeline, and its folder."""

    folder: Path

    def artifact(self, name: str) -> Path:
        """Where KFP keeps an output of a stage."""
        (found,) = self.folder.glob(f"artifacts/**/{stages.writer(name)}/{name}")
        return found


@pytest.fixture(scope="module")
def image() -> str:
    return os.environ["AUPAIR_TEST_IMAGE"]


@pytest.fixture(scope="module")
def steady(tiny: Params) -> Params:
    """One trial, without dropout, whose masks differ between processes."""
    tree = tiny.model_dump()
    for section in ("train_pseudo_intensity", "train_uncertainty"):
        tree[section]["network"]["dropout"] = 0.0
    return Params.model_validate(tree | {"trials": [0]})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, image: str, steady: Params, corpus: Path) -> Run:
    root = tmp_path_factory.mktemp("nodes")
    compile_pipeline("train", steady, clusters.load(None, [f"image={image}", *NODES]), root / "x.yaml", REPOSITORY)
    command = ["aupair", "pipeline", "run", "x.yaml", "--local", "--param", f"source={corpus}"]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "KFP_"))}
    done = subprocess.run(command, cwd=root, env=own, capture_output=True, text=True)
    logs = "\n".join(path.read_text() for path in root.glob("work/pipeline/local-*/logs/*-train-*.log"))
    assert done.returncode == 0, done.stderr + logs
    (folder,) = root.glob("work/pipeline/local-*")
    return Run(folder)


def left_of_nodes() -> list[str]:
    """Containers and networks of TrainJobs."""
    import docker

    client, label = docker.from_env(), {"label": "trainer.kubeflow.org/trainjob-name"}
    containers = client.containers.list(all=True, filters=label)
    return [found.name for found in [*containers, *client.networks.list(filters=label)]]


def inputs(stage: stages.Stage, run: Run, root: Path) -> None:
    """Lay a stage's inputs of a run out as in a checkout."""
    for name, place in stage.paths(root, [0], 0).items():
        if name in stage.reads:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(run.artifact(name))


def curve(folder: Path) -> list[Any]:
    return [
        [row["network"], row["step"], row["train_loss"], row["loss"]]
        for row in store.read_jsonl(folder / "curves.jsonl")
    ]


@pytest.mark.parametrize("artifact", TRAINED)
def test_two_nodes_give_the_loss_curve_of_one_process(run: Run, artifact: str, steady: Params, tmp_path: Path) -> None:
    stage = stages.find(TRAINED[artifact])
    inputs(stage, run, tmp_path)
    stages.run(stage.name, steady, root=tmp_path, trial=0)
    one = curve(tmp_path / stages.ARTIFACTS[artifact].format(trial=0))
    two = curve(run.artifact(artifact))
    assert len(one) >= 2
    for mine, other in zip(two, one, strict=True):
        assert mine[:2] == other[:2]
        assert mine[2] == pytest.approx(other[2], abs=1e-4)
        assert mine[3] == pytest.approx(other[3], abs=1e-3), "see tests/kubeflow/test_nodes.py"


def test_it_was_two_nodes_and_their_log_is_the_tasks(run: Run) -> None:
    for name in TRAINED.values():
        (log,) = run.folder.glob(f"logs/*-{name}-0.log")
        text = log.read_text()
        assert ": 2 nodes" in text
        assert "Master node is reachable" in text, "the second one waited for the first"
        assert "step 3: " in text


def test_nothing_is_left_of_the_nodes(run: Run) -> None:
    assert left_of_nodes() == []
    assert list((run.folder.parent / "checkpoints").rglob("*")) == [run.folder.parent / "checkpoints" / "nodes"]
    assert {path.stat().st_uid for path in run.folder.rglob("*")} == {os.getuid()}


def test_nodes_that_fail_fail_the_stage_and_go(
    run: Run, image: str, steady: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs of other faces: each node refuses them."""
    stage, root = stages.find("train-pseudo-intensity"), tmp_path / "root"
    inputs(stage, run, root)
    pairs = root / stages.ARTIFACTS["pairs"]
    origin = pairs.resolve()
    pairs.unlink()
    shutil.copytree(origin, pairs)
    store.write_json(pairs / "counts.json", {**store.read_json(pairs / "counts.json"), "fingerprint": "another"})
    monkeypatch.setenv("AUPAIR_CHECKPOINTS", str(tmp_path / "shared"))
    with pytest.raises(RunFailedError, match=r"^train-pseudo-intensity on 2 nodes failed: in .*, got .*pairs"):
        nodes.train(stage, steady, root, 0, TrainJob(nodes=2, image=image), Log())
    assert left_of_nodes() == []
    assert list((tmp_path / "shared" / "nodes").iterdir()) == []
