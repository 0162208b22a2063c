"""The hash that `dvc add data` writes into data.dvc, computed without DVC, which does not run on Kubeflow.

DVC hashes a folder as the MD5 of a JSON list of {"md5", "relpath"}, sorted by relpath, with ".dir" appended.
As in DVC, `.git`, `.hg` and `.dvc` folders are ignored, and a `.dvcignore` inside the folder is an error.
A `.dvcignore` above the folder is not read; if it excludes files of the data folder, the two hashes differ.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from aupair import store
from aupair.documents import read_yaml
from aupair.errors import DataError
from aupair.log import SILENT, Log

_IGNORED = (".git", ".hg", ".dvc")


class Tracked(BaseModel):
    """The entry of a folder in a `.dvc` file; `hash` is missing in files of DVC 2, which hashed text files differently."""

    md5: str
    hash: str = ""


class _DvcFile(BaseModel):
    outs: tuple[Tracked]


def read_tracked(path: Path) -> Tracked:
    """Read data.dvc.

    Raises:
        DataError: the file is missing, or DVC did not write it.
    """
    todo = "write it with `dvc add data`"
    try:
        (tracked,) = _DvcFile.model_validate(read_yaml(path, DataError, todo)).outs
    except FileNotFoundError as error:
        raise DataError("missing file", where=path, todo=todo) from error
    except ValidationError as error:
        raise DataError("not a file of DVC", where=path, expected="outs with one md5", todo=todo) from error
    return tracked


class _DataInfo(store.Artifact):
    """The part of data.json that the flow reads; the counts in it are for people."""

    md5: str


def read_data_md5(path: Path) -> str:
    """Return the hash of the data folder from the data.json that check-data writes.

    Raises:
        ArtifactError: the file is missing or malformed.
    """
    return store.read_record(path, _DataInfo).md5


def dvc_hash(folder: Path, log: Log = SILENT) -> str:
    """Hash a folder as DVC does: "<32 hex digits>.dir".

    Raises:
        DataError: a file cannot be read, or a .dvcignore lies inside.
    """
    # The JSON is hashed entry by entry, since a folder of crops can contain millions of files.
    files = sorted(_files(os.fspath(folder)))
    total = hashlib.md5(b"[", usedforsecurity=False)
    for k, relpath in enumerate(log.progress(files, len(files), "hashing the data")):
        entry = {"md5": _md5(os.path.join(folder, relpath)), "relpath": relpath}
        total.update(f"{', ' if k else ''}{json.dumps(entry)}".encode())
    total.update(b"]")
    return total.hexdigest() + ".dir"


def _files(folder: str) -> Iterator[str]:
    """Yield the files that DVC would track, as paths relative to the folder, with `/`.

    As in DVC, a symbolic link to a file is followed and one to a folder is ignored.
    """
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _IGNORED]
        if ".dvcignore" in names:
            raise DataError(
                "a .dvcignore inside the data", where=root, todo="move it above the data folder (DVC refuses it too)"
            )
        below = os.path.relpath(root, folder).replace(os.sep, "/")
        start = "" if below == "." else f"{below}/"
        yield from (f"{start}{name}" for name in names if name != ".git")


def _md5(path: str) -> str:
    """Return the MD5 of one file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(
            "the file cannot be read", where=path, got=error.strerror or error, todo="check its permissions"
        ) from error
