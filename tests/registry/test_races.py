"""Commands on the registry at the same moment, and killed ones, in each kind of store: real processes, real servers."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aupair import disk
from aupair.aus import AFFWILD2
from aupair.errors import RegistryError
from aupair.registry import mlflow_store, moves, promotion, versions
from services.mlflow_server import BUCKET, mlflow_server, postgres
from services.racers import GATE, race
from services.s3 import s3_server

NAME = "raced"
SCORES = {1: 0.6, 2: 0.7, 3: 0.65}
STORES = ("sqlite", "postgresql", "server")


@pytest.fixture(scope="module", params=STORES)
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a store of each kind; it has a model with three versions."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    elif request.param == "postgresql":
        with postgres() as variables:
            uri = variables["MLFLOW_BACKEND_STORE_URI"]
            yield {"MLFLOW_TRACKING_URI": uri, "PGPASSWORD": variables["PGPASSWORD"]}
    else:
        with s3_server(tmp_path_factory.mktemp("s3"), [BUCKET]) as s3, mlflow_server(folder, s3) as server:
            yield server.environment()


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store, in which version 1 is the champion, and no change is recorded."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    opened = mlflow_store.open_mlflow(create=True)
    if not opened.search_registered_models(f"name = '{NAME}'"):
        opened.create_registered_model(NAME)
        for score in SCORES.values():
            tags = {f"selection.{au}": "P1" for au in AFFWILD2} | {"score.p2": f"{score:.6f}", "data.md5": "a"}
            opened.create_model_version(NAME, "s3://nowhere/model", tags=tags)
    set_aliases(opened, champion=1)
    return opened


def set_aliases(client: Any, **aliases: int) -> None:
    """Set the aliases of the model, and delete all others and all records of changes."""
    model = client.get_registered_model(NAME)
    for alias in model.aliases.keys() - aliases.keys():
        client.delete_registered_model_alias(NAME, alias)
    for alias, number in aliases.items():
        client.set_registered_model_alias(NAME, alias, str(number))
    for key in model.tags:
        client.delete_registered_model_tag(NAME, key)


def state(client: Any) -> dict[str, int]:
    """Return the aliases, after a check that no change is open."""
    aliases = moves.read_aliases(client, NAME)
    assert {move.state for move in aliases.moves} <= {"done"}
    return dict(aliases.versions)


@pytest.mark.slow
def test_two_promotions_at_once_are_those_of_one_order(client: Any, environment: dict[str, str]) -> None:
    """Version 3 is better than the champion and worse than 2: after 2 the gate must refuse it."""
    for _ in range(3):
        set_aliases(client, champion=1)
        second, third = race([("promote", 2, NAME), ("promote", 3, NAME)], environment)
        assert second == "ok 2"
        if third == "ok 3":
            assert state(client) == {"champion": 2, "previous": 3}
        else:
            assert third.startswith("the gate refuses: in version 3, got score.p2 0.650 against 0.700")
            assert state(client) == {"champion": 2, "previous": 1}


@pytest.mark.slow
def test_a_promotion_and_a_rollback_at_once_are_those_of_one_order(client: Any, environment: dict[str, str]) -> None:
    for _ in range(3):
        set_aliases(client, champion=3, previous=1, challenger=2)
        assert race([("promote", 2, NAME), ("rollback", NAME)], environment)[0] == "ok 2"
        verbs = [move.verb for move in moves.read_aliases(client, NAME).moves]
        assert state(client) == ({"champion": 3} if verbs[-1] == "rollback" else {"champion": 2, "previous": 1})


@pytest.mark.slow
def test_two_register_model_at_once_leave_one_version(client: Any, environment: dict[str, str], tmp_path: Path) -> None:
    name = "registered-at-once"
    said = race([("register", str(tmp_path), name)] * 2, environment)
    assert "ok 1" in said
    if "http" not in environment["MLFLOW_TRACKING_URI"]:
        assert said == ["ok 1", "ok 1"]
    assert race([("register", str(tmp_path), name)], environment) == ["ok 1"]
    (version,) = versions.list_versions(name)
    assert (version.number, version.aliases) == (1, ("challenger",))
    assert versions.resolve_bundle(f"models:/{name}/1").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("then", ["promote", "rollback"])
def test_a_killed_promotion_is_completed_by_the_next_command(
    client: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """It is killed after each number of writes until it survives."""
    monkeypatch.setattr(moves, "_PATIENCE", 0.5)  # of the next command, which waits for a live one behind a server
    writes = 0
    while True:
        set_aliases(client, champion=1, challenger=2)
        if race([("promote", 2, NAME)], environment, die_after=writes) != ["killed"]:
            break
        if then == "promote":
            promotion.promote_version(2, gate=GATE, name=NAME)
            assert state(client) == {"champion": 2, "previous": 1}
        elif writes < 2:  # it had announced itself and changed nothing
            with pytest.raises(RegistryError, match="no version to roll back to"):
                promotion.roll_back(NAME)
            assert state(client) == {"champion": 1, "challenger": 2}
        else:
            promotion.roll_back(NAME)
            assert state(client) == {"champion": 1}
        writes += 1
    assert writes > 5, "announcement, state, two tags, three aliases, state"


def test_the_loser_of_a_change_by_hand_is_told(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own pages know nothing of turns."""
    change = moves._set_aliases

    def meddle(client: Any, name: str, move: moves.Move) -> None:
        change(client, name, move)
        client.set_registered_model_alias(name, "champion", "3")

    monkeypatch.setattr(moves, "_set_aliases", meddle)
    with pytest.raises(
        RegistryError, match=r"^overtaken by another change of the champion: .* got version 3, expected"
    ):
        promotion.promote_version(2, gate=GATE, name=NAME)
    assert [move.state for move in moves.read_aliases(client, NAME).moves] == ["overtaken"]


