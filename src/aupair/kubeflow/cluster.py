"""The settings of a cluster that are compiled into pipelines: image, GPUs, memory, secrets, volumes and time limits.

Settings with their default value are not written, since a server older than the SDK drops or rejects unknown keys.
params/cluster.yaml is an example with all keys.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from aupair.params import Params
from aupair.record import Record, apply_overrides, parse_settings, read_settings
from aupair.registry.live_logging import EXPERIMENT
from aupair.registry.runs import RUN_ID
from aupair.stages import FLOW, Needs, needs_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp.dsl import PipelineTask

_Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Mount = Annotated[str, Field(pattern="^/")]

_RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
"""The pod label with the run's id. As an argument of a task, the id would prevent all cache hits."""

_SECRET_NAME = re.compile("SECRET|PASSWORD|TOKEN|KEY|CREDENTIAL|COOKIE")
_URL_WITH_USER = re.compile(r"\w+://[^/]*@")
"""Indications of a secret: the name of a variable, or a URL that contains a user."""

CHECKPOINTS = "AUPAIR_CHECKPOINTS"
"""Variable of every task: the folder of checkpoints."""

PROCESSES = "AUPAIR_PROCESSES"
"""Variable of a training task: the number of processes, one for each GPU."""

VOLUMES = "AUPAIR_VOLUMES"
"""Variable of the first task: the folders to check, separated by colons."""

_OTHER_NEEDS = {"plan-shards": Needs(), "predict-shard": Needs(gpus=1, memory=8), "gather-predictions": Needs()}
"""The needs of the tasks of pipelines/predict.py."""

_FIRST_TASKS = ("fetch-data", "plan-shards")

_WEEK = 7 * 86400

_SIDE_EFFECTS = ("register-model", "summarise")
"""Tasks that are not retried."""

_NEVER_CACHED = (*_SIDE_EFFECTS, "gather-predictions")
"""Tasks that are never cached: a run's result is read from the record of its last task."""


class _Toleration(Record):
    """A taint that the pods of GPU stages tolerate; the fields are those of Kubernetes."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Check for combinations that Kubernetes rejects."""
        if (self.operator == "Exists" and self.value) or (self.operator == "Equal" and not self.key):
            raise ValueError("operator Exists without a value, or operator Equal with a key")
        return self


def _check_memory(value: Any) -> Any:
    """Check that the value is a bool or a dict; pydantic would report an error for each member of the union."""
    if not isinstance(value, bool | dict):
        raise ValueError("true, or GiB by stage, such as {evaluate: 16}")
    return value


