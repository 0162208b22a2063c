"""The versions of the registered model: creating, listing, promoting through the gate, rolling back, fetching.

Aliases: `challenger` (the last registered), `champion` (used by predict), `previous` (`rollback` returns to it).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from aupair import store
from aupair.errors import ArtifactError, RegistryError, scrub
from aupair.inference.bundle import bundle_hash, check_bundle
from aupair.registry import gate as gates
from aupair.registry import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "aupair"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
HASH_TAG = "bundle.sha256"


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        tags: aus, selection.*, score.*, f1.*, data.md5, bundle.sha256, ...
        run_id: the parent run of its flow.
    """

    number: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str

    @property
    def aus(self) -> tuple[str, ...]:
        """Return the AUs that the model knows."""
        return gates.known_aus(self.tags)


def registry_command(verb: str, name: str) -> str:
    """Return an `aupair registry` command for a model, for messages."""
    return f"`aupair registry {verb}{'' if name == NAME else f' --name {name}'}`"


def find_version(client: "MlflowClient", sha256: str, name: str) -> int | None:
    """Return the number of the version with a bundle of this hash; None if there is none."""
    matches = client.search_model_versions(f"name = '{name}' and tags.`{HASH_TAG}` = '{sha256}'")
    return min((int(version.version) for version in matches), default=None)


def get_or_create_version(
    client: "MlflowClient", model_uri: str, run_id: str, tags: Mapping[str, str], name: str
) -> int:
    """Return the number of the version with the bundle's hash among `tags`, and create the version if there is none.

    It is created with all its tags in one step, so that a killed process leaves none without tags.
    """

    def find_or_create() -> int:
        if (number := find_version(client, tags[HASH_TAG], name)) is not None:
            return number
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        model_id = model_uri.removeprefix("models:/")
        return int(client.create_model_version(name, model_uri, run_id, dict(tags), model_id=model_id).version)

    with mlflow_store.mlflow_errors(f"model {name}"):
        return mlflow_store.retrying(f"a version of {name}", find_or_create)


def set_challenger(client: "MlflowClient", number: int, name: str) -> None:
    """Set the alias `challenger` to a version, unless that is the champion."""
    if not {CHAMPION, CHALLENGER} & set(get_version(number, name).aliases):
        with mlflow_store.mlflow_errors(f"model {name}"):
            client.set_registered_model_alias(name, CHALLENGER, str(number))


def list_versions(name: str = NAME) -> list[Version]:
    """Return all versions, oldest first.

    Raises:
        RegistryError: there is no such model.
    """
    client = mlflow_store.open_mlflow()
    with mlflow_store.mlflow_errors(f"model {name}"):
        known = [model.name for model in client.search_registered_models()]
        if name not in known:
            raise RegistryError(
                "no such model",
                where=scrub(mlflow_store.tracking_uri()),
                got=name,
                expected=" | ".join(known) or "none is registered",
                todo="" if known else "run `dvc repro`",
            )
        aliases = client.get_registered_model(name).aliases  # those of the entries below are empty
        entries = client.search_model_versions(f"name = '{name}'")
    versions = []
    for entry in sorted(entries, key=lambda entry: int(entry.version)):
        number = int(entry.version)
        names = tuple(sorted(alias for alias, target in aliases.items() if int(target) == number))
        versions.append(Version(number, names, dict(entry.tags), str(entry.run_id)))
    return versions


def get_version(number: int, name: str = NAME) -> Version:
    """Return one version.

    Raises:
        RegistryError: there is none of that number.
    """
    versions = list_versions(name)
    for version in versions:
        if version.number == number:
            return version
    expected = f"{versions[0].number}..{versions[-1].number}" if versions else "none is registered"
    todo = f"see {registry_command('list', name)}"
    raise RegistryError("no such version", where=f"model {name}", got=number, expected=expected, todo=todo)


def _find_alias(alias: str, name: str) -> Version | None:
    """Return the version that has an alias; None if there is no such alias."""
    return next((version for version in list_versions(name) if alias in version.aliases), None)


def promote_version(number: int, force: str | None = None, gate: Path = gates.PATH, name: str = NAME) -> Version:
    """Make a version the champion if the gate permits it; the old champion becomes `previous`.

    Args:
        force: the reason for promoting a version that compares worse with the champion; recorded as a tag.

    Raises:
        RegistryError: the gate refuses, the reason is empty, or there is no such version.
    """
    rules, version = gates.load_gate(gate), get_version(number, name)
    if force is not None and not force.strip():
        raise RegistryError("--force needs a reason", where=f"version {number}", todo="give one: it is recorded")
    if CHAMPION in version.aliases:
        return version
    champion = _find_alias(CHAMPION, name)
    against = gates.list_refusals(rules, version.tags, champion.tags) if champion else []
    lacking = gates.missing_selection_tags(version.tags)
    if lacking or (against and force is None):
        todo = "register it again" if lacking else "keep the champion, or give a reason with --force"
        raise RegistryError("the gate refuses", where=f"version {number}", got="; ".join(lacking + against), todo=todo)
    client = mlflow_store.open_mlflow()
    with mlflow_store.mlflow_errors(f"version {number}"):
        if force is not None:
            client.set_model_version_tag(name, str(number), "promotion.forced", " ".join(force.split()))
            client.set_model_version_tag(name, str(number), "promotion.refusals", "; ".join(against) or "none")
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(champion.number))
        client.set_registered_model_alias(name, CHAMPION, str(number))
        if CHALLENGER in version.aliases:
            client.delete_registered_model_alias(name, CHALLENGER)
    return get_version(number, name)


