"""The compiled file: what it takes, what it would run, and the arguments that a user gives it."""

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

TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
"""A parameter's type in the file, and what Python has for it."""


@dataclass(frozen=True)
class Input:
    """A parameter of the pipeline.

    Attributes:
        kind: a key of TYPES.
        default: None where it must be given.
    """

    name: str
    kind: str
    default: Any = None


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
        path: the file.
        name: the pipeline's name.
        inputs: its parameters by name.
        spec: the first document: the pipeline as KFP defines it.
        platform: the second document: what only Kubernetes understands; empty where nothing was asked for.
    """

    path: Path
    name: str
    inputs: Mapping[str, Input]
    spec: Mapping[str, Any]
    platform: Mapping[str, Any]

    @property
    def images(self) -> list[str]:
        """The images of its tasks, each once."""
        executors = self.spec["deploymentSpec"]["executors"].values()
        return sorted({executor["container"]["image"] for executor in executors if "container" in executor})


def load(path: Path) -> Compiled:
    """Read a compiled file.

    Raises:
        ArtifactError: it is missing, or not a compiled pipeline.
    """
    todo = "make it with `aupair pipeline compile -o FILE.yaml`"
    try:
        spec, *more = [document for document in yaml.safe_load_all(Path(path).read_text()) if document]
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        known = {key: Input(key, value["parameterType"], value.get("defaultValue")) for key, value in inputs.items()}
        platform: dict[str, Any] = dict(more[0]) if more else {}
        name = spec["pipelineInfo"]["name"]
        _check_whole(spec, known)
    except FileNotFoundError as error:
        raise ArtifactError("no compiled pipeline", where=path, todo=todo) from error
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ArtifactError("not a compiled pipeline", where=path, got=got, todo=todo) from error
    return Compiled(Path(path), name, known, spec, platform)


def _check_whole(spec: Mapping[str, Any], inputs: Mapping[str, Input]) -> None:
    """Follow every reference in a file, which somebody may have edited.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: something is missing, or not what it should be.
    """
    unknown = {found.kind for found in inputs.values()} - set(TYPES)
    if unknown:
        raise ValueError(f"parameterType {', '.join(sorted(unknown))}")
    for component in (spec["root"], *spec["components"].values()):
        for task in component["dag"]["tasks"].values() if "dag" in component else ():
            named = spec["components"][task["componentRef"]["name"]]
            if "dag" not in named:
                spec["deploymentSpec"]["executors"][named["executorLabel"]]["container"]["image"].strip()
    spec["root"]["dag"]["tasks"].keys()


def arguments(compiled: Compiled, given: Sequence[str], also: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Turn `name=value` and `section.key=value` into the arguments of a run, checked against the file's inputs.

    A section that is touched is given whole, its other keys at their defaults: KFP replaces structs, it merges none.

    Args:
        also: values by name, for what is not given.

    Returns:
        only what was given; the file's own defaults stay the file's.

    Raises:
        ParamsError: an unknown name or key (with the nearest known one), a wrong type or value, or one that is missing.
    """
    tree: dict[str, Any] = {}
    texts: list[str] = []
    for text in given:
        name = text.partition("=")[0].partition(".")[0].strip()
        found = compiled.inputs.get(name)
        if found is None or (found.kind != "STRUCT" and "." in text.partition("=")[0]):
            near = difflib.get_close_matches(name, compiled.inputs, n=1)
            todo = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(compiled.inputs))}"
            raise ParamsError("unknown parameter", where=compiled.path, got=name, todo=todo)
        if found.kind == "STRUCT":
            tree.setdefault(name, copy.deepcopy(found.default or {}))
        if found.kind == "STRING" and "=" in text:
            tree[name] = text.partition("=")[2]  # as it stands: `1` or `a: b` would be something else in YAML
        else:
            texts.append(text)
    tree = apply_overrides(Params, tree, texts, "--param")
    for name in tree:
        _check_type(compiled.inputs[name], tree[name], compiled.path)
        if compiled.inputs[name].kind == "NUMBER_DOUBLE":
            tree[name] = float(tree[name])
    tree = {**(also or {}), **tree}
    missing = [name for name, found in compiled.inputs.items() if found.default is None and name not in tree]
    if missing:
        todo = f"give --param {missing[0]}=..."
        raise ParamsError("a parameter without a value", where=compiled.path, got=f"no {missing[0]}", todo=todo)
    _check_sections(compiled, tree)
    _check_rest(tree)
    return tree


def _check_rest(tree: Mapping[str, Any]) -> None:
    """Check what params.yaml does not have: where the data are, and how predictions are made."""
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


def effective(compiled: Compiled, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the value of every input in a run: what was given, else the default."""
    return {name: given.get(name, found.default) for name, found in compiled.inputs.items()}


def changes(compiled: Compiled, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give what differs from the file's defaults, a key of a section by itself: `train_mapping.epochs: 3`."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        default = compiled.inputs[name].default
        if isinstance(value, dict) and isinstance(default, dict):
            found |= {f"{name}.{key}": new for key, new in value.items() if new != default.get(key)}
        elif value != default:
            found[name] = value
    return found


def _check_type(found: Input, value: Any, where: Path) -> None:
    """Refuse a value of another type; a whole float stands for an int, a bool for no number."""
    kinds = TYPES[found.kind]
    whole = found.kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer()
    wrong_bool = isinstance(value, bool) and found.kind != "BOOLEAN"
    if wrong_bool or not (whole or isinstance(value, kinds)):
        expected = found.kind.removeprefix("NUMBER_").lower()
        raise ParamsError(f"parameter {found.name}", where=where, got=repr(value), expected=expected)


def _check_sections(compiled: Compiled, tree: Mapping[str, Any]) -> None:
    """Check what belongs to params.yaml as params.yaml is checked; the file's own values, too."""
    whole = {**{name: found.default for name, found in compiled.inputs.items()}, **tree}
    parse_params({name: whole[name] for name in Params.model_fields if name in whole}, where=str(compiled.path))
