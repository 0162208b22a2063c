"""The files of a version: fetch them, and verify them against the hashes in the version's tags.

A version is an MLflow model: the bundle, and the files that MLflow executes to serve it (MLmodel, serving.py, this package
under `code`, requirements). `aupair` executes none of them, and verifies all of them before it reads the bundle. MLflow's own
`load_model` and `models serve` verify nothing.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aupair import store
from aupair.documents import read_yaml
from aupair.errors import ArtifactError, RegistryError
from aupair.inference.integrity import bundle_hash
from aupair.registry import mlflow_store
from aupair.registry.moved_store import check_files_exist

if TYPE_CHECKING:
    from mlflow import MlflowClient

BUNDLE_TAG, MODEL_TAG = "bundle.sha256", "model.sha256"
"""The tags with the hash of the bundle, and with that of all other files; older versions do not have the latter."""

_BUNDLE = "artifacts"
"""The folder of an MLflow model that contains only the bundle."""
_NOT_LOGGED = ("registered_model_meta", "__pycache__")
"""Files that MLflow and Python add to a local copy: the version's number, and compiled modules."""

_RENEW = "delete it if it is a cached copy, else register it again"


def hash_model(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of an MLflow model's files, except for those of the bundle."""
    total = hashlib.sha256()
    for name, path in sorted(_iter_files(folder)):
        total.update(f"{name}\0{store.sha256(path)}\n".encode())
    return total.hexdigest()


def _iter_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] != _BUNDLE and not set(_NOT_LOGGED) & set(parts):
            yield "/".join(parts), path


def hash_logged_model(client: "MlflowClient", uri: str) -> str:
    """Return `hash_model` of a model that was just logged, without fetching its bundle again."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    def fetch() -> str:
        repository = get_artifact_repository(client.get_logged_model(uri.removeprefix("models:/")).artifact_location)
        with tempfile.TemporaryDirectory() as folder:
            for entry in repository.list_artifacts():
                if entry.path != _BUNDLE:
                    repository.download_artifacts(entry.path, folder)
            return hash_model(Path(folder))

    with mlflow_store.mlflow_errors(uri):
        return mlflow_store.retrying(f"reading {uri}", fetch, artifacts=True)


def fetch_bundle(uri: str, tags: Mapping[str, str]) -> Path:
    """Return the folder of a version's bundle: in the store if that is on this machine, else in the user's cache.

    Args:
        uri: models:/NAME/VERSION.
        tags: the tags of the version.

    Raises:
        RegistryError: MLflow fails, or a file is not the registered one.
    """
    with mlflow_store.mlflow_errors(uri):
        folder = _fetch_model(uri, tags.get(MODEL_TAG) or tags.get(BUNDLE_TAG) or "unknown")
    return check_model(folder, uri, tags)


def check_model(folder: Path, uri: str, tags: Mapping[str, str]) -> Path:
    """Check every file of a version's MLflow model, and return the folder of its bundle.

    Raises:
        RegistryError: a file is not what was registered.
    """
    if MODEL_TAG in tags:
        _compare("the model's files are not those that were registered", folder, hash_model(folder), tags[MODEL_TAG])
    bundle = _find_bundle(folder)
    try:
        actual = bundle_hash(bundle)
    except ArtifactError as error:
        raise RegistryError("the bundle is damaged", where=uri, got=error, todo="register it again") from error
    _compare("the bundle is not the one that was registered", bundle, actual, tags.get(BUNDLE_TAG, ""))
    return bundle


def _find_bundle(folder: Path) -> Path:
    """Return the folder of the bundle in an MLflow model.

    Raises:
        RegistryError: MLmodel is missing or malformed, or names no bundle.
    """
    path = folder / "MLmodel"
    try:
        model = read_yaml(path, RegistryError, todo=_RENEW)
        return folder / str(model["flavors"]["python_function"]["artifacts"]["bundle"]["path"])
    except (FileNotFoundError, LookupError, TypeError) as error:
        raise RegistryError("no bundle in this model", where=path, got=error, todo=_RENEW) from error


def _compare(what: str, where: Path, actual: str, expected: str) -> None:
    """Check a hash; raise RegistryError if it differs."""
    if actual != expected:
        raise RegistryError(
            what, where=where, got=actual[:12], expected=expected[:12] or "a tag with its hash", todo=_RENEW
        )


def _fetch_model(uri: str, key: str) -> Path:
    """Return the folder of an MLflow model; `key` is its name in the user's cache."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    def download(folder: str | None = None) -> Path:
        return Path(
            mlflow_store.retrying(
                f"downloading {uri}", lambda: download_artifacts(artifact_uri=uri, dst_path=folder), artifacts=True
            )
        )

    if mlflow_store.sqlite_path(mlflow_store.tracking_uri()) is not None:
        name, _, number = uri.removeprefix("models:/").rpartition("/")
        check_files_exist(MlflowClient().get_model_version_download_uri(name, number), uri)
        return download()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aupair" / key
    if not folder.exists():
        with store.atomic(folder) as temporary:
            temporary.mkdir()
            download(str(temporary))
    return folder
