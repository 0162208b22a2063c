"""Read a compiled pipeline file, and check the arguments that a user gives it."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from aupair.errors import ArtifactError, ParamsError
from aupair.params import Params, parse_params
from aupair.record import apply_overrides

_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
"""Types of KFP parameters, and the Python types of their values."""


@dataclass(frozen=True)
class _Input:
    """An input of the pipeline: a key of _TYPES, and its default; None if it must be given."""

    name: str
    kind: str
    default: Any = None


@dataclass(frozen=True)
class PipelineFile:
    """A compiled pipeline.

    Attributes:
        name: the pipeline's name.
        inputs: its parameters by name.
        spec: the first document: the pipeline as KFP defines it.
        platform: the second document: settings that only Kubernetes understands; empty without any.
    """

    path: Path
    name: str
    inputs: Mapping[str, _Input]
    spec: Mapping[str, Any]
    platform: Mapping[str, Any]

    @property
    def images(self) -> list[str]:
        """The images of its tasks, each once."""
        executors = self.spec["deploymentSpec"]["executors"].values()
        return sorted({executor["container"]["image"] for executor in executors if "container" in executor})

    @property
    def kubernetes(self) -> Mapping[str, Any]:
        """The settings for Kubernetes."""
        settings: Mapping[str, Any] = self.platform.get("platforms", {}).get("kubernetes", {})
        return settings

    @property
    def required(self) -> list[str]:
        """The inputs without a default."""
        return [name for name, entry in self.inputs.items() if entry.default is None]

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every input in a run: its argument, or its default."""
        return {name: arguments.get(name, entry.default) for name, entry in self.inputs.items()}


def read_pipeline_file(path: Path) -> PipelineFile:
    """Return a compiled pipeline from its file.

    Raises:
        ArtifactError: it is missing, or not a compiled pipeline.
    """
    todo = "make it with `aupair pipeline compile -o FILE.yaml`"
    try:
        spec, *more = [document for document in yaml.safe_load_all(Path(path).read_text()) if document]
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        inputs = {
            key: _Input(key, entry["parameterType"], entry.get("defaultValue")) for key, entry in parameters.items()
        }
        platform: dict[str, Any] = dict(more[0]) if more else {}
        name = spec["pipelineInfo"]["name"]
        _follow_references(spec, inputs)
    except FileNotFoundError as error:
        raise ArtifactError("no compiled pipeline", where=path, todo=todo) from error
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ArtifactError("not a compiled pipeline", where=path, got=got, todo=todo) from error
    return PipelineFile(Path(path), name, inputs, spec, platform)


def _follow_references(spec: Mapping[str, Any], inputs: Mapping[str, _Input]) -> None:
    """Check that a file which somebody may have edited is complete.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: a part is missing or of another type.
    """
    unknown = {entry.kind for entry in inputs.values()} - set(_TYPES)
    if unknown:
        raise ValueError(f"parameterType {', '.join(sorted(unknown))}")
    for component in (spec["root"], *spec["components"].values()):
        for task in component["dag"]["tasks"].values() if "dag" in component else ():
            target = spec["components"][task["componentRef"]["name"]]
            if "dag" not in target:
                spec["deploymentSpec"]["executors"][target["executorLabel"]]["container"]["image"].strip()
    spec["root"]["dag"]["tasks"].keys()


def parse_arguments(
    file: PipelineFile, texts: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the arguments of a run from texts such as `name=value` and `section.key=value`.

    If a text changes one key of a section, the arguments hold all keys of that section, the others with their defaults,
    since KFP replaces a struct and does not merge it.

    Args:
        defaults: values of inputs that the texts do not give.

    Returns:
        The given arguments only; all others keep the file's defaults.

    Raises:
        ParamsError: an unknown name or key (with the nearest known one), a wrong type or value, or a missing one.
    """
    tree: dict[str, Any] = {}
    overrides = []
    for text in texts:
        entry = _find_input(file, text.partition("=")[0])
        if entry.kind == "STRUCT":
            tree.setdefault(entry.name, copy.deepcopy(entry.default or {}))
        if entry.kind == "STRING" and "=" in text:
            tree[entry.name] = text.partition("=")[2]  # not parsed: `1` or `a: b` would become something else in YAML
        else:
            overrides.append(text)
    tree = apply_overrides(Params, tree, overrides, "--param")
    for name, value in tree.items():
        _check_type(file.inputs[name], value, file.path)
        if file.inputs[name].kind == "NUMBER_DOUBLE":
            tree[name] = float(value)
    tree = {**(defaults or {}), **tree}
    missing = [name for name in file.required if name not in tree]
    if missing:
        todo = f"give --param {missing[0]}=..."
        raise ParamsError("a parameter without a value", where=file.path, got=f"no {missing[0]}", todo=todo)
    # the file's own defaults are checked, too: somebody may have edited them
    sections = {name: value for name, value in file.values(tree).items() if name in Params.model_fields}
    parse_params(sections, where=str(file.path))
    _check_other_inputs(tree)
    return tree


def _find_input(file: PipelineFile, key: str) -> _Input:
    """Return the input that a key such as `seed` or `train_mapping.epochs` belongs to."""
    name = key.partition(".")[0].strip()
    entry = file.inputs.get(name)
    if entry is None or (entry.kind != "STRUCT" and "." in key):
        near = difflib.get_close_matches(name, file.inputs, n=1)
        todo = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(file.inputs))}"
        raise ParamsError("unknown parameter", where=file.path, got=name, todo=todo)
    return entry


def _check_type(entry: _Input, value: Any, where: Path) -> None:
    """Raise a ParamsError if a value does not have the type of an input.

    A float without a fraction is accepted as an integer; a bool is not accepted as a number.
    """
    is_whole_number = entry.kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer()
    wrong_bool = isinstance(value, bool) and entry.kind != "BOOLEAN"
    if wrong_bool or not (is_whole_number or isinstance(value, _TYPES[entry.kind])):
        expected = entry.kind.removeprefix("NUMBER_").lower()
        raise ParamsError(f"parameter {entry.name}", where=where, got=repr(value), expected=expected)


def _check_other_inputs(tree: Mapping[str, Any]) -> None:
    """Check the inputs that params.yaml does not have: where the data are, and how predictions are made."""
    for name in ("source", "model"):
        text = str(tree.get(name, "-"))
        if not text.strip():
            raise ParamsError(f"parameter {name}", got="nothing", todo=f"give --param {name}=...")
        if "@" in urlsplit(text.removeprefix("git+")).netloc and not text.startswith("git+ssh://"):
            todo = "credentials come from the environment, a git credential helper or a secret: logs would show them"
            raise ParamsError(f"parameter {name}", got="a URL with a user in it", todo=todo)
    if tree.get("shards", 1) < 1:
        raise ParamsError("parameter shards", got=tree["shards"], expected="at least 1")
    if not 0 <= tree.get("abstain", 0) <= 1:
        raise ParamsError("parameter abstain", got=tree["abstain"], expected="a share from 0 to 1")
