"""The hash that `dvc add data` writes into data.dvc, so that it exists where DVC does not run (Kubeflow).

DVC hashes a folder as the MD5 of a JSON list of {"md5", "relpath"}, sorted by relpath, with ".dir" appended.
`.git`, `.hg` and `.dvc` folders are left out, as DVC does; a `.dvcignore` inside the folder is refused, as DVC does;
one above the folder is not read: if it hides files of the data folder, the two hashes differ.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from aupair.errors import DataError
from aupair.log import SILENT, Log

IGNORED = (".git", ".hg", ".dvc")


def dvc_hash(folder: Path, log: Log = SILENT) -> str:
    """Hash a folder as DVC does: "<32 hex digits>.dir".

    Raises:
        DataError: a file cannot be read, or a .dvcignore lies inside.
    """
    files = sorted((path.relative_to(folder).as_posix(), path) for path in _files(Path(folder)))
    entries = [
        {"md5": _md5(path), "relpath": relpath} for relpath, path in log.progress(files, len(files), "hashing the data")
    ]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _files(folder: Path) -> Iterator[Path]:
    """Walk the files that DVC would track: a link to a file is followed, one to a folder is left out, as DVC does."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in IGNORED]
        if ".dvcignore" in names:
            raise DataError(
                "a .dvcignore inside the data", where=root, todo="move it above the data folder (DVC refuses it too)"
            )
        yield from (Path(root) / name for name in names if name != ".git")


def _md5(path: Path) -> str:
    """Hash one file, a block at a time."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(
            "an unreadable file", where=path, got=error.strerror or error, todo="check its permissions"
        ) from error
