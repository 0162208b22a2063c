"""Stores that were moved to another folder, or that another version of MLflow wrote.

MLflow records the absolute path of every artifact, so that artifacts of a sqlite store are lost when its folder is moved or
renamed. If the folder of artifacts is still beside the database, the recorded paths are updated.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from aupair.errors import RegistryError

FOLDER = "mlruns"
"""The folder of artifacts, beside the database."""

_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""The tables and columns in which MLflow stores the paths of artifacts."""

_SCHEMA = re.compile(r"database schema \(found version (\w+), but expected (\w+)\)")


def follow_moved_store(database: Path) -> None:
    """Update the recorded paths of artifacts if the store was moved together with them.

    Nothing changes if the recorded folder exists, or if there is no folder of artifacts beside the database.

    Raises:
        RegistryError: the database cannot be read or written.
    """
    here = database.resolve().parent / FOLDER
    if not here.is_dir():
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
            for recorded in {root for row in rows if (root := _root(row[0])) is not None}:
                if not recorded.exists():
                    _replace(connection, str(recorded), str(here))
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):  # for an incomplete store `open_mlflow` raises the error
            todo = "make it writable, or move it back"
            raise RegistryError(
                "the moved MLflow store cannot be used", where=database, got=error, todo=todo
            ) from error


def _root(location: str | None) -> Path | None:
    """Return the folder `mlruns` that contains a local location; None if there is none."""
    path = local_path(location or "")
    if path is None:
        return None
    return next((folder for folder in (path, *path.parents) if folder.name == FOLDER), None)


def _replace(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the prefix `old` of all recorded paths by `new`."""
    for table, column in _PATHS:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
        )


def local_path(location: str) -> Path | None:
    """Return the path of a local location; None if it is on a server."""
    parsed = urlparse(location)
    if parsed.scheme not in ("", "file") or not parsed.path:
        return None
    return Path(unquote(parsed.path) if parsed.scheme else location)


def check_files_exist(location: str, what: str) -> None:
    """Check that the folder of a model's files exists, if it is on this machine.

    Raises:
        RegistryError: the folder is missing.
    """
    path = local_path(location)
    if path is not None and not path.exists():
        todo = f"move the folder {FOLDER} back beside the database, or register the model again"
        raise RegistryError("the files of this model are missing", where=path, got=what, todo=todo)


def other_version_error(error: Exception, uri: str) -> RegistryError | None:
    """Return the error for a store of a newer or older MLflow; None if `error` is about something else."""
    match = _SCHEMA.search(str(error))
    if match is None:
        return None
    from mlflow.store.db_migrations import versions
    from mlflow.version import VERSION

    known = [path.read_text() for folder in versions.__path__ for path in Path(folder).glob("*.py")]
    if any(re.search(rf'^revision = ["\']{match[1]}["\']', text, re.MULTILINE) for text in known):
        todo = f"copy it, then run `mlflow db upgrade {uri}`"
        return RegistryError(
            f"the store is older than MLflow {VERSION}", where=uri, got=f"schema {match[1]}", todo=todo
        )
    todo = 'install the MLflow that wrote it, such as by `pip install --upgrade "aupair[train]"`'
    return RegistryError(f"the store is newer than MLflow {VERSION}", where=uri, got=f"schema {match[1]}", todo=todo)
