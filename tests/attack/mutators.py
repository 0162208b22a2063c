"""Damage to files: bytes, text, tables, JSON and YAML, drawn from a random stream so that a seed gives the same damage."""

import copy
import json
import random
from collections.abc import Callable

EVIL = (
    "", " ", "nan", "inf", "-inf", "-1", "-2", "2", "0.5", "1e308", "1e999", "2147483648", "9" * 400, "\u0663", "1,5", "0x10",
    "../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", "<script>alert(1)</script>", "{{ 7*7 }}", "[red]x",
    "%s", "$(id)", "`id`", "'; DROP TABLE x", '"', "'", "\x00", "\x1b[31m", "\r", "\t", "a\nb", "\u202e", "\ufeff", "\U0001f600",
    "A" * 300, "CON", "-rf", "=1+1", "null", "true", "NULL", "None", "s000c0", "AU1", "AU99", "au1", "\u0041\u0301",
)  # fmt: skip
"""Cells and strings that have broken programs before."""

VALUES = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x", [], {},
    [[]], [None], {"": None}, [[[[[]]]]], "all", [0, 0], ["AU1"], {"a": 1},
)  # fmt: skip
"""Values of JSON and YAML."""

Mutator = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip a few bits, anywhere or in the head."""
    changed = bytearray(data)
    reach = len(changed) if rng.random() < 0.6 else min(len(changed), 64)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut the end, the start, or a piece off the middle."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice((data[:start], data[start:], data[:start] + data[end:]))


def insert(data: bytes, rng: random.Random) -> bytes:
    """Insert noise, zeros, or a piece of the file itself."""
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 64, 4096))
    piece = rng.choice((rng.randbytes(size), bytes(size), data[at // 2 : at // 2 + size], b"\xff" * size))
    return data[:at] + piece + data[at + rng.choice((0, size)) :]


def replace_all(data: bytes, rng: random.Random) -> bytes:
    """Return something else altogether."""
    return rng.choice(
        (b"", b"\0", b"\n", b"\xef\xbb\xbf", b"{", b"[]", b"null", b"PK\3\4", rng.randbytes(100), bytes(4096))
    )


def edit_text(data: bytes, rng: random.Random) -> bytes:
    """Replace a word, a line or a number of a text by something evil."""
    text = data.decode("utf-8", "replace")
    evil = rng.choice(EVIL)
    lines = text.split("\n")
    k = rng.randrange(len(lines))
    action = rng.randrange(6)
    if action == 0:
        lines[k] = evil
    elif action == 1:
        lines.insert(k, lines[rng.randrange(len(lines))])
    elif action == 2:
        del lines[k]
    elif action == 3:
        at = rng.randrange(len(lines[k]) + 1)
        lines[k] = lines[k][:at] + evil + lines[k][at + rng.randrange(3) :]
    elif action == 4:
        rng.shuffle(lines)
    else:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "latin-1")), "replace")
    return rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


def edit_table(data: bytes, rng: random.Random) -> bytes:
    """Replace, add, drop or swap cells of a table of commas."""
    rows = [line.split(",") for line in data.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rows[rng.choice((0, 1, rng.randrange(len(rows)))) % len(rows)]
        k, action = rng.randrange(len(row)), rng.randrange(5)
        if action <= 1:
            row[k] = rng.choice(EVIL)
        elif action == 2:
            row.insert(k, rng.choice(EVIL))
        elif action == 3:
            del row[k]
        else:
            j = rng.randrange(len(row))
            row[k], row[j] = row[j], row[k]
        row[:] = row or [""]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def edit_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop, rename or repeat values of JSON."""
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        tree = _edit_tree(tree, rng)
    return json.dumps(tree).encode()


def edit_yaml(data: bytes, rng: random.Random) -> bytes:
    """Replace values of YAML; or write an alias bomb, deep nesting, impossible dates."""
    import yaml

    if rng.random() < 0.3:
        depth = rng.choice((4, 9, 2000))
        bomb = "a0: &a0 [x]\n" + "".join(
            f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, min(depth, 9))
        )
        return rng.choice((bomb, "[" * depth, "a: " + "{b: " * depth, "a: 2001-99-99\n", "a: 0x" + "f" * depth, "a: !!python/name:os.system\n",
                           "a: 1" + "0" * 5000 + "\n", "? [a]\n: b\n", "&a a: *a\n", "seed: 9:99:99\n")).encode()  # fmt: skip
    tree = yaml.safe_load(data)
    for _ in range(rng.choice((1, 1, 3))):
        tree = _edit_tree(tree, rng)
    return str(yaml.safe_dump(tree)).encode("utf-8", "surrogatepass")


def _edit_tree(tree: object, rng: random.Random) -> object:
    """Return a tree with a change at a random place."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        action = rng.randrange(10)
        if action == 0:
            del tree[key]
        elif action == 1:
            tree[rng.choice(EVIL)] = tree.pop(key)
        elif action == 2:
            tree[key] = copy.deepcopy(rng.choice(VALUES))
        else:
            tree[key] = _edit_tree(tree[key], rng)
        return tree
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        k, action = rng.randrange(len(tree)), rng.randrange(10)
        if action == 0:
            del tree[k]
        elif action == 1:
            tree.append(tree[k])
        else:
            tree[k] = _edit_tree(tree[k], rng)
        return tree
    return copy.deepcopy(rng.choice((*VALUES, rng.choice(EVIL))))  # a further change alters it


_BINARY: tuple[Mutator, ...] = (flip_bits, flip_bits, flip_bits, cut, insert, replace_all)
_TEXT: tuple[Mutator, ...] = (edit_text, edit_text, flip_bits, cut, insert, replace_all)
_BY_SUFFIX: dict[str, tuple[Mutator, ...]] = {
    ".csv": (*_TEXT, *(edit_table,) * 6),
    ".txt": (*_TEXT, *(edit_table,) * 6),
    ".json": (*_TEXT, *(edit_json,) * 10),
    ".jsonl": _TEXT,
    ".yaml": (*_TEXT, *(edit_yaml,) * 8),
    ".eaf": _TEXT,
}
"""The mutators of a kind of file, the likelier ones several times."""


def mutate(data: bytes, suffix: str, rng: random.Random) -> bytes:
    """Return a file's content with a damage that suits its kind."""
    return rng.choice(_BY_SUFFIX.get(suffix, _BINARY))(data, rng)
