"""A file is refused before it is sent if a server of that version would drop a part of it, or refuse it."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from aupair.errors import RejectedError
from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compat import _PIPELINE_KEYS, _TASK_KEYS, advice_for_refusal, check_server_version
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.pipeline_file import PipelineFile, read_pipeline_file
from aupair.params import Params
from conftest import REPOSITORY
from kubeflow_options import EVERY_OPTION

SECRETS = "secrets.s3={access: AWS_ACCESS_KEY_ID}"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Any:
    """Return a function that compiles the prediction pipeline with options."""

    def build(*options: str, pipeline: str = "predict") -> PipelineFile:
        path = tmp_path_factory.mktemp("compiled") / "file.yaml"
        compile_pipeline(pipeline, tiny, load_cluster(None, options), path, REPOSITORY)
        return read_pipeline_file(path)

    return build


@pytest.mark.parametrize(
    ("options", "enough", "too_old", "message"),
    [
        ([], "2.14.0", "2.5.0", "the server is too old, got server 2.5.0, expected 2.14 or newer"),
        (["pvcs.a=/a", "shm=1", "memory=true", "timeout=9", "retries=1"], "2.14.0", "2.4.1", "expected 2.14 or newer"),
        ([SECRETS], "2.15.0", "2.14.4", "which would refuse the file, expected .*: secrets .2.15.; compile without secrets"),
        (["run_as_user=7"], "2.16.0", "2.15.9", "refuse the file.*: run_as_user and run_as_group .2.16."),
        (["ttl=9"], "2.17.0", "v2.16.1", "run the file without any secret, volume.*: ttl .2.17.; compile without ttl"),
        (["deadline=9"], "2.17.3", "2.16.0", "without any secret.*: deadline .2.17."),
        (["ttl=9", SECRETS], "2.17.0", "2.14.0", "ttl .2.17., secrets .2.15.; compile without ttl and secrets, or upgrade"),
    ],
)  # fmt: skip
def test_a_server_gets_only_what_it_knows(
    compiled: Any, options: list[str], enough: str, too_old: str, message: str
) -> None:
    file = compiled(*options)
    check_server_version(file, enough)
    with pytest.raises(RejectedError, match=message):
        check_server_version(file, too_old)


@pytest.mark.parametrize("version", ["", "unknown", "master-55ec846"])
def test_a_server_without_a_version_gets_no_newer_keys(compiled: Any, version: str) -> None:
    check_server_version(compiled(), version)
    with pytest.raises(RejectedError, match=r"got a server that does not report its version.*by --server-version"):
        check_server_version(compiled("ttl=9"), version)


def test_a_servers_refusal_names_the_option() -> None:
    text = 'failed to unmarshal kubernetes config: proto: (line 1:2): unknown field "securityContext"'
    assert advice_for_refusal(text).endswith(
        "compile without run_as_user and run_as_group, or upgrade the server to 2.16"
    )
    assert "doctor" in advice_for_refusal("unknown template format: pipeline spec is invalid")
    assert not advice_for_refusal("Already exist error")


KNOWN_IN_2_14 = """
accelerator accessModes activeDeadlineSeconds args artifactSelectors artifactType artifacts backoffDuration backoffFactor
backoffMaxDuration cachingOptions command componentInputArtifact componentInputParameter componentRef components constant
container count cpuLimit cpuRequest dag defaultStorageClass defaultValue dependentTasks deploymentSpec description effect
emptyDirMounts enableCache env envVar executorLabel executors fieldPath fieldPathAsEnv genericEphemeralVolume image
imagePullPolicy imagePullSecret inputDefinitions inputParameter inputs isArtifactList isOptional itemInput items
iteratorPolicy key keyToEnv labels maxRetryCount medium memoryLimit memoryRequest mountPath name nodeSelector operator
outputArtifactKey outputDefinitions outputParameterKey outputs parallelismLimit parameterIterator parameterType parameters
pipelineConfig pipelineInfo platforms producerSubtask producerTask pvcMount pvcNameParameter resourceCount
resourceCpuLimit resourceCpuRequest resourceMemoryLimit resourceMemoryRequest resourceType resources retryPolicy root
runtimeValue schemaTitle schemaVersion sdkVersion secretAsEnv secretKey secretName secretNameParameter size sizeLimit
storageClassName strategy taskFinalStatus taskInfo taskOutputArtifact taskOutputParameter tasks tolerations triggerPolicy
type value volumeName
"""
"""The keys of our files that are in the protocol files of the server's tag 2.14.0."""


def test_every_newer_key_of_our_files_is_in_the_table(compiled: Any) -> None:
    for pipeline in ("train", "predict"):
        file = compiled(*EVERY_OPTION, pipeline=pipeline)
        spec = json_format.ParseDict(dict(file.spec), pb.PipelineSpec())
        deployment = json_format.ParseDict(file.spec["deploymentSpec"], pb.PipelineDeploymentConfig())
        platform = json_format.ParseDict(dict(file.platform), pb.PlatformSpec())
        tasks = [
            json_format.ParseDict(task, KubernetesExecutorConfig())
            for task in file.kubernetes["deploymentSpec"]["executors"].values()
        ]
        used = {key for message in (spec, deployment, platform, *tasks) for key in _keys(message)}
        newer = used - set(KNOWN_IN_2_14.split())
        assert newer - {"runAsUser", "runAsGroup"} == (set(_PIPELINE_KEYS) | set(_TASK_KEYS)) - {
            "activeDeadlineSeconds"
        }


def _keys(message: Message) -> Iterator[str]:
    """Yield the names of all fields that are set in a message and below it."""
    if message.DESCRIPTOR.full_name.startswith("google."):
        return
    for field, value in message.ListFields():
        entry = field.message_type
        if entry and entry.GetOptions().map_entry:
            yield field.json_name
            if entry.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
                for key in value:
                    yield from _keys(value[key])
            continue
        yield field.json_name
        if entry:
            for child in [value] if isinstance(value, Message) else value:
                yield from _keys(child)
