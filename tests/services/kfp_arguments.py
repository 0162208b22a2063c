"""The sizes of what KFP's driver and Argo make of a task's inputs, for tests of how long a list of artifacts may be.

The driver writes all inputs and outputs of a task into one JSON text, the executor input (`backend/src/v2/driver`,
initPodSpecPatch, and `backend/src/v2/metadata/converter.go`, toRuntimeArtifact, at tag 2.17.0). It is one argument of the
launcher, and again of the component's command. The driver also writes it into a patch of the pod, and Argo (v4.0.5,
createWorkflowPod; v3.6.7 alike) writes the template with that patch into one environment variable, ARGO_TEMPLATE. JSON in
JSON in JSON: each quotation mark is escaped twice, so that the variable is the largest of them. Linux accepts 128 KiB in
one argument or variable. Argo would put a longer template into a ConfigMap, which the roles that come with KFP do not let
it create.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

LIMIT = 128 * 1024
"""Bytes of one argument, or one variable with its name, with the zero that ends it (MAX_ARG_STRLEN of Linux)."""

_ROOT = "s3://a-bucket-with-a-rather-long-name/private-artifacts/a-team-with-a-long-name/v2/artifacts"
_RUN = _TASK = "01234567-89ab-cdef-0123-456789abcdef"
_STORE = {
    "Provider": "s3",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "false",
        "endpoint": "object-store.example.org:9000",
        "forcePathStyle": "true",
        "fromEnv": "false",
        "maxRetries": "5",
        "region": "eu-central-1",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}
_POD = 12 * 1024
"""Bytes for the rest of pod and template: launcher, volumes, secrets, variables; half of it was seen with every option."""


class Sizes(NamedTuple):
    """Bytes of the executor input, and of Argo's variable with the whole template."""

    argument: int
    template: int


def measure_task(
    spec: Mapping[str, Any], task: str, parameters: Mapping[str, Any], lists: int, metadata: Mapping[str, Any]
) -> Sizes:
    """Return the sizes for a task of a compiled pipeline; the arguments are those of `executor_input`."""
    component = spec["components"][f"comp-{task}"]
    container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    text = executor_input(spec, task, parameters, lists, metadata)
    launcher = ["--executor_input", text, "--component_spec", _protojson(component)]
    patch = _go_json(
        {"command": [*launcher, *container["command"], *container["args"]], "env": container.get("env", [])}
    )
    return Sizes(len(text.encode()), len(_go_json(patch).encode()) + _POD)


def executor_input(
    spec: Mapping[str, Any], task: str, parameters: Mapping[str, Any], lists: int, metadata: Mapping[str, Any]
) -> str:
    """Return what the driver writes for a task of a compiled pipeline.

    Args:
        parameters: the values of its input parameters; others are left out.
        lists: how many artifacts are in each input that is a list.
        metadata: what the tasks before it recorded with each artifact.
    """
    component = spec["components"][f"comp-{task}"]
    taken, given = component["inputDefinitions"], component.get("outputDefinitions", {})
    pipeline = f"namespace/a-team-with-a-long-name/pipeline/{spec['pipelineInfo']['name']}"
    artifacts = {
        name: {"artifacts": [_artifact(pipeline, name, metadata)] * (lists if entry.get("isArtifactList") else 1)}
        for name, entry in taken.get("artifacts", {}).items()
    }
    values = {name: parameters[name] for name in taken.get("parameters", {}) if name in parameters}
    outputs = {
        name: {"artifacts": [{"name": name, "type": entry["artifactType"], "uri": _uri(pipeline, name)}]}
        for name, entry in given.get("artifacts", {}).items()
    }
    inputs = ({"parameterValues": values} if values else {}) | {"artifacts": artifacts}
    file = _uri(pipeline, "output_metadata.json").replace("s3:/", "/s3")
    return _protojson({"inputs": inputs, "outputs": {"artifacts": outputs, "outputFile": file}})


def _artifact(pipeline: str, name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return an artifact as a task gets it: named by its number in ML Metadata, its type without a name."""
    recorded = {"display_name": name, "store_session_info": _go_json(_STORE)}
    uri = _uri(pipeline, name)
    return {"name": "123456789", "type": {"instanceSchema": ""}, "uri": uri, "metadata": {**metadata, **recorded}}


def _uri(pipeline: str, name: str) -> str:
    return f"{_ROOT}/{pipeline}/{_RUN}/train-pseudo-intensity/{_TASK}/{name}"


def _protojson(value: Any) -> str:
    """Return JSON as protojson writes it at its longest: with a space after each comma."""
    return json.dumps(value, separators=(", ", ":"), ensure_ascii=False)


def _go_json(value: Any) -> str:
    """Return JSON as Go writes it, where <, > and & are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
