"""Records of settings: frozen pydantic models that reject unknown keys, read from YAML, with overrides.

A section may come in several kinds, such as `train_uncertainty` with `kind: network` or `kind: factors`. It is a union
of records, one for each kind, and a record has only the keys that have an effect for its kind.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aupair.documents import MalformedError, parse_yaml, read_yaml
from aupair.errors import ParamsError, did_you_mean

R = TypeVar("R", bound=BaseModel)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=2**16)]
"""a number of units or columns, limited since memory grows with it"""
Repeats = Annotated[int, Field(ge=1, le=1000)]
"""a number of networks, folds or copies of everything"""


class Record(BaseModel):
    """A frozen record that rejects unknown keys, infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


FACTORY = "factory"
"""The kind of a network that a user's function builds."""


def tag_of(value: Any) -> Any:
    """Return the tag for a value of `kind`, which is FACTORY for `package.module:function`, else the value itself."""
    return FACTORY if isinstance(value, str) and ":" in value else value


def default_tags(**tags: str) -> BeforeValidator:
    """Return a validator that adds the default `kind` (or other tag) to a section without one."""
    return BeforeValidator(lambda value: tags | value if isinstance(value, dict) else value)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values without checking them.

    Raises:
        ParamsError: the file is missing, cannot be read, or is not a mapping.
    """
    try:
        tree = read_yaml(path) or {}
    except FileNotFoundError as error:
        raise ParamsError(
            "no such file", where=path, todo="run it in a project (`aupair init` makes one), or name a file"
        ) from error
    if not isinstance(tree, dict):
        raise ParamsError("not a mapping", where=path, got=type(tree).__name__)
    return tree


def apply_overrides(
    record: type[BaseModel], tree: Mapping[str, Any], texts: Sequence[str], option: str = "--set"
) -> dict[str, Any]:
    """Return the tree with overrides such as `section.key=value` applied, the values read as YAML.

    Where an override changes a section's kind, the section loses the keys that the new kind does not have.

    Args:
        option: the command line's option that the overrides come from, for the error message.

    Raises:
        ParamsError: an override is not of that form.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().split(".")[-1]:
            raise ParamsError(f"{option} is malformed", got=text, expected="section.key=value")
        try:
            settings[key.strip()] = parse_yaml(value)
        except MalformedError as error:
            expected = f"a value in YAML ({error})"
            raise ParamsError(f"{option} has a wrong value", got=text, expected=expected) from error
    return apply_settings(record, tree, settings, option)


