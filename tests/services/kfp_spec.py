"""What a KFP server checks of a submitted pipeline, in its order and its words (tag 2.17.0).

The places: `apiserver/template/v2_template.go` (both documents, the arguments), `v2/compiler/argocompiler/container.go` (a
task's settings), `common/util/error.go` (which failures have which status). What the driver checks when a task starts is
in `services.kfp_driver`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from google.protobuf import json_format

_KINDS = {
    "STRING": ("string", str),
    "NUMBER_INTEGER": ("double or integer", int | float),
    "NUMBER_DOUBLE": ("double or integer", int | float),
    "BOOLEAN": ("bool", bool),
    "LIST": ("list", list),
    "STRUCT": ("struct", dict),
}
"""The server's word for each type of an input, and what its value must be."""

_STACK = (
    "\nFailed to compile job\ngithub.com/kubeflow/pipelines/backend/src/apiserver/template.(*V2Spec).RunWorkflow\n\t"
)
_STACK += "/go/src/github.com/kubeflow/pipelines/backend/src/apiserver/template/v2_template.go:402\n" * 8


class Refusal(Exception):
    """A failing HTTP status and its message."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def read_body(body: Any, model: str) -> Any:
    """Return a body as an object of the SDK's model; refuse keys that the model does not have."""
    import kfp_server_api

    unknown = set(body) - set(getattr(kfp_server_api, model).attribute_map.values())
    if unknown:
        raise Refusal(400, f'proto: (line 1:2): unknown field "{unknown.pop()}"')
    return kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(body)), model)


def check_trigger(schedule: Any) -> None:
    """Refuse a schedule without a time or a name."""
    cron = schedule.trigger.cron_schedule.cron if schedule.trigger.cron_schedule else None
    if not schedule.display_name or not (cron or int(schedule.trigger.periodic_schedule.interval_second)):
        raise Refusal(400, "Invalid input error: a recurring run needs a name and a trigger")
    if not 1 <= int(schedule.max_concurrency) <= 10:
        text = "Max concurrency of a recurring run must be at least 1 and at most 10. Received"
        text = f"Invalid input error: {text} {schedule.max_concurrency}"
        raise Refusal(400, f"Failed to create a recurring run due to conversion error: {text}")


def read_spec(spec: Mapping[str, Any], context: str) -> Mapping[str, Any]:
    """Return the first document; refuse one that is no PipelineSpec: the server calls that an error of its own.

    Args:
        context: the server's words for what it was doing.
    """
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    document: Mapping[str, Any] = spec.get("pipeline_spec", spec)
    reason = ""
    try:
        parsed = json_format.ParseDict(document, pb.PipelineSpec())
        if not parsed.pipeline_info.name or not parsed.HasField("root"):
            reason = "unknown template format"
        elif parsed.schema_version != "2.1.0":
            reason = (
                f"KFP only supports schema version 2.1.0, but the pipeline spec has version {parsed.schema_version}"
            )
    except json_format.ParseError:
        reason = "unknown template format"
    if reason:
        text = "Failed to fetch a template with an invalid pipeline spec manifest: InvalidInputError"
        raise Refusal(500, f"{context}: {text}: {reason}: pipeline spec is invalid")
    return document


def read_settings(spec: Mapping[str, Any], unknown: Collection[str]) -> Mapping[str, Any]:
    """Return Kubernetes' part of the second document; empty if a key of it is unknown: the server drops all, in silence.

    Args:
        unknown: keys that an older server does not know.
    """
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    platform = spec.get("platform_spec", {}) if "pipeline_spec" in spec else {}
    settings: Mapping[str, Any] = platform.get("platforms", {}).get("kubernetes", {})
    try:
        json_format.ParseDict(platform, pb.PlatformSpec())
    except json_format.ParseError:
        return {}
    return {} if set(unknown) & set(settings.get("pipelineConfig", {})) else settings


def known_documents(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the documents as an answer has them; a second one that was dropped stands there for the first (seen)."""
    if "platform_spec" not in spec:
        return spec.get("pipeline_spec", spec)
    return spec if settings else spec["platform_spec"]


def check_arguments(document: Mapping[str, Any], arguments: Mapping[str, Any], context: str) -> None:
    """Refuse arguments that are missing, unknown or of another type."""
    inputs = document["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, definition in inputs.items():
        word, kind = _KINDS[definition["parameterType"]]
        if name not in arguments:
            if not definition.get("isOptional") and "defaultValue" not in definition:
                text = f"parameter {name} is not optional, yet has neither default value nor user provided value"
                raise _invalid_input(context, text)
        elif not isinstance(arguments[name], kind) or (word != "bool" and isinstance(arguments[name], bool)):
            rest = (
                "but the parameter value is not of number value type"
                if word == "double or integer"
                else f"but the input parameter is not of {word} value type"
            )
            raise _invalid_input(context, f"input parameter {name} requires type {word}, {rest}")
    if extra := set(arguments) - set(inputs):
        raise _invalid_input(context, f"parameter(s) provided are not required by pipeline: {', '.join(sorted(extra))}")


def check_task_settings(settings: Mapping[str, Any], unknown: Collection[str]) -> None:
    """Refuse an unknown key in the settings of a task; the message ends in Go's stack trace."""
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

    for label, options in settings.get("deploymentSpec", {}).get("executors", {}).items():
        key = next((key for key in _keys(options) if key in unknown), "")
        try:
            json_format.ParseDict(options, KubernetesExecutorConfig())
        except json_format.ParseError as error:
            key = str(error).partition('no field named "')[2].partition('"')[0]
        if key:
            task = label.removeprefix("exec-")
            text = f'compiling DAG "comp-exit-handler-1": compiling task "{task}": error creating executor for "{task}"'
            text = f"{text}: failed to unmarshal kubernetes config"
            raise Refusal(500, f'Internal error: {text}: proto: (line 1:91): unknown field "{key}"{_STACK}')


def _invalid_input(context: str, text: str) -> Refusal:
    return Refusal(400, f"{context}: invalid pipeline job inputs: Invalid input error: {text}")


def _keys(tree: Any) -> Iterator[str]:
    """Yield every key of a nested tree."""
    if isinstance(tree, Mapping):
        yield from tree
    for child in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ():
        yield from _keys(child)
