"""Safe reading of YAML and JSON files of unknown origin.

The size of a file, and the depth and number of its values, are checked before values are built. A YAML alias counts as all
values that it repeats, so that a few lines cannot expand to gigabytes. Values that parsers interpret differently are rejected:
duplicate keys, integers beyond 64 bits, infinity and NaN.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from aupair.errors import AupairError, ParamsError

YAML_BYTES, JSON_BYTES = 4 * 2**20, 32 * 2**20
"""Maximum sizes of files."""
DEPTH = 64
"""Maximum nesting of lists and mappings."""
YAML_VALUES = 50_000
"""Maximum number of values in YAML, including those that aliases and merge keys repeat."""
_LONGEST_NUMBER = 400
"""Maximum number of characters of a number; Python converts longer ones in quadratic time."""
_INTEGERS = range(-(2**63), 2**63)

_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
"""A JSON string, whose brackets do not count, or a bracket."""

Parser = Callable[[str], Any]


class MalformedError(ValueError):
    """A text that is not YAML or JSON within the limits; the message holds the reason."""


def read_yaml(path: Path, kind: type[AupairError] = ParamsError, todo: str = "") -> Any:
    """Read a YAML file of one document; None for an empty one.

    Args:
        kind: the class of errors to raise.
        todo: the next step for the user.

    Raises:
        FileNotFoundError: the file is missing.
        AupairError: of the class `kind`; the file cannot be read, or is malformed.
    """
    return _read(path, parse_yaml, "YAML", YAML_BYTES, kind, todo)


def read_yaml_documents(path: Path, kind: type[AupairError] = ParamsError, todo: str = "") -> list[Any]:
    """Read a YAML file of several documents; arguments and errors are those of `read_yaml`."""
    return list(_read(path, _parse_yaml_documents, "YAML", YAML_BYTES, kind, todo))


def read_json(path: Path, kind: type[AupairError] = ParamsError, todo: str = "") -> Any:
    """Read a JSON file; arguments and errors are those of `read_yaml`."""
    return _read(path, parse_json, "JSON", JSON_BYTES, kind, todo)


def read_json_lines(path: Path, kind: type[AupairError] = ParamsError, todo: str = "") -> list[Any]:
    """Read a file with a JSON value on each line; arguments and errors are those of `read_yaml`."""
    return list(_read(path, _parse_json_lines, "JSON", JSON_BYTES, kind, todo))


def _read(path: Path, parse: Parser, language: str, limit: int, kind: type[AupairError], todo: str) -> Any:
    """Read and parse a file of at most `limit` bytes; its size is not asked for, since a device or a pipe has none."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise MalformedError(f"more than {limit // 2**20} MiB")
        return parse(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        got, expected = error.strerror or error, f"a {language} file"
        raise kind("the file cannot be read", where=path, got=got, expected=expected, todo=todo) from error
    except UnicodeDecodeError as error:
        got = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise kind(f"not {language}", where=path, got=got, expected="text in UTF-8", todo=todo) from error
    except MalformedError as error:
        raise kind(f"not {language}", where=path, got=error, todo=todo) from error


def parse_yaml(text: str) -> Any:
    """Parse YAML with the types of JSON, so that a date stays text; return None for an empty text.

    Raises:
        MalformedError: the text is not YAML, has a tag of another type or a key that is not text, or exceeds a limit.
    """
    documents = _parse_yaml_documents(text)
    if len(documents) > 1:
        raise MalformedError("more than one document")
    return documents[0] if documents else None


def _parse_yaml_documents(text: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, _Loader))  # a subclass of SafeLoader
    except yaml.reader.ReaderError as error:
        raise MalformedError(f"{error.reason} at character {error.position}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise MalformedError(f"{error.problem or error.context}{place}") from error


class _Loader(yaml.SafeLoader):
    """A loader that counts values while it composes them, before any of them is built."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth, self._deepest, self._count = 0, 0, 0
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # the number and the depth of the values in each node

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and count the values in it and their depth."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node: Any = super().compose_node(parent, index)
            if node not in self._sizes:
                raise _problem("a recursive alias", event.start_mark)
            count, height = self._sizes[node]
            self._add(count, self._depth + height, event.start_mark)
            return node
        before, deepest = self._count, self._deepest
        self._depth += 1
        self._deepest = self._depth
        self._add(1, self._depth, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[node] = self._count - before, self._deepest - self._depth
        self._deepest = max(deepest, self._deepest)
        return node

    def _add(self, count: int, depth: int, mark: Any) -> None:
        self._count, self._deepest = self._count + count, max(self._deepest, depth)
        if self._count > YAML_VALUES:
            raise _problem(f"more than {YAML_VALUES:,} values, with those that aliases repeat", mark)
        if depth > DEPTH:
            raise _problem(f"nested more than {DEPTH} deep", mark)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping and check that its keys are text and unique."""
        node = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise _problem("a key that is not text (quote it)", key.start_mark)
            if key.value in keys:
                raise _problem(f"the key {key.value} twice", key.start_mark)
            keys.add(key.value)
        return node

    def construct_plain(self, node: Any) -> Any:
        """Construct null, a boolean, an integer of 64 bits or a finite number."""
        construct = yaml.SafeLoader.yaml_constructors[node.tag]
        try:
            if len(node.value) > _LONGEST_NUMBER:
                raise MalformedError(f"a number of more than {_LONGEST_NUMBER} characters")
            return _check_number(construct(self, node), node.value)
        except MalformedError as error:
            raise _problem(str(error), node.start_mark) from error
        except (ValueError, OverflowError, LookupError) as error:  # an explicit tag of another type
            raise _problem(f"not of the type {node.tag.rpartition(':')[2]}", node.start_mark) from error


def _limit_types() -> None:
    """Limit the loader to the types of JSON; its rule for dates is removed, so that they stay text."""
    kinds = {"str", "seq", "map"}, {"null", "bool", "int", "float"}
    general, plain = ({f"tag:yaml.org,2002:{name}" for name in names} for names in kinds)
    known: dict[Any, Any] = yaml.SafeLoader.yaml_constructors
    _Loader.yaml_constructors = {tag: known[tag] for tag in (None, *general)}
    _Loader.yaml_constructors |= dict.fromkeys(plain, _Loader.construct_plain)
    timestamp = "tag:yaml.org,2002:timestamp"
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag != timestamp]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_limit_types()


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        MalformedError: the text is not JSON, or exceeds a limit.
    """
    _check_depth(text)
    try:
        tree = json.loads(
            text, parse_int=_parse_int, parse_float=lambda digits: _check_number(float(digits), digits),
            parse_constant=lambda name: _check_number(math.inf, name), object_pairs_hook=_unique_keys,
        )  # fmt: skip
        if "\\u" in text:
            json.dumps(tree, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise MalformedError(f"{error.msg} at line {error.lineno} column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise MalformedError("an unpaired surrogate, which is not a character") from error
    return tree


def _parse_json_lines(text: str) -> list[Any]:
    return [parse_json(line) for line in text.split("\n") if line]


def _check_depth(text: str) -> None:
    """Check that the nesting of JSON is within its limit, which the json module does not have."""
    depth = 0
    for match in _BRACKET.finditer(text):
        if (symbol := match[0]) in ("[", "{"):
            depth += 1
            if depth > DEPTH:
                raise MalformedError(f"nested more than {DEPTH} deep at character {match.start()}")
        elif symbol in ("]", "}"):
            depth -= 1


def _parse_int(digits: str) -> int:
    return _check_number(int(digits) if len(digits) <= _LONGEST_NUMBER else math.inf, digits)


def _check_number(value: Any, text: str) -> Any:
    """Return the value; raise MalformedError for a number that is not finite or an integer of more than 64 bits."""
    if (isinstance(value, int) and value not in _INTEGERS) or (isinstance(value, float) and not math.isfinite(value)):
        raise MalformedError(f"a number beyond 64 bits: {text[:40]}")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a mapping; raise MalformedError for a duplicate key."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedError(f"the key {duplicate[:80]} twice")
    return tree
