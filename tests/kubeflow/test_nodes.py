"""A training stage on several nodes: what is asked of Kubeflow Trainer, what comes back, what is left when it fails."""

import importlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aupair import stages, store
from aupair.errors import AuthError, ParamsError, RejectedError, RunFailedError, UnreachableError
from aupair.kubeflow import cluster as clusters
from aupair.kubeflow import nodes, trainjob
from aupair.kubeflow import plan as plans
from aupair.kubeflow.compile import compile_pipeline, importable
from aupair.kubeflow.compiled import load
from aupair.kubeflow.trainjob import TrainJob
from aupair.log import Log
from aupair.params import Params
from conftest import REPOSITORY
from services.trainer_server import Cluster, trainer_server

F = stages.find("train-pseudo-intensity")
JOB = TrainJob(nodes=2, image="aupair:1")
OPTIONS = [
    "image=example.org/aupair:1", "nodes.train-pseudo-intensity=2", "gpus=4", "memory=true", "shm=8",
    "cpu={train-pseudo-intensity: 6, train-uncertainty: 6}", "pvcs={ckpt: /ckpt, data: /data}", "checkpoints=/ckpt/a",
    "tolerations=[{key: nvidia.com/gpu, operator: Exists}]", "node_selector={pool: gpu}", "timeout=3600",
    "image_pull_secrets=[registry]", "env.NCCL_SOCKET_IFNAME=eth0", "secrets.s3={access: AWS_ACCESS_KEY_ID}",
]  # fmt: skip


