"""What is asked of Kubeflow Trainer: from the cluster's options through the compiled file to the request."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from aupair.errors import ParamsError
from aupair.kubeflow import cluster as clusters
from aupair.kubeflow import plan as plans
from aupair.kubeflow import trainjob
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.compiled import load
from aupair.kubeflow.trainjob import TrainJob
from aupair.params import Params
from conftest import REPOSITORY
from services.trainer_server import trainer_server

OPTIONS = [
    "image=example.org/aupair:1", "nodes.train-pseudo-intensity=2", "gpus=4", "memory=true", "shm=8",
    "cpu={train-pseudo-intensity: 6, train-uncertainty: 6}", "pvcs={ckpt: /ckpt, data: /data}", "checkpoints=/ckpt/a",
    "tolerations=[{key: nvidia.com/gpu, operator: Exists}]", "node_selector={pool: gpu}", "timeout=3600",
    "image_pull_secrets=[registry]", "env.NCCL_SOCKET_IFNAME=eth0", "secrets.s3={access: AWS_ACCESS_KEY_ID}",
]  # fmt: skip


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


def test_the_request_has_nodes_image_variables_volumes_and_where_they_run(tmp_path: Path, tiny: Params) -> None:
    found = compiled_with(OPTIONS, tiny, tmp_path)
    job = TrainJob.model_validate_json(environment(found["train-pseudo-intensity"])["AUPAIR_NODES"])
    with trainer_server() as cluster:
        cluster.runs = False
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


def test_what_the_nodes_run_survives_the_shell() -> None:
    """The SDK puts the source into a here-document of bash, in which these are expanded."""
    assert not set("$`\\") & set(inspect.getsource(trainjob.run_command))
    assert json.loads(TrainJob(nodes=2, image="aupair:1").model_dump_json(exclude_defaults=True)) == {
        "nodes": 2,
        "image": "aupair:1",
    }
