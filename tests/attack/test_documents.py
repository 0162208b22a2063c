"""YAML and JSON of users and other programs that would take hours or gigabytes, or mean two things: one line each."""

import json
from pathlib import Path
from typing import Any

import pytest

from aupair.documents import DEPTH, YAML_BYTES, YAML_VALUES, MalformedError, parse_json, parse_yaml
from conftest import Command


def bomb(levels: int, width: int) -> str:
    """Return YAML whose values multiply at each level."""
    lines = ["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, levels))]
    return "\n".join(lines)


BOMBS = {
    "aliases": (bomb(9, 9), "values, with those that aliases repeat"),
    "merged": (
        bomb(9, 9).replace("[x]", "{x: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n"),
        "values, with those",
    ),
    "a chain": (bomb(DEPTH, 1), f"nested more than {DEPTH} deep"),
    "itself": ("a: &a [*a]", "a recursive alias"),
    "deep": ("[" * 10**5, f"nested more than {DEPTH} deep"),
    "many": ("[" + "x," * (YAML_VALUES + 1) + "]", "values"),
    "huge": ("#" * (YAML_BYTES + 1), "more than 4 MiB"),
    "integer": ("seed: " + "9" * 5000, "a number of more than 400 characters"),
    "64 bits": (f"seed: {2**63}", "a number beyond 64 bits"),
    "infinity": ("seed: .inf", "a number beyond 64 bits"),
    "text": ("seed: \xff", "not YAML: in params.yaml, got byte 0xff at offset 6, expected text in UTF-8"),
    "twice": ("seed: 1\nseed: 2", "the key seed twice at line 2 column 1"),
    "number as key": ("1: 2", "a key that is not text (quote it) at line 1 column 1"),
    "code": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor for the tag"),
}
"""Documents that would take hours or gigabytes, or that another reader understands in another way."""


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize(
    ("file", "command"),
    [("params.yaml", ("run", "check-data")), ("mlflow/registry.yaml", ("registry", "promote", "1"))],
)
def test_a_bomb_is_one_line(
    name: str, file: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aupair: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = BOMBS[name]
    Path("mlflow").mkdir()
    Path(file).write_bytes(text.encode("latin-1"))
    result = aupair(*command)
    assert result.code in (2, 5)
    assert message.replace("params.yaml", file) in result.line


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 400,
        str(2**63),
        "1e999",
        "NaN",
        "-Infinity",
        '{"a": 1, "a": 1}',
        '"\\ud800"',
        "[" * 99,
        "",
        "[1,",
        '{"a": [1}',
    ],
    ids=lambda text: text[:20],
)
def test_json_that_other_readers_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_json(text)


def test_json_in_the_limits_is_read() -> None:
    tree = {"[": "]" * 99, "a": [1, -(2**63), 2**63 - 1, 1.5, 1e308, None, True, "é", "\U0001f600", '"[']}
    for ascii_only in (True, False):
        assert parse_json(json.dumps(tree, ensure_ascii=ascii_only)) == tree
    deepest = "[" * DEPTH + "]" * DEPTH
    assert json.dumps(parse_json(deepest)) == deepest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}), ("", None), ("\ufeffa: 1", {"a": 1}), ("a: 0x1F", {"a": 31}),
        ("a: ~\nb: yes\nc: 1.5\nd: é", {"a": None, "b": True, "c": 1.5, "d": "é"}),
    ],
)  # fmt: skip
def test_what_yaml_means_stays(text: str, expected: Any) -> None:
    assert parse_yaml(text) == expected
