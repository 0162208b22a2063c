"""Promotion of versions through the gate, rollback, and the alias of the version registered last.

Aliases: `challenger` (the version registered last), `champion` (used by predict), `previous` (`rollback` returns to it).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from aupair.errors import RegistryError
from aupair.registry import gate as gates
from aupair.registry import mlflow_store, moves
from aupair.registry.evidence import Evidence, compare_versions
from aupair.registry.moves import CHALLENGER, CHAMPION, PREVIOUS
from aupair.registry.versions import NAME, Version, get_version, how_to_promote, list_versions, registry_command

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FIRST = "there was no champion"
_ATTEMPTS = 5
"""Maximum number of comparisons with a champion that changes meanwhile."""


def promote_version(
    number: int, force: str | None = None, gate: Path = gates.PATH, name: str = NAME, reason: str = ""
) -> Version:
    """Make a version the champion if the gate permits it; the old champion becomes `previous`.

    The gate compares the version with the current champion. If the champion changes before the aliases are set, the
    comparison is repeated.

    Args:
        force: the reason for promoting a version that the gate refuses; recorded.
        reason: the reason for promoting a version that the gate permits; recorded.

    Raises:
        RegistryError: the gate refuses, the reason for force is empty, or there is no such version.
    """
    if force is not None and not force.strip():
        raise RegistryError("--force needs a reason", where=f"version {number}", todo="give one: it is recorded")
    rules = gates.load_gate(gate)
    for _ in range(_ATTEMPTS):
        version = get_version(number, name)
        client = mlflow_store.open_mlflow()
        if CHAMPION in version.aliases:
            moves.complete_changes(client, name, number)
            return get_version(number, name)
        if lacking := gates.missing_selection_tags(version.tags):
            raise _refusal(version, lacking, "register it again")
        champion = next((other for other in list_versions(name) if CHAMPION in other.aliases), None)
        evidence, refusals = _judge(rules, version, champion, force) if champion else (_FIRST, [])
        move = moves.announce(
            "promote",
            number,
            champion=champion.number if champion else None,
            reason=force or reason,
            forced=force is not None,
            refusals="; ".join(refusals),
            evidence=str(evidence) if isinstance(evidence, Evidence) else f"no paired interval: {evidence}",
        )
        with moves.turn(client, name, move) as aliases:
            if aliases.versions.get(CHAMPION) == move.champion:
                moves.make_move(client, name, move)
                return get_version(number, name)
    todo = f"see {registry_command('history', name)}, and try again"
    raise RegistryError("the champion changed each time that the gate had judged", where=f"model {name}", todo=todo)


def _judge(
    rules: gates.Gate, version: Version, champion: Version, force: str | None
) -> tuple[Evidence | str, list[str]]:
    """Return the comparison with the champion, and the objections of the gate that `force` overrules.

    Raises:
        RegistryError: the gate refuses.
    """
    evidence = compare_versions(mlflow_store.open_mlflow(), version, champion)
    against = gates.list_refusals(rules, version.tags, champion.tags, evidence)
    if against and force is None:
        raise _refusal(version, against, "keep the champion, or give a reason with --force")
    return evidence, against


def _refusal(version: Version, reasons: list[str], todo: str) -> RegistryError:
    return RegistryError("the gate refuses", where=f"version {version.number}", got="; ".join(reasons), todo=todo)


def roll_back(name: str = NAME, reason: str = "") -> Version:
    """Make the previous champion the champion again; the current champion loses its alias and stays registered.

    Raises:
        RegistryError: there is no previous champion.
    """
    for _ in range(_ATTEMPTS):
        known = {alias: version.number for version in list_versions(name) for alias in version.aliases}
        client = mlflow_store.open_mlflow()
        move = moves.announce("rollback", known.get(PREVIOUS, 0), champion=known.get(CHAMPION), reason=reason)
        with moves.turn(client, name, move) as aliases:  # also completes an interrupted change
            if PREVIOUS not in aliases.versions:
                todo = f"promote a second version first: {how_to_promote(name)}"
                raise RegistryError(
                    "no version to roll back to", where=f"model {name}", got="no alias previous", todo=todo
                )
            if (aliases.versions[PREVIOUS], aliases.versions.get(CHAMPION)) == (move.version, move.champion):
                moves.make_move(client, name, move)
                return get_version(move.version, name)
    todo = f"see {registry_command('history', name)}, and try again"
    raise RegistryError("the champion changed each time", where=f"model {name}", todo=todo)


def set_challenger(client: "MlflowClient", number: int, name: str) -> None:
    """Set the alias `challenger` to a version, unless it is the champion."""
    with moves.turn(client, name, moves.announce("register", number)) as aliases:
        champion, challenger = aliases.versions.get(CHAMPION), aliases.versions.get(CHALLENGER)
        if number not in (champion, challenger):
            client.set_registered_model_alias(name, CHALLENGER, str(number))
        elif champion == challenger == number:  # an earlier version of aupair was killed between the two
            client.delete_registered_model_alias(name, CHALLENGER)
