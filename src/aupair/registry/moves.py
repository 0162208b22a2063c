"""Changes of the aliases of a registered model, which are completed later if their process is killed.

MLflow sets one alias at a time and has no transactions. Each change is therefore first stored as a tag of the registered model
with a state: `announced`, then `moving` (its aliases are being set), and finally `done` or `overtaken`. These tags are also the
history. A command makes its change only while its announcement is the only one. In a store with locks
(`aupair.registry.locks`), another announcement belongs to a dead process. Behind a server it may belong to a live process: both
withdraw and retry after a random pause, and an announcement that remains for `_PATIENCE` seconds counts as that of a dead
process. A change in the state `moving` is completed by the next command, since all its steps can be repeated.
"""

import getpass
import os
import platform
import random
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from aupair.errors import RegistryError
from aupair.record import Record
from aupair.registry import locks, mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

_PREFIX = "aupair.move."
_PATIENCE = 20.0
"""Seconds after which an announcement behind a server counts as that of a dead process."""
_LONGEST = 60.0
"""Seconds after which a command that waits for its turn gives up."""
_LONGEST_TEXT = 1000


class Move(Record):
    """A change of aliases, as it is stored in a tag of the registered model.

    Attributes:
        key: the name of the tag; names sort by time.
        verb: `register` sets `challenger`; the others set `champion`.
        version: the version that gets the alias.
        champion: the champion before the change; None if there was none.
        by, at: the user, and the time in UTC.
        reason: the reason that the user gave.
        refusals: the objections of the gate, if they were overruled.
        evidence: the comparison with the champion.
    """

    key: str
    verb: Literal["promote", "rollback", "register"]
    version: int
    by: str
    at: str
    state: Literal["announced", "moving", "done", "overtaken"] = "announced"
    champion: int | None = None
    reason: str = ""
    forced: bool = False
    refusals: str = ""
    evidence: str = ""

    def __str__(self) -> str:
        """Return the change as text, for messages."""
        return f"{self.verb} version {self.version} by {self.by} at {self.at}"


@dataclass(frozen=True)
class Aliases:
    """The aliases of a registered model with their versions, and the history of their changes."""

    versions: Mapping[str, int]
    moves: tuple[Move, ...]


def announce(verb: Literal["promote", "rollback", "register"], version: int, **details: object) -> Move:
    """Return a new change by this user at this time; `turn` stores it."""
    now = datetime.now(UTC)
    texts = {
        key: " ".join(text.split())[:_LONGEST_TEXT] if isinstance(text, str) else text for key, text in details.items()
    }
    tree = {
        "key": f"{_PREFIX}{now:%Y%m%dT%H%M%S%f}.{secrets.token_hex(3)}",
        "verb": verb,
        "version": version,
        "by": user_name(),
        "at": f"{now:%Y-%m-%d %H:%M:%S}",
    }
    return Move.model_validate(tree | texts)


def user_name() -> str:
    """Return the user of this command: the name at MLflow's server if there is one, else the user and the machine."""
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return name
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError):  # a user id without a name, as in a container
        return f"{os.getuid()}@{platform.node()}"


def read_aliases(client: "MlflowClient", name: str) -> Aliases:
    """Return the aliases of a model, and their changes, oldest first.

    Raises:
        RegistryError: the tag of a change is malformed.
    """
    model = client.get_registered_model(name)
    tags = sorted((key, text) for key, text in model.tags.items() if key.startswith(_PREFIX))
    return Aliases(
        {alias: int(number) for alias, number in model.aliases.items()},
        tuple(_parse_move(name, key, text) for key, text in tags),
    )


def _parse_move(name: str, key: str, text: str) -> Move:
    try:
        return Move.model_validate_json(text)
    except ValidationError as error:
        todo = "delete the tag on MLflow's page of the model"
        raise RegistryError("a malformed tag", where=f"model {name}, {key}", got=text[:80], todo=todo) from error


@contextmanager
def turn(client: "MlflowClient", name: str, move: Move) -> Iterator[Aliases]:
    """Announce a change, wait until it is the only one, and yield the current aliases.

    If the block does not make the change, its announcement is withdrawn.

    Raises:
        RegistryError: other commands were changing the registry for too long.
    """
    with locks.exclusive("aliases", name) as locked, mlflow_store.mlflow_errors(f"model {name}"):
        _wait_for_turn(client, name, move, 0.0 if locked else _PATIENCE)
        try:
            yield read_aliases(client, name)
        finally:
            stored = {other.key: other for other in read_aliases(client, name).moves}.get(move.key)
            if stored is not None and stored.state == "announced":
                client.delete_registered_model_tag(name, move.key)


