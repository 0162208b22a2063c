"""The versions of the registered model: create, list and fetch them. `aupair.registry.promotion` changes their aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aupair.errors import RegistryError, scrub
from aupair.inference.integrity import check_bundle
from aupair.registry import gate as gates
from aupair.registry import mlflow_store
from aupair.registry.local_lookup import find_local_version
from aupair.registry.model_files import BUNDLE_TAG, check_model, fetch_bundle
from aupair.registry.moves import CHAMPION, PREVIOUS
from aupair.registry.tags import NETWORK, split_figures

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "aupair"


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        tags: Score, Choices, aus, selection.*, score.*, f1.*, data.md5, bundle.sha256, ...
        run_id: the parent run of its flow.
        created: the time of registration, in UTC.
    """

    number: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str
    created: datetime

    @property
    def aus(self) -> tuple[str, ...]:
        """Return the AUs that the model knows."""
        return gates.known_aus(self.tags)

    @property
    def network(self) -> str:
        """Return the trunk of f in words: its kind, and what of it was trained."""
        return self.tags.get(NETWORK, "vgg16")


def registry_command(verb: str, name: str) -> str:
    """Return an `aupair registry` command for a model, for messages."""
    return f"`aupair registry {verb}{'' if name == NAME else f' --name {name}'}`"


def find_version(client: "MlflowClient", sha256: str, name: str) -> int | None:
    """Return the number of the first version with a bundle of this hash; None if there is none."""
    return min(_versions_of_bundle(client, sha256, name), default=None)


def _versions_of_bundle(client: "MlflowClient", sha256: str, name: str) -> list[int]:
    """Return the numbers of the versions with a bundle of this hash."""
    matches = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE_TAG}` = '{sha256}'")
    return sorted(int(version.version) for version in matches)


def delete_duplicates(client: "MlflowClient", sha256: str, name: str) -> None:
    """Delete duplicate versions of a bundle: all except the first one and promoted ones.

    Behind a server there is no lock, so that a killed process may leave a second version of a bundle.
    """
    if len(numbers := _versions_of_bundle(client, sha256, name)) < 2:
        return
    aliases = client.get_registered_model(name).aliases
    promoted = {int(number) for alias, number in aliases.items() if alias in (CHAMPION, PREVIOUS)}
    for number in sorted(set(numbers[1:]) - promoted):
        client.delete_model_version(name, str(number))


def get_or_create_version(
    client: "MlflowClient", model_uri: str, run_id: str, tags: Mapping[str, str], name: str
) -> int:
    """Return the number of the version with the bundle's hash in `tags`, which is created if there is none.

    It is created with all its tags in one step, so that a killed process leaves no version without tags. If two processes
    create one at the same time, the first is kept.
    """
    model_id = model_uri.removeprefix("models:/")

    def find_or_create() -> int:
        if (number := find_version(client, tags[BUNDLE_TAG], name)) is not None:
            return number
        if not client.search_registered_models(f"name = '{name}'"):
            _create_model(client, name)
        number = int(client.create_model_version(name, model_uri, run_id, dict(tags), model_id=model_id).version)
        first = find_version(client, tags[BUNDLE_TAG], name)
        if first is not None and first < number:
            client.delete_model_version(name, str(number))
            return first
        return number

    with mlflow_store.mlflow_errors(f"model {name}"):
        return mlflow_store.retrying(f"a version of {name}", find_or_create)


def _create_model(client: "MlflowClient", name: str) -> None:
    """Create a registered model, unless another process does so at the same time."""
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException:
        if not client.search_registered_models(f"name = '{name}'"):
            raise


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
        aliases = client.get_registered_model(name).aliases  # search_model_versions returns entries without aliases
        entries = client.search_model_versions(f"name = '{name}'")
    versions = []
    for entry in sorted(entries, key=lambda entry: int(entry.version)):
        number = int(entry.version)
        names = tuple(sorted(alias for alias, target in aliases.items() if int(target) == number))
        created = datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC)
        tags = split_figures(entry.tags, entry.version)
        versions.append(Version(number, names, tags, str(entry.run_id or ""), created))
    return versions


def get_version(number: int, name: str = NAME) -> Version:
    """Return one version.

    Raises:
        RegistryError: there is no version of that number.
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


def resolve_bundle(model: str) -> Path:
    """Return the local folder of a model's bundle; a bundle from a server is downloaded once, to the user's cache.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder of a bundle.

    Raises:
        RegistryError: the store, model, version or alias is missing, or the bundle is not the registered one.
        ArtifactError: the folder is not a bundle.
    """
    if not model.startswith("models:/"):
        check_bundle(Path(model))
        return Path(model)
    name, alias, number = _parse_uri(model)
    if (local := find_local_version(name, alias, number)) is not None:
        return check_model(local.folder, f"models:/{name}/{local.number}", local.tags)
    version = _find_named(name, alias, number)
    return fetch_bundle(f"models:/{name}/{version.number}", version.tags)


def pin_version(model: str) -> str:
    """Return `models:/NAME/VERSION` for an alias, which may move to another version later; a folder stays as it is.

    Raises:
        RegistryError: the store, model, version or alias is missing.
    """
    if not model.startswith("models:/"):
        return model
    name, alias, number = _parse_uri(model)
    version = find_local_version(name, alias, number) or _find_named(name, alias, number)
    return f"models:/{name}/{version.number}"


def _parse_uri(model: str) -> tuple[str, str, str]:
    """Return the name of the registered model, and the alias or the number that a models:/ URI names; one of them is empty.

    Raises:
        RegistryError: the text is no such URI.
    """
    text = model.removeprefix("models:/")
    name, at, alias = text.partition("@")
    name, _, number = (name, "", "") if at else text.partition("/")
    if not name or not (alias or number.isdigit()):
        expected = "models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
        raise RegistryError("not a model's name", got=model, expected=expected)
    return name, alias, number


def _find_named(name: str, alias: str, number: str) -> Version:
    """Return the version with an alias or, without an alias, a number.

    Raises:
        RegistryError: the model, version or alias is missing.
    """
    if not alias:
        return get_version(int(number), name)
    version = _find_alias(alias, name)
    if version is None:
        raise _missing_alias(alias, name)
    return version


def _missing_alias(alias: str, name: str) -> RegistryError:
    """Return the error for a missing alias: the aliases that exist or, for the champion, how to promote one."""
    if alias == CHAMPION:
        where, todo = scrub(mlflow_store.tracking_uri()), f"promote one: {how_to_promote(name)}"
        return RegistryError(f"the model {name} has no champion yet", where=where, todo=todo)
    known = sorted(f"{alias} -> {version.number}" for version in list_versions(name) for alias in version.aliases)
    got = f"aliases {', '.join(known)}" if known else "no alias at all"
    todo = f"see {registry_command('list', name)}"
    return RegistryError(f"no alias {alias}", where=f"model {name}", got=got, todo=todo)


def how_to_promote(name: str) -> str:
    """Return the commands that promote a version."""
    return f"{registry_command('list', name)}, then {registry_command('promote VERSION', name)}"