class Artifact:
    """As kfp.dsl.Artifact, for what a step uses of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()

    def log_metric(self, name: str, value: float) -> None:
        self.metadata[name] = value


class Listener(Log):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


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


def compiled_with(options: list[str], params: Params, folder: Path) -> dict[str, Any]:
    """The executors of a pipeline, by stage, with what Kubernetes is told of each below `kubernetes`."""
    compile_pipeline("train", params, clusters.load(None, options), folder / "x.yaml", REPOSITORY)
    found = load(folder / "x.yaml")
    platform = found.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = found.spec["deploymentSpec"]["executors"]
    return {
        label.removeprefix("exec-"): {**executor["container"], "kubernetes": platform.get(label, {})}
        for label, executor in executors.items()
    }


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("env", ())}


def train(params: Params, root: Path, job: TrainJob = JOB, log: Log | None = None) -> None:
    nodes.train(F, params, root, 0, job, log or Listener())


def curve(folder: Path) -> list[list[float]]:
    """The loss of the batches, and that of fixed pairs: by running statistics, which lag behind biases of no gradient.

    Before a batch norm a bias has none but what the order of sums leaves, and Adam makes whole steps of that.
    """
    return [[row["train_loss"], row["loss"]] for row in store.read_jsonl(folder / "curves.jsonl")]


def test_a_stage_of_several_nodes_gives_what_it_would_get_to_them(tmp_path: Path, tiny: Params) -> None:
    found = compiled_with(OPTIONS, tiny, tmp_path)
    task, other = found["train-pseudo-intensity"], found["train-uncertainty"]
    job = TrainJob.model_validate_json(environment(task)["AUPAIR_NODES"])
    assert (job.nodes, job.gpus, job.memory, job.cpu, job.shm) == (2, 4, 24, 6, 8)
    assert job.resources() == {"nvidia.com/gpu": "4", "memory": "24Gi", "cpu": "6"}
    assert "s3" not in environment(task)["AUPAIR_NODES"], "the nodes read a folder alone"
    assert "resources" not in task, "it waits"
    assert not {"tolerations", "nodeSelector", "emptyDirMounts"} & set(task["kubernetes"])
    assert "AUPAIR_PROCESSES" not in environment(task)
    (run,) = task["kubernetes"]["fieldPathAsEnv"]
    assert run == {"name": "AUPAIR_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
    assert {mount["mountPath"] for mount in task["kubernetes"]["pvcMount"]} == {"/ckpt", "/data"}
    assert "AUPAIR_NODES" not in environment(other)
    assert other["resources"]["accelerator"]["resourceCount"] == "4"
    assert "fieldPathAsEnv" not in other["kubernetes"]


def test_one_node_is_the_tasks_own_pod(tmp_path: Path, tiny: Params) -> None:
    (tmp_path / "a").mkdir()
    options = [option for option in OPTIONS if not option.startswith("nodes")]
    one = compiled_with([*options, "nodes={train-pseudo-intensity: 1, train-uncertainty: 1}"], tiny, tmp_path)
    assert one == compiled_with(options, tiny, tmp_path / "a")


def test_the_plan_tells_of_the_nodes(tmp_path: Path, tiny: Params) -> None:
    compiled_with(OPTIONS, tiny, tmp_path)
    found = load(tmp_path / "x.yaml")
    asks = {task.name: task.asks for task in plans.plan(found, {})}
    assert asks["train-pseudo-intensity"]["nodes"] == "2"
    assert "nodes" not in asks["train-uncertainty"]
    assert "nodes: a container of the image each" in plans.not_heeded(found, "subprocesses")
    assert "nodes: the task's own container" in plans.not_heeded(found, "containers")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nodes.train-mapping=2"], "nodes of train-pseudo-intensity or train-uncertainty; got train-mapping"),
        (["nodes.train-uncertainty=2"], "several nodes need checkpoints, on a volume that all can write"),
        (["nodes.train-uncertainty=0"], r"parameter nodes\.train-uncertainty"),
    ],
)
def test_a_wrong_option_is_one_line(options: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        clusters.load(None, options)


def test_the_request_has_nodes_image_variables_volumes_and_where_they_run(
    cluster: Cluster, tmp_path: Path, tiny: Params
) -> None:
    cluster.runs = False
    found = compiled_with(OPTIONS, tiny, tmp_path)
    job = TrainJob.model_validate_json(environment(found["train-pseudo-intensity"])["AUPAIR_NODES"])
    trainjob.submit(cluster.client(), job, "a-job", ["run", "x"], {"AUPAIR_CHECKPOINTS": "/ckpt/a"})
    (body,) = cluster.asked
    assert (body["apiVersion"], body["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert body["metadata"]["name"] == "a-job"
    spec, trainer = body["spec"], body["spec"]["trainer"]
    assert spec["runtimeRef"] == {"kind": "ClusterTrainingRuntime", "name": "torch-distributed"}
    assert spec["activeDeadlineSeconds"] == 3600
    assert (trainer["numNodes"], trainer["image"]) == (2, "example.org/aupair:1")
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "4", "memory": "24Gi", "cpu": "6"}
    assert {item["name"]: item["value"] for item in trainer["env"]} == {
        "NCCL_SOCKET_IFNAME": "eth0", "AUPAIR_CHECKPOINTS": "/ckpt/a"
    }  # fmt: skip
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = node["template"]["spec"]["template"]
    pod = template["spec"]
    assert node["name"] == "node"
    assert template["metadata"]["labels"] == {"sidecar.istio.io/inject": "false"}
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (container["name"], mounts) == ("node", {"ckpt": "/ckpt", "data": "/data", "shm": "/dev/shm"})
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] != "shm"}
    assert claims == {"ckpt": "ckpt", "data": "data"}
    assert [v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm"] == [{"medium": "Memory", "sizeLimit": "8Gi"}]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_without_gpus_trainer_starts_one_process_a_node(tmp_path: Path, tiny: Params) -> None:
    """It starts one for each CPU that a node without GPUs asks for."""
    options = [option for option in OPTIONS if not option.startswith("gpus")]
    found = compiled_with(options, tiny, tmp_path)["train-pseudo-intensity"]
    assert TrainJob.model_validate_json(environment(found)["AUPAIR_NODES"]).resources() == {"memory": "24Gi"}


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


def test_what_the_nodes_run_survives_the_shell() -> None:
    """The SDK puts the source into a here-document of bash, in which these are expanded."""
    import inspect

    assert not set("$`\\") & set(inspect.getsource(trainjob.run_command))
    assert json.loads(JOB.model_dump_json(exclude_defaults=True)) == {"nodes": 2, "image": "aupair:1"}
