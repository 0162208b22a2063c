"""A compiled pipeline file, and the validation of a run's arguments."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationInfo, model_validator

from aupair.documents import read_yaml_documents
from aupair.errors import ArtifactError, ParamsError, did_you_mean
from aupair.kubeflow.limits import check_shards, check_trials
from aupair.params import Params
from aupair.record import Positive, Share, apply_overrides, parse_settings


def _check_address(text: str, info: ValidationInfo) -> str:
    """Check the address of data or a model; raise ParamsError, since pydantic's own message would show a password in it."""
    if not text.strip():
        raise ParamsError(f"parameter {info.field_name}", got="nothing", todo=f"pass --param {info.field_name}=...")
    if "@" in urlsplit(text.removeprefix("git+")).netloc and not text.startswith("git+ssh://"):
        todo = "credentials come from the environment, a git credential helper or a secret: logs would show them"
        raise ParamsError(f"parameter {info.field_name}", got="a URL with a user in it", todo=todo)
    return text


class _Inputs(Params):
    """The inputs of both pipelines: the params, the address of the data, and the settings of predictions."""

    source: Annotated[str, AfterValidator(_check_address)]
    revision: str = ""
    remote: str = ""
    model: Annotated[str, AfterValidator(_check_address)] = "models:/aupair@champion"
    shards: Positive = 1
    abstain: Share = 0

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        """Check that the outputs of all trials, or shards, fit into one argument."""
        check_trials(len(self.trials))
        check_shards(self.shards)
        return self


class _Input(NamedTuple):
    """An input of a compiled pipeline: its type in KFP's terms, and its default, which is None for a required input."""

    kind: str
    default: Any


@dataclass(frozen=True)
class PipelineFile:
    """A compiled pipeline.

    Attributes:
        name: the pipeline's name.
        inputs: its parameters by name.
        spec: the first document: the pipeline as KFP defines it.
        platform: the second document: settings for Kubernetes only; empty if there are none.
    """

    path: Path
    name: str
    inputs: Mapping[str, _Input]
    spec: Mapping[str, Any]
    platform: Mapping[str, Any]

    @property
    def images(self) -> list[str]:
        """Return the images of the tasks, each once."""
        executors = self.spec["deploymentSpec"]["executors"].values()
        return sorted({executor["container"]["image"] for executor in executors if "container" in executor})

    @property
    def digest(self) -> str:
        """Return the first 16 digits of the file's SHA-256."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]

    @property
    def kubernetes(self) -> Mapping[str, Any]:
        """Return the settings for Kubernetes."""
        settings: Mapping[str, Any] = self.platform.get("platforms", {}).get("kubernetes", {})
        return settings

    @property
    def required(self) -> list[str]:
        """Return the names of the inputs without a default."""
        return [name for name, entry in self.inputs.items() if entry.default is None]

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every input in a run: its argument, or its default."""
        return {name: arguments.get(name, entry.default) for name, entry in self.inputs.items()}


def read_pipeline_file(path: Path) -> PipelineFile:
    """Read a compiled pipeline.

    Raises:
        ArtifactError: the file is missing, or is not a compiled pipeline.
    """
    todo = "make it with `aupair pipeline compile -o FILE.yaml`"
    try:
        spec, *more = [document for document in read_yaml_documents(path, ArtifactError, todo) if document]
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        inputs = {key: _Input(entry["parameterType"], entry.get("defaultValue")) for key, entry in parameters.items()}
        platform: dict[str, Any] = dict(more[0]) if more else {}
        name = spec["pipelineInfo"]["name"]
        _follow_references(spec)
    except FileNotFoundError as error:
        raise ArtifactError("no compiled pipeline", where=path, todo=todo) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ArtifactError("not a compiled pipeline", where=path, got=got, todo=todo) from error
    return PipelineFile(Path(path), name, inputs, spec, platform)


def _follow_references(spec: Mapping[str, Any]) -> None:
    """Follow all references between the parts of a file, to check that it is complete, since it may have been edited.

    Raises:
        KeyError, TypeError, AttributeError: a part is missing or has the wrong type.
    """
    spec["root"]["dag"]["tasks"].keys()
    for component in (spec["root"], *spec["components"].values()):
        for task in component["dag"]["tasks"].values() if "dag" in component else ():
            target = spec["components"][task["componentRef"]["name"]]
            if "dag" not in target:
                spec["deploymentSpec"]["executors"][target["executorLabel"]]["container"]["image"].strip()


def parse_arguments(
    file: PipelineFile, texts: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Parse the arguments of a run from strings such as `name=value` and `section.key=value`.

    If a string changes one key of a section, the result has all keys of that section, the others with their defaults, since
    KFP replaces the whole section instead of merging it.

    Args:
        defaults: values of inputs that are not among the strings.

    Returns:
        Only the arguments that were passed; all other inputs keep the file's defaults.

    Raises:
        ParamsError: an unknown name or key (with the nearest known one), a wrong type or value, or a missing one.
    """
    tree: dict[str, Any] = dict(defaults or {})
    overrides = []
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.partition(".")[0].strip()
        if name not in file.inputs:
            todo = did_you_mean(name, file.inputs, f"known: {', '.join(sorted(file.inputs))}")
            raise ParamsError("unknown parameter", where=file.path, got=name, todo=todo)
        kind, default = file.inputs[name]
        if kind == "STRING" and name == key.strip() and equals:
            tree[name] = value  # not parsed, since `1` or `a: b` would not be a string in YAML
        else:
            overrides.append(text)
        if kind == "STRUCT":
            tree.setdefault(name, default)
    tree = apply_overrides(Params, tree, overrides, "--param")
    missing = [name for name in file.required if name not in tree]
    if missing:
        todo = f"pass --param {missing[0]}=..."
        raise ParamsError("a parameter has no value", where=file.path, got=f"no {missing[0]}", todo=todo)
    # the defaults in the file are checked, too, since they may have been edited
    inputs = parse_settings(_Inputs, file.values(tree), str(file.path)).model_dump(mode="json")
    return {name: inputs[name] for name in tree}