class Cluster(Record):
    """Options of `aupair pipeline compile`; the defaults set nothing."""

    image: Annotated[str, Field(pattern=r"^[^\s]+$")] = "aupair:latest"
    """the image of all tasks; pin it by the git commit or the digest"""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    gpus: _Count = 0
    """GPUs for each stage that can use one (`aupair flow`); training uses several in one pod, with torchrun"""
    gpu_type: str = "nvidia.com/gpu"
    """the name of the GPU resource"""
    memory: Annotated[bool | dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(_check_memory)] = False
    """memory; true: the needs of each stage (`aupair flow`); or GiB by stage, such as {evaluate: 16}, for those stages only"""
    cpu: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """CPUs by stage, such as {preprocess-faces: 8}"""
    shm: _Count = 0
    """GiB of /dev/shm for GPU stages"""
    scratch: _Count = 0
    """maximum GiB that a task may write to /tmp, on the node's disk; artifacts are in volumes of KFP's launcher"""
    scratch_class: str = ""
    """a storage class: /tmp is then a new volume of that size and class, which must be writable for run_as_user"""
    secrets: dict[str, dict[str, str]] = Field(default_factory=dict)
    """name of the secret: {key: environment variable}, for every task; values are not written to the compiled file"""
    env: dict[str, str] = Field(default_factory=dict)
    """plain variables for every task, such as MLFLOW_TRACKING_URI, AWS_ENDPOINT_URL; never a secret"""
    run_id: bool = False
    """whether every task gets the run's id from the pod's label, so that MLflow's runs are tagged with it"""
    tolerations: tuple[_Toleration, ...] = ()
    """for GPU stages"""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """for GPU stages"""
    pvcs: dict[str, _Mount] = Field(default_factory=dict)
    """name of the volume claim: mount path, in every task"""
    checkpoints: Annotated[str, Field(pattern="^(/.*)?$")] = ""
    """a folder on one of those volumes, from which a retried training stage continues"""
    run_as_user: _Count = 0
    """id of the user that tasks run as; 0: the image's, 1000. KFP has no fsGroup, so volumes must be writable for this user"""
    run_as_group: _Count = 0
    """id of the group that tasks run as; 0: the image's, 0"""
    timeout: _Count = 0
    """seconds after which a task's pod is stopped; 0: never"""
    deadline: _Count = 0
    """seconds after which the whole run is stopped; 0: never"""
    retries: _Count = 0
    """retries of every task without side effects; only with checkpoints does a training stage continue where it stopped"""
    backoff: _Count = 60
    """seconds before the first retry, doubled each time (with retries)"""
    retry_window: _Count = 0
    """seconds since a task's first start after which Argo does not retry it, and stops a retried pod (with retries);
    0: enough for all retries to reach their timeout, or a week without timeout"""
    parallelism: _Count = 0
    """trials or shards that run at the same time; 0: the server's default"""
    ttl: _Count = 0
    """seconds after which the pods of a finished run are deleted; 0: the server's default"""
    cache: bool = False
    """whether the server reuses the outputs of equal tasks; only for a source whose content never changes"""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Check for mistakes that would otherwise be found only on the cluster."""
        known = {stage.name for stage in FLOW} | {"fetch-data", "summarise", *_OTHER_NEEDS}
        named = set(self.cpu) | set(self.memory if isinstance(self.memory, dict) else ())
        if named - known:
            raise ValueError(f"stages among {', '.join(sorted(known))}; got {', '.join(sorted(named - known))}")
        if self.checkpoints and not any(Path(self.checkpoints).is_relative_to(mount) for mount in self.pvcs.values()):
            raise ValueError(
                f"checkpoints on a volume of pvcs; {self.checkpoints} is on none, and would be lost with its pod"
            )
        if self.scratch_class and not self.scratch:
            raise ValueError("the size of the volume, in scratch, together with scratch_class")
        mounts = [*self.pvcs.values(), *(["/tmp"] if self.scratch else [])]
        if len({Path(mount) for mount in mounts}) < len(mounts) or Path("/") in map(Path, mounts):
            raise ValueError(f"a different mount path for each volume, and none at /; got {', '.join(mounts)}")
        variables = [*self.env, *(name for keys in self.secrets.values() for name in keys.values())]
        if len(set(variables)) < len(variables):
            duplicate = next(name for name in variables if variables.count(name) > 1)
            raise ValueError(f"each variable once in env and secrets; got {duplicate} twice")
        hidden = [
            name for name, value in self.env.items() if _SECRET_NAME.search(name.upper()) or _URL_WITH_USER.match(value)
        ]
        if hidden:
            raise ValueError(f"no secret in env, where the compiled file would show it; put {hidden[0]} into secrets")
        return self

    @property
    def window(self) -> int:
        """Return the time after a task's first start during which it may be retried, in seconds."""
        pauses = self.backoff * (2 ** min(self.retries, 31) - 1)
        enough = (self.retries + 1) * self.timeout + pauses if self.timeout else _WEEK
        return min(self.retry_window or enough, 2**31 - 1)

    @property
    def warnings(self) -> list[str]:
        """Return warnings about options that are allowed but rarely intended."""
        if self.retries and not self.checkpoints:
            return ["retries without checkpoints: a training stage that is retried starts again from its first step"]
        return []


def load_cluster(path: Path | None, overrides: "Sequence[str]" = ()) -> Cluster:
    """Return the options of a file, or the defaults, with `key=value` overrides.

    Raises:
        ParamsError: the file is missing, or a key or value is not allowed.
    """
    tree = apply_overrides(Cluster, read_settings(path) if path else {}, overrides)
    return parse_settings(Cluster, tree, str(path or "the cluster's options"))


