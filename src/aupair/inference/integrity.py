"""Integrity checks of a bundle: its description about.json, its list of files, and their hashes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from aupair import store
from aupair.errors import ArtifactError

FORMAT = 3
"""The bundle format that this version writes; it reads older formats, too."""
_FORMAT_1 = (
    "f/about.json", "f/final.safetensors", "h/about.json", "h/final.safetensors",
    "mapping/about.json", "mapping/mapping.safetensors", "statistics.safetensors",
)  # fmt: skip
"""The files of the networks in a bundle of format 1."""
_OTHERS = ("selection.json", "params.json", "data.json", "requirements.txt", "MODEL_CARD.md")
_AGAIN = "copy it again, or run register-model again"


class About(BaseModel):
    """The content of about.json."""

    format: int
    members: list[tuple[int, str]]
    files: dict[str, str] | list[str]
    sha256: str = ""


def bundle_hash(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of all files of a bundle.

    Raises:
        ArtifactError: the folder is not a bundle.
    """
    check_bundle(folder)
    return hash_tree_of_files(folder)


def hash_tree_of_files(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of the files below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0{store.sha256(path)}\n".encode())
    return total.hexdigest()


def check_bundle(folder: Path) -> About | None:
    """Check that a folder has all parts of a bundle, without reading them; return about.json, None for format 1.

    Raises:
        ArtifactError: the folder does not exist, a part is missing, about.json was altered, or a later version of aupair
            wrote it.
    """
    if not folder.is_dir():
        raise ArtifactError("no such folder", where=folder, expected="a model bundle", todo="check the path")
    about = _read_about(folder / "about.json") if (folder / "about.json").exists() else None
    names = _FORMAT_1 if about is None else about.files
    missing = [name for name in dict.fromkeys((*_OTHERS, *names)) if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(
            "not a complete model bundle", where=folder, got=f"no {', '.join(missing)}", todo="run register-model again"
        )
    return about


def _read_about(path: Path) -> About:
    """Return the content of about.json.

    Raises:
        ArtifactError: it was altered, or a later version of aupair wrote it.
    """
    tree = store.read_json(path)
    later = tree.get("format") if isinstance(tree, dict) else None
    if isinstance(later, int) and later > FORMAT:
        got, todo = f"format {later}", "install a newer aupair"
        raise ArtifactError(
            "a later version wrote this bundle", where=path.parent, got=got, expected=f"at most {FORMAT}", todo=todo
        )
    try:
        about = About.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise ArtifactError("not a bundle's description", where=path, got=got, todo=_AGAIN) from error
    signed = isinstance(about.files, dict) or bool(about.sha256) or about.format > 2
    if signed and about.sha256 != hash_json({key: value for key, value in tree.items() if key != "sha256"}):
        raise ArtifactError("this file was altered after it was written", where=path, todo=_AGAIN)
    lacking = [
        f"f/{trial}/{name}" for trial, name in about.members if f"f/{trial}/{name}.safetensors" not in about.files
    ]
    if lacking or not about.members:
        got = f"no file of {', '.join(lacking)}" if lacking else "no members"
        raise ArtifactError("not a bundle's description", where=path, got=got, todo=_AGAIN)
    return about


def check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Check the hashes of a bundle's files, and that there are no other files, which a reader could load by mistake.

    Raises:
        ArtifactError: a file was altered or added.
    """
    actual = hash_files(folder)
    for name in sorted(actual.keys() | expected.keys()):
        if name not in expected:
            raise ArtifactError("a file that does not belong to this bundle", where=folder / name, todo="delete it")
        if actual.get(name) != expected[name]:
            raise ArtifactError("this file was altered after it was written", where=folder / name, todo=_AGAIN)


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a bundle by its name, except for about.json."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: store.sha256(path) for name, path in files.items() if name != "about.json"}


def hash_json(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON tree, independent of the order of keys and of whitespace."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