def roll_back(name: str = NAME) -> Version:
    """Make the previous champion the champion again; the current champion loses its alias and stays registered.

    Raises:
        RegistryError: there is no previous champion.
    """
    previous = _find_alias(PREVIOUS, name)
    if previous is None:
        todo = f"promote a second version first: {_how_to_promote(name)}"
        raise RegistryError("no version to roll back to", where=f"model {name}", got="no alias previous", todo=todo)
    client = mlflow_store.open_mlflow()
    with mlflow_store.mlflow_errors(f"version {previous.number}"):
        client.set_registered_model_alias(name, CHAMPION, str(previous.number))
        client.delete_registered_model_alias(name, PREVIOUS)
    return get_version(previous.number, name)


def resolve_bundle(model: str) -> Path:
    """Return the local folder of a model's bundle; a bundle from a server is downloaded once, to the user's cache.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder of a bundle.

    Raises:
        RegistryError: the store, model, version or alias is missing, or the bundle is not what was registered.
        ArtifactError: the folder is not a bundle.
    """
    if not model.startswith("models:/"):
        check_bundle(Path(model))
        return Path(model)
    name, version = _find_named(model)
    sha256 = version.tags.get(HASH_TAG, "")
    with mlflow_store.mlflow_errors(model):
        folder = _fetch_bundle(f"models:/{name}/{version.number}", sha256)
    try:
        actual = bundle_hash(folder)
    except ArtifactError as error:
        raise RegistryError("the bundle is damaged", where=model, got=error, todo="register it again") from error
    if actual != sha256:
        raise RegistryError(
            "the bundle is not the one that was registered",
            where=folder,
            got=actual[:12],
            expected=sha256[:12] or f"a tag {HASH_TAG}",
            todo="delete it if it is a cached copy, else register it again",
        )
    return folder


def pin_version(model: str) -> str:
    """Return `models:/NAME/VERSION` for an alias, which may move to another version later; a folder stays as it is.

    Raises:
        RegistryError: the store, model, version or alias is missing.
    """
    if not model.startswith("models:/"):
        return model
    name, version = _find_named(model)
    return f"models:/{name}/{version.number}"


def _find_named(model: str) -> tuple[str, Version]:
    """Return the name of the registered model and the version that a models:/ URI names.

    Raises:
        RegistryError: the text is no such URI, or the model, version or alias is missing.
    """
    text = model.removeprefix("models:/")
    name, at, alias = text.partition("@")
    name, _, number = (name, "", "") if at else text.partition("/")
    if not name or not (alias or number.isdigit()):
        expected = "models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
        raise RegistryError("not a model's name", got=model, expected=expected)
    if not alias:
        return name, get_version(int(number), name)
    version = _find_alias(alias, name)
    if version is None:
        raise _missing_alias(alias, name)
    return name, version


def _missing_alias(alias: str, name: str) -> RegistryError:
    """Return the error for a missing alias: the aliases that exist or, for the champion, how to promote one."""
    if alias == CHAMPION:
        where, todo = scrub(mlflow_store.tracking_uri()), f"promote one: {_how_to_promote(name)}"
        return RegistryError(f"the model {name} has no champion yet", where=where, todo=todo)
    known = sorted(f"{alias} -> {version.number}" for version in list_versions(name) for alias in version.aliases)
    got = f"aliases {', '.join(known)}" if known else "no alias at all"
    todo = f"see {registry_command('list', name)}"
    return RegistryError(f"no alias {alias}", where=f"model {name}", got=got, todo=todo)


def _how_to_promote(name: str) -> str:
    """Return the commands that promote a version."""
    return f"{registry_command('list', name)}, then {registry_command('promote VERSION', name)}"


def _fetch_bundle(uri: str, sha256: str) -> Path:
    """Return the folder of the bundle: in place if the store is on this machine, else in the user's cache."""
    from mlflow.artifacts import download_artifacts

    def download(folder: str | None = None) -> Path:
        return Path(
            mlflow_store.retrying(f"downloading {uri}", lambda: download_artifacts(artifact_uri=uri, dst_path=folder))
        )

    if mlflow_store.sqlite_path(mlflow_store.tracking_uri()) is not None:
        folder = download()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aupair" / (sha256 or "unknown")
        if not folder.exists():
            with store.atomic(folder) as temporary:
                temporary.mkdir()
                download(str(temporary))
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    return folder / str(flavor["artifacts"]["bundle"]["path"])
