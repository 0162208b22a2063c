"""The look-up of a version in a sqlite store without MLflow, whose import takes most of the time before a prediction.

It reads MLflow's tables. Whatever is unusual in them is left to MLflow, which has the error messages.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aupair.registry import mlflow_store
from aupair.registry.moved_store import follow_moved_store, local_path
from aupair.registry.tags import split_figures

_DELETED = "Deleted_Internal"
"""The stage in which MLflow leaves a deleted version."""
_BY_ALIAS = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
_BY_NUMBER = "SELECT version FROM model_versions WHERE name = ? AND version = ?"
_LOCATION = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ? AND current_stage != ?"
_TAGS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"


@dataclass(frozen=True)
class LocalVersion:
    """A version in a sqlite store whose files are on this machine.

    Attributes:
        folder: that of the MLflow model.
    """

    number: int
    tags: Mapping[str, str]
    folder: Path


def find_local_version(name: str, alias: str, number: str) -> LocalVersion | None:
    """Return a version by its alias or, without an alias, its number; None if MLflow has to look for it.

    Raises:
        RegistryError: the store was moved and cannot be written, or the version's tags are malformed.
    """
    database = mlflow_store.sqlite_path(mlflow_store.tracking_uri())
    if database is None or not database.is_file():
        return None
    follow_moved_store(database)
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            versions = connection.execute(*((_BY_ALIAS, (name, alias)) if alias else (_BY_NUMBER, (name, number))))
            if len(rows := versions.fetchall()) != 1:  # more than one: MLflow's workspaces
                return None
            own = (name, rows[0][0])
            locations = connection.execute(_LOCATION, (*own, _DELETED)).fetchall()
            tags = dict(connection.execute(_TAGS, own).fetchall())
    except sqlite3.Error:
        return None
    folder = local_path(locations[0][0] or "") if len(locations) == 1 else None
    if folder is None or not folder.is_dir():
        return None
    return LocalVersion(own[1], split_figures(tags, str(own[1])), folder)
