"""Records of settings: frozen, and they know their keys; read from a file of keys and values, with overrides.

An unknown key is refused with the nearest known one; a wrong type or range with what was expected.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from aupair.errors import ParamsError

R = TypeVar("R", bound=BaseModel)


class Record(BaseModel):
    """A frozen record that knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read(path: Path, overrides: Sequence[str] = (), option: str = "--set") -> dict[str, Any]:
    """Read a file of keys and values, unchecked, and apply overrides such as `section.key=value`.

    Raises:
        ParamsError: the file is missing or is not a mapping, or an override is not of that form.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text()) or {}
    except FileNotFoundError as error:
        raise ParamsError(
            "no params file", where=path, todo="run inside a checkout, or name one that exists"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError("cannot be read", where=path, got=type(error).__name__, expected="a YAML file") from error
    except yaml.YAMLError as error:
        raise ParamsError("not YAML", where=path, got=error) from error
    if not isinstance(tree, dict):
        raise ParamsError("not a mapping", where=path, got=type(tree).__name__)
    for text in overrides:
        override(tree, text, option)
    return tree


def validate(record: type[R], tree: dict[str, Any], where: str) -> R:
    """Turn a tree into a record.

    Raises:
        ParamsError: an unknown key (with the nearest known one) or a wrong value.
    """
    try:
        return record.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known_keys(record, first["loc"][:-1])
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            raise ParamsError(
                "unknown parameter",
                where=where,
                got=key,
                todo=f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}",
            ) from error
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        got = repr(first["input"]) if first["loc"] else ""
        what = f"parameter {key}" if key else "parameters that do not fit each other"
        raise ParamsError(what, where=where, got=got, expected=expected) from error


def override(tree: dict[str, Any], text: str, option: str = "--set") -> None:
    """Set section.key=value in the tree, the value read as YAML.

    Raises:
        ParamsError: it is not of that form; `option` is named.
    """
    key, equals, value = text.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ParamsError(option, got=text, expected="section.key=value")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            raise ParamsError(option, got=text, expected=f"{section} to be a section")
        tree = child
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParamsError(option, got=text, expected="a value in YAML") from error


def _known_keys(record: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Give the keys of the record at `loc`."""
    for part in loc:
        if isinstance(part, str) and part in record.model_fields:
            annotation = record.model_fields[part].annotation
            inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
            if not inner:
                return []
            record = inner[0]
    return list(record.model_fields)
