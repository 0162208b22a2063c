"""What a TrainJob of Kubeflow Trainer v2 is asked for, and which of the SDK's backends takes it.

In a pod it is the cluster's API; elsewhere the SDK's container backend, by docker or `podman system service`, one
container for a node. Both start the same function on each node under torchrun.
"""

import contextlib
import os
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from aupair.kubeflow.tasks import engine, present
from aupair.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    from kubeflow.trainer import TrainerClient
    from kubeflow.trainer.options import RuntimePatch

RUNTIME = "torch-distributed"
"""The runtime that Trainer's own manifests install."""


class TrainJob(Record):
    """The nodes of a training stage, as the cluster's options gave them; the component reads it from its environment.

    Attributes:
        nodes: how many pods train together.
        image: the project's.
        gpus, gpu_type: of each node; one process each.
        memory: GiB of each node; 0: nothing is asked for.
        cpu: CPUs of each node with GPUs; 0: nothing is asked for.
        shm: GiB of /dev/shm.
        env: plain variables.
        pvcs: volume claim: where it is mounted.
        timeout: seconds after which the TrainJob is stopped; 0: never.
    """

    nodes: int
    image: str
    image_pull_secrets: tuple[str, ...] = ()
    gpus: int = 0
    gpu_type: str = ""
    memory: int = 0
    cpu: float = 0
    shm: int = 0
    env: dict[str, str] = Field(default_factory=dict)
    pvcs: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, str], ...] = ()
    node_selector: dict[str, str] = Field(default_factory=dict)
    timeout: int = 0

    def resources(self) -> dict[str, Any]:
        """Give what each node asks for; without GPUs no CPUs, since Trainer would start a process for each."""
        found = {"memory": f"{self.memory}Gi"} if self.memory else {}
        if self.gpus:
            found[self.gpu_type] = str(self.gpus)
            found |= {"cpu": f"{self.cpu:g}"} if self.cpu else {}
        return found


def run_command(command: list[str]) -> None:
    """Run a command line of ours on a node. The SDK sends this source, through a shell: no import outside, no dollar."""
    import runpy
    import sys

    sys.argv = ["aupair", *command]
    runpy.run_module("aupair", run_name="__main__", alter_sys=True)


def submit(client: "TrainerClient", job: TrainJob, name: str, command: list[str], env: dict[str, str]) -> None:
    """Ask for a TrainJob of that name, each node of which runs `aupair COMMAND`.

    Args:
        env: variables of the nodes, besides the job's own.
    """
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import ActiveDeadlineSeconds, Labels, Name

    options: list[Any] = [Name(name)]
    trainer = CustomTrainer(
        func=run_command, func_args={"command": command}, image=job.image, num_nodes=job.nodes, env=job.env | env
    )
    if in_cluster(client):
        trainer.resources_per_node = job.resources() or None
        options += [Labels({"app.kubernetes.io/name": "aupair"}), patch(job)]
        options += [ActiveDeadlineSeconds(job.timeout)] if job.timeout else []
    client.train(runtime=RUNTIME, trainer=trainer, options=options)


def patch(job: TrainJob) -> "RuntimePatch":
    """Give what the pods of the nodes are to have besides: volumes, where they run, how their image is fetched."""
    from kubeflow.trainer.options import (
        ContainerPatch,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        PodSpecPatch,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainingRuntimeSpecPatch,
    )

    volumes: list[dict[str, Any]] = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in job.pvcs
    ]
    mounts = [{"name": claim, "mountPath": path} for claim, path in job.pvcs.items()]
    if job.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{job.shm}Gi"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    pod = PodSpecPatch(
        volumes=volumes,
        containers=[ContainerPatch(name="node", volume_mounts=mounts)],
        image_pull_secrets=[{"name": name} for name in job.image_pull_secrets],
        node_selector=job.node_selector or None,
        tolerations=[{key: value for key, value in row.items() if value} for row in job.tolerations],
    )
    # nodes talk to each other at ports that a proxy of Istio's would not let through
    template = PodTemplatePatch(metadata={"labels": {"sidecar.istio.io/inject": "false"}}, spec=pod)
    node = ReplicatedJobPatch(name="node", template=JobTemplatePatch(spec=JobSpecPatch(template=template)))
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=[node]))
    return RuntimePatch(training_runtime_spec=TrainingRuntimeSpecPatch(template=jobs))


def connect(image: str, shared: "Path") -> "TrainerClient":
    """Give the client of the cluster that this pod is in, or that of this machine's container engine.

    Args:
        image: of the nodes; a machine's engine must have it or fetch it.
        shared: the folder that containers are to see, at the same path.

    Raises:
        UnreachableError: there is neither.
        ArtifactError: the image is nowhere.
    """
    from kubeflow.trainer import TrainerClient

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return TrainerClient()
    return containers(image, shared)


def containers(image: str, shared: "Path") -> "TrainerClient":
    """Give the client of this machine's container engine.

    Raises:
        UnreachableError, ArtifactError: see `connect`.
    """
    from kubeflow.trainer import ContainerBackendConfig, TrainerClient, TrainingRuntimeSource
    from kubeflow.trainer.backends.container.adapters.docker import DockerClientAdapter

    class Adapter(DockerClientAdapter):
        """As the SDK's, but the nodes see the shared folder, and what they write there belongs to who runs this."""

        def create_and_start_container(self, **given: Any) -> str:  # type: ignore[override]
            container = self.client.containers.run(
                image=given["image"], command=given["command"], name=given["name"], network=given["network_id"],
                environment=threads | given["environment"], labels=given["labels"], working_dir=given["working_dir"],
                volumes=given["volumes"] | {str(shared): {"bind": str(shared), "mode": "rw"}}, shm_size="2g",
                user=f"{os.getuid()}:{os.getgid()}", detach=True,
            )  # fmt: skip
            return str(container.id)

    threads = {key: value for key, value in os.environ.items() if key == "OMP_NUM_THREADS"}
    with contextlib.closing(engine()) as found:
        present(found, image)
    host = os.environ.get("DOCKER_HOST")
    # by the Docker API of podman, too: as "podman" the SDK takes its log's bytes for characters
    config = ContainerBackendConfig(
        container_runtime="docker", container_host=host, runtime_source=TrainingRuntimeSource(sources=[])
    )
    client = TrainerClient(backend_config=config)
    adapter, backend = Adapter(host), cast(Any, client.backend)
    adapter.client.api.timeout = None  # a log may be silent for longer than a minute
    backend._adapter = adapter
    return client


def in_cluster(client: "TrainerClient") -> bool:
    """Say whether a client speaks to a cluster."""
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend

    return isinstance(client.backend, KubernetesBackend)
