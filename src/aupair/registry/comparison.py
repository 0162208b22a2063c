"""Information of `aupair registry` about versions beyond their tags: their authors, and the differences between two."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aupair.errors import RegistryError
from aupair.registry import mlflow_store
from aupair.registry.evidence import Evidence, compare_versions
from aupair.registry.moves import Move, read_aliases
from aupair.registry.versions import Version, get_version, list_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MACHINE = ("aupair.", "bundle.sha256", "draws.sha256", "model.sha256", "mlflow.", "pipeline_run_id", "promotion.")
"""Prefixes of tags that differ between any two versions."""


def read_authors(versions: Iterable[Version]) -> dict[int, str]:
    """Return the user who ran the flow of each version, by its number; empty if its run has no user or was deleted."""
    client = mlflow_store.open_mlflow()
    return {version.number: _read_run(client, version)[0].get("mlflow.user", "") for version in versions}


def list_changes(name: str) -> list[Move]:
    """Return the changes of the champion, oldest first.

    Raises:
        RegistryError: there is no such model.
    """
    list_versions(name)  # raises an error that lists the existing models, if there is no such model
    with mlflow_store.mlflow_errors(f"model {name}"):
        moves = read_aliases(mlflow_store.open_mlflow(), name).moves
    return [move for move in moves if move.verb != "register"]


def diff_versions(first: int, second: int, name: str) -> tuple[list[tuple[str, str, str]], str]:
    """Return the tags and params in which two versions differ, and a text on the comparison of their decisions.

    Raises:
        RegistryError: there is no such version.
    """
    if first == second:
        raise RegistryError("a version does not differ from itself", got=first, expected="two versions")
    versions = [get_version(number, name) for number in (first, second)]
    client = mlflow_store.open_mlflow()
    sides = []
    for version in versions:
        _, params = _read_run(client, version)
        tags = {key: text for key, text in version.tags.items() if not key.startswith(_MACHINE)}
        sides.append(tags | {f"params: {key}": text for key, text in params.items()})
    keys = sorted(key for key in sides[0].keys() | sides[1].keys() if sides[0].get(key) != sides[1].get(key))
    evidence = compare_versions(client, versions[1], versions[0])
    text = f"version {second}: {evidence}" if isinstance(evidence, Evidence) else f"no paired interval: {evidence}"
    return [(key, sides[0].get(key, ""), sides[1].get(key, "")) for key in keys], text


def _read_run(client: "MlflowClient", version: Version) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tags and params of a version's run; both are empty if it was deleted."""
    from mlflow import MlflowException

    if not version.run_id:
        return {}, {}
    with mlflow_store.mlflow_errors(f"run {version.run_id}"):
        try:
            data = client.get_run(version.run_id).data
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}, {}
    return dict(data.tags), dict(data.params)