def apply_settings(
    record: type[BaseModel], tree: Mapping[str, Any], settings: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the tree with each `section.key` set to its value; for kinds see `apply_overrides`."""
    changed = copy.deepcopy(dict(tree))
    for key, value in settings.items():
        *sections, last = key.split(".")
        section = changed
        for name in sections:
            child = section.setdefault(name, {})
            if not isinstance(child, dict):
                raise ParamsError(
                    f"{where} does not fit the params", got=f"{key}={value}", expected=f"{name} to be a section"
                )
            section = child
        section[last] = value
    _drop_keys_of_old_kinds(record, record, tree, changed)
    return changed


def _drop_keys_of_old_kinds(
    old: type[BaseModel], new: type[BaseModel], before: Mapping[str, Any], after: dict[str, Any]
) -> None:
    """Delete keys that only the old kind has from sections whose kind was changed, unless an override set the key."""
    for key in (old.model_fields.keys() - new.model_fields.keys()) & before.keys() & after.keys():
        if after[key] == before[key]:
            del after[key]
    for key in old.model_fields.keys() & new.model_fields.keys():
        if isinstance(before.get(key), dict) and isinstance(after.get(key), dict):
            old_kind = _kind_of(old.model_fields[key].annotation, before[key])
            new_kind = _kind_of(new.model_fields[key].annotation, after[key])
            if old_kind and new_kind:
                _drop_keys_of_old_kinds(old_kind, new_kind, before[key], after[key])


def drop_unknown_keys(record: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree without the keys, at any depth, that its kinds do not have."""
    known = {}
    for key, value in tree.items():
        if key in record.model_fields:
            kind = _kind_of(record.model_fields[key].annotation, value) if isinstance(value, dict) else None
            known[key] = drop_unknown_keys(kind, value) if kind else value
    return known


def parse_settings(record: type[R], tree: Mapping[str, Any], where: str) -> R:
    """Convert a tree of keys and values to a record.

    Raises:
        ParamsError: an unknown key (with the nearest known one of its kind) or a wrong value.
    """
    try:
        return record.model_validate(tree)
    except ValidationError as error:
        raise _settings_error(record, error, where) from error


def _settings_error(record: type[BaseModel], error: ValidationError, where: str) -> ParamsError:
    """Return the error for the first problem that pydantic found."""
    first = error.errors()[0]
    loc, context = first["loc"], first.get("ctx", {})
    key, _, _ = _resolve(record, loc)
    if first["type"] == "extra_forbidden":
        _, (kind,), family = _resolve(record, loc[:-1])
        todo = _advice(key[-1], kind, family)
        return ParamsError("unknown parameter", where=where, got=".".join(key), todo=todo)
    if first["type"] == "union_tag_invalid":
        what = "parameter " + ".".join([*key, context["discriminator"].strip("'")])
        choices = context["expected_tags"].replace(f"'{FACTORY}'", "package.module:function")
        todo = did_you_mean(str(context["tag"]), choices.replace("'", "").split(", "), "")
        return ParamsError(what, where=where, got=repr(context["tag"]), expected=f"one of {choices}", todo=todo)
    expected = re.sub(r"^(Value error, |Input should be |(Tuple|Dictionary|String) should have )", "", first["msg"])
    if first["type"] == "int_parsing_size":
        expected = "a smaller integer"
    if not key:
        return ParamsError("parameters do not fit each other", where=where, expected=expected)
    got = repr(first["input"])
    if first["type"] == "value_error" and isinstance(
        first["input"], dict
    ):  # a section whose keys do not fit each other
        got = ", ".join(f"{name}: {value}" for name, value in first["input"].items() if f"{name}:" in expected)
    return ParamsError(f"parameter {'.'.join(key)}", where=where, got=got, expected=expected)


def _advice(key: str, kind: type[BaseModel], family: Sequence[type[BaseModel]]) -> str:
    """Return a hint for a key that a record does not have."""
    if any(key in other.model_fields for other in family):
        tags = ", ".join(f"{tag}: {'|'.join(values)}" for tag, values in _tags(kind, family).items())
        return f"leave it out, it has no effect with {tags}"
    return did_you_mean(key, kind.model_fields, f"known: {', '.join(kind.model_fields)}")


def _resolve(
    record: type[BaseModel], loc: Sequence[int | str]
) -> tuple[list[str], list[type[BaseModel]], list[type[BaseModel]]]:
    """Resolve a location in pydantic's form, where the tag of a union's member follows the union's key.

    Returns:
        The key without tags, the record at that location (none for a plain value), and all members of its union.
    """
    key: list[str] = []
    kinds = family = [record]
    for part in loc:
        if len(kinds) > 1:
            kinds = [kind for kind in kinds if any(part in values for values in _literals(kind).values())]
            continue
        key.append(str(part))
        if isinstance(part, str):
            field = kinds[0].model_fields.get(part) if kinds else None
            kinds = family = _records_in(field.annotation) if field else []
    return key, kinds, family


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the records that an annotation names, such as the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for inner in get_args(annotation) for record in _records_in(inner)]


def list_keys(annotation: Any) -> list[str]:
    """Return the keys that a section has in any of its kinds; those of nested sections as `optimiser.steps`."""
    keys: dict[str, None] = {}
    for record in _records_in(annotation):
        for name, field in record.model_fields.items():
            below = list_keys(field.annotation)
            keys |= dict.fromkeys([f"{name}.{key}" for key in below] or [name])
    return list(keys)


def _kind_of(annotation: Any, tree: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the member of a union whose tags the tree has; a missing tag counts as that of the first member."""
    family = _records_in(annotation)

    def fits(kind: type[BaseModel]) -> bool:
        return all(
            tag_of(tree.get(tag, kind.model_fields[tag].default)) in values
            for tag, values in _tags(kind, family).items()
        )

    return next((kind for kind in family if fits(kind)), None)


def _tags(kind: type[BaseModel], family: Sequence[type[BaseModel]]) -> dict[str, tuple[str, ...]]:
    """Return the fields, with their values, that distinguish a record from the others of its union."""
    others = [_literals(other) for other in family if other is not kind]
    return {
        name: values
        for name, values in _literals(kind).items()
        if any(set(values).isdisjoint(other[name]) for other in others if name in other)
    }


def _literals(record: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Return the fields of a record whose value is one of a few strings, with these strings."""
    return {
        name: get_args(field.annotation)
        for name, field in record.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