class TaskSettings:
    """The cluster's settings for the tasks of a pipeline; a call with a task applies them.

    Args:
        cluster: the options.
        params: the params that the pipeline is compiled with.
    """

    def __init__(self, cluster: Cluster, params: Params) -> None:
        self.cluster = cluster
        self.needs = {stage.name: needs_with(stage, params) for stage in FLOW} | _OTHER_NEEDS
        # each task logs its own MLflow run, but does not receive the params section with the experiment's name
        experiment = {EXPERIMENT: params.register_model.experiment} if cluster.run_id else {}
        self.env = experiment | cluster.env

    def __call__(self, task: "PipelineTask") -> "PipelineTask":
        """Apply the options to one task and return it."""
        name = str(task.component_spec.name).replace("_", "-")
        cluster = self.cluster
        needs = self.needs.get(name, Needs(memory=2))
        task.set_container_image(cluster.image)
        task.set_caching_options(cluster.cache and name not in _NEVER_CACHED)
        if cluster.retries and name not in _SIDE_EFFECTS:
            # KFP's default window of one hour is shorter than most trainings
            task.set_retry(cluster.retries, f"{cluster.backoff}s", 2.0, backoff_max_duration=f"{cluster.window}s")
        for key, value in self.env.items():
            task.set_env_variable(key, value)
        self._set_kubernetes_options(task)
        self._set_volumes(task, name)
        if needs.gpus and cluster.gpus:
            self._set_gpus(task, name)
        memory = cluster.memory.get(name, 0) if isinstance(cluster.memory, dict) else needs.memory * cluster.memory
        if memory:
            task.set_memory_request(f"{memory}Gi").set_memory_limit(f"{memory}Gi")
        if name in cluster.cpu:
            cores = f"{cluster.cpu[name]:g}"
            task.set_cpu_request(cores).set_cpu_limit(cores)
        return task

    def _set_gpus(self, task: "PipelineTask", name: str) -> None:
        """Set the GPUs and the options for GPU pods; the type first, or kfp warns."""
        from kfp import kubernetes

        cluster = self.cluster
        # only the training stages use several GPUs, one process each
        count = cluster.gpus if any(stage.name == name and stage.resumable for stage in FLOW) else 1
        task.set_accelerator_type(cluster.gpu_type).set_accelerator_limit(count)
        if count > 1:
            task.set_env_variable(PROCESSES, str(count))
        if cluster.shm:
            kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=f"{cluster.shm}Gi")
        for toleration in cluster.tolerations:
            kubernetes.add_toleration(task, **{k: v or None for k, v in toleration.model_dump().items()})
        for key, value in cluster.node_selector.items():
            kubernetes.add_node_selector(task, key, value)

    def _set_kubernetes_options(self, task: "PipelineTask") -> None:
        """Set secrets, run id, user, time limit and image options."""
        from kfp import kubernetes

        cluster = self.cluster
        for secret, keys in cluster.secrets.items():
            kubernetes.use_secret_as_env(task, secret, keys)
        if cluster.run_id:
            kubernetes.use_field_path_as_env(task, RUN_ID, _RUN_ID_FIELD)
        if cluster.run_as_user or cluster.run_as_group:
            kubernetes.set_security_context(task, cluster.run_as_user or None, cluster.run_as_group or None)
        if cluster.timeout:
            kubernetes.set_timeout(task, cluster.timeout)
        if cluster.image_pull_policy:
            kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
        if cluster.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))

    def _set_volumes(self, task: "PipelineTask", name: str) -> None:
        """Mount the volumes, and pass their paths to the first task, which checks them."""
        from kfp import kubernetes

        cluster = self.cluster
        for claim, mount in cluster.pvcs.items():
            kubernetes.mount_pvc(task, claim, mount)
        if cluster.checkpoints:
            task.set_env_variable(CHECKPOINTS, cluster.checkpoints)
        if cluster.pvcs and name in _FIRST_TASKS:
            folders = {*cluster.pvcs.values(), *([cluster.checkpoints] if cluster.checkpoints else [])}
            task.set_env_variable(VOLUMES, ":".join(sorted(folders)))
        size = f"{cluster.scratch}Gi"
        if cluster.scratch and cluster.scratch_class:
            kubernetes.add_ephemeral_volume(
                task, "scratch", "/tmp", ["ReadWriteOnce"], size, storage_class_name=cluster.scratch_class
            )
        elif cluster.scratch:
            kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=size)