def test_a_champion_that_changes_after_the_verdict_is_judged_again(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = promotion._judge

    def meddle(*arguments: Any) -> list[str]:
        verdict = judge(*arguments)
        client.set_registered_model_alias(NAME, "champion", "2")
        return verdict

    monkeypatch.setattr(promotion, "_judge", meddle)
    with pytest.raises(RegistryError, match=r"the gate refuses: in version 3, got score.p2 0.650 against 0.700"):
        promotion.promote_version(3, gate=GATE, name=NAME)
    assert state(client)["champion"] == 2


def test_a_change_that_was_undone_by_hand_is_not_completed(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "_PATIENCE", 0.5)
    left = moves.announce("promote", 2, champion=1).model_copy(update={"state": "moving"})
    client.set_registered_model_tag(NAME, left.key, left.model_dump_json())
    client.set_registered_model_alias(NAME, "champion", "3")
    moves.complete_changes(client, NAME, 1)
    after = moves.read_aliases(client, NAME)
    assert (after.versions, [move.state for move in after.moves]) == ({"champion": 3}, ["overtaken"])


def test_a_malformed_record_is_one_line(client: Any) -> None:
    client.set_registered_model_tag(NAME, "aupair.move.x", json.dumps({"verb": "dance"}))
    with pytest.raises(RegistryError, match=r"^a malformed tag: in model raced, aupair.move.x, .*; delete the tag"):
        promotion.promote_version(2, gate=GATE, name=NAME)


def test_a_half_made_store_is_told_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow_store.open_mlflow(create=True)
    with sqlite3.connect(tmp_path / "half.db") as half, sqlite3.connect(tmp_path / "mlflow.db") as whole:
        for (statement,) in whole.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'runs'"):
            half.execute(statement)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/half.db")
    with pytest.raises(
        RegistryError, match=r"^an incomplete MLflow store: in .*half\.db, got .*; delete it if it has no"
    ):
        mlflow_store.open_mlflow(create=True)


def test_a_store_is_made_elsewhere_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_store, "_create_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            mlflow_store.open_mlflow(create=True)
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / ".mlflow.db.abcd_123.tmp").mkdir()
    disk._sweep_once.cache_clear()  # as in a new process
    mlflow_store.open_mlflow(create=True)
    assert not list(tmp_path.glob(".mlflow.db.*")), "the leftovers of a killed process"