def _wait_for_turn(client: "MlflowClient", name: str, move: Move, patience: float) -> None:
    """Store the announcement of a change and wait until there is no other; complete the changes of dead processes.

    A command reads the announcements after it has stored its own. Of two commands, at least one therefore sees the other.
    """
    start = time.monotonic()
    first_seen: dict[str, float] = {}
    while True:
        _store(client, name, move)
        aliases = read_aliases(client, name)
        others = [other for other in aliases.moves if other.state in ("announced", "moving") and other.key != move.key]
        if not others:
            return
        now = time.monotonic()
        if all(now - first_seen.setdefault(other.key, now) >= patience for other in others):
            for other in others:
                _complete(client, name, other)
            continue
        client.delete_registered_model_tag(name, move.key)
        if now - start > _LONGEST:
            todo = "wait for it, and try again"
            raise RegistryError(
                "another command is changing the registry", where=f"model {name}", got=str(others[0]), todo=todo
            )
        time.sleep(random.uniform(0.2, 1.0))


def complete_changes(client: "MlflowClient", name: str, version: int) -> None:
    """Complete the changes of dead processes without making one."""
    with turn(client, name, announce("register", version)):
        pass


def make_move(client: "MlflowClient", name: str, move: Move) -> None:
    """Make a change of the champion inside its `turn`, and verify it afterwards.

    Raises:
        RegistryError: the champion was changed meanwhile, which MLflow's web UI allows at any time.
    """
    moving = move.model_copy(update={"state": "moving"})
    _store(client, name, moving)
    _set_aliases(client, name, moving)
    after = read_aliases(client, name)
    champion = after.versions.get(CHAMPION)
    if champion == move.version:
        _store(client, name, moving.model_copy(update={"state": "done"}))
        return
    _store(client, name, moving.model_copy(update={"state": "overtaken"}))
    others = [str(other) for other in after.moves if other.version == champion and other.verb != "register"]
    got = "no champion" if champion is None else f"version {champion}" + (f" ({others[-1]})" if others else "")
    todo = f"see `aupair registry history --name {name}`"
    raise RegistryError(
        "overtaken by another change of the champion", where=f"model {name}", got=got, expected=f"version {move.version}",
        todo=todo,
    )  # fmt: skip


def _complete(client: "MlflowClient", name: str, move: Move) -> None:
    """Complete the change of a dead process, or delete its announcement if it had not begun."""
    if move.state == "announced":
        client.delete_registered_model_tag(name, move.key)
        return
    champion = read_aliases(client, name).versions.get(CHAMPION)
    is_current = champion in (move.champion, move.version)  # else the champion was changed in MLflow's web UI meanwhile
    if is_current:
        _set_aliases(client, name, move)
    _store(client, name, move.model_copy(update={"state": "done" if is_current else "overtaken"}))


def _set_aliases(client: "MlflowClient", name: str, move: Move) -> None:
    """Set the aliases of a change, and the version's tags about it; each step can be repeated."""
    if move.verb == "promote":
        tags = {"by": move.by, "at": move.at, "reason": move.reason, "evidence": move.evidence}
        if move.forced:
            tags |= {"forced": move.reason, "refusals": move.refusals or "none"}
        for key, text in tags.items():
            if text:
                client.set_model_version_tag(name, str(move.version), f"promotion.{key}", text)
        if move.champion not in (None, move.version):
            client.set_registered_model_alias(name, PREVIOUS, str(move.champion))
    client.set_registered_model_alias(name, CHAMPION, str(move.version))
    aliases = read_aliases(client, name).versions
    if aliases.get(CHALLENGER) == move.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    if move.verb == "rollback" and PREVIOUS in aliases:
        client.delete_registered_model_alias(name, PREVIOUS)


def _store(client: "MlflowClient", name: str, move: Move) -> None:
    """Write a change to its tag."""
    client.set_registered_model_tag(name, move.key, move.model_dump_json())
