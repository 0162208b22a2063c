"""The type rules of KFP's driver, applied to a compiled pipeline: what a real server refuses when a task starts.

The rules are those of `backend/src/v2/driver/resolve.go`, handleParamTypeValidationAndConversion, at tag 2.17.0. A value
that goes to an input of type STRING is turned into text, and stays text below; a value for any other type must be of its
kind. The input of a loop's item is checked in the iteration, where it has one element of the list; the list itself is not
passed on. kfp.local does none of this. Values that only a run has (outputs, elements of a list) count as what their
definition says.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_KINDS = {
    "STRING": "string",
    "NUMBER_INTEGER": "number",
    "NUMBER_DOUBLE": "number",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "struct",
    "TASK_FINAL_STATUS": "struct",
    "TASK_CONFIG": "struct",
}
"""The kind of protobuf value that the driver expects for each type of an input."""


def type_errors(spec: Mapping[str, Any]) -> list[str]:
    """Return what the driver would refuse in any task, in its words, after the path of the task."""
    return [*_default_errors(spec["root"], "root"), *_dag_errors(spec, spec["root"], "root")]


def _dag_errors(spec: Mapping[str, Any], parent: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the errors of the tasks of a graph, and of the graphs below it."""
    for name, task in parent["dag"]["tasks"].items():
        component, here = spec["components"][task["componentRef"]["name"]], f"{path}/{name}"
        yield from _default_errors(component, here)
        iterator = task.get("parameterIterator", {})
        for key, definition in _inputs(component).items():
            argument = task.get("inputs", {}).get("parameters", {}).get(key)
            if key == iterator.get("itemInput"):
                kinds = {_kind(item) for item in json.loads(iterator["items"].get("raw", "[]"))}
            elif argument is not None:
                kinds = {_argument_kind(spec, parent, argument)}
            else:
                kinds = set()
                if not definition.get("isOptional") and "defaultValue" not in definition:
                    yield f'{here}: neither value nor default value provided for non-optional parameter "{key}"'
            yield from (f"{here}: {text}" for kind in sorted(kinds) for text in _mismatch(key, definition, kind))
        if "dag" in component:
            yield from _dag_errors(spec, component, here)


def _default_errors(component: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the errors of the default values of a component's inputs."""
    for key, definition in _inputs(component).items():
        if "defaultValue" in definition:
            yield from (f"{path}: {text}" for text in _mismatch(key, definition, _kind(definition["defaultValue"])))


def _mismatch(key: str, definition: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the driver's message if a value of that kind does not fit an input; text is made of anything."""
    expected = definition["parameterType"]
    if expected != "STRING" and kind != _KINDS[expected]:
        yield f'input parameter "{key}" type mismatch: expect {expected}, got {kind}'


def _argument_kind(spec: Mapping[str, Any], parent: Mapping[str, Any], argument: Mapping[str, Any]) -> str:
    """Return the kind of value that a task's argument has in a run."""
    if "componentInputParameter" in argument:
        return _KINDS[_inputs(parent)[argument["componentInputParameter"]]["parameterType"]]
    if "taskOutputParameter" in argument:
        source = argument["taskOutputParameter"]
        producer = spec["components"][parent["dag"]["tasks"][source["producerTask"]]["componentRef"]["name"]]
        return _KINDS[producer["outputDefinitions"]["parameters"][source["outputParameterKey"]]["parameterType"]]
    if "taskFinalStatus" in argument:
        return "struct"
    return _kind(argument["runtimeValue"]["constant"])


def _kind(value: Any) -> str:
    """Return the kind of protobuf value that a value of the YAML becomes."""
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "list", dict: "struct"}
    return kinds[type(value)]


def _inputs(component: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definitions of a component's input parameters."""
    definitions: Mapping[str, Any] = component.get("inputDefinitions", {}).get("parameters", {})
    return definitions
