"""Stores that do not answer: at the first contact one line soon, in the middle of a command no loss."""

import random
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from attack.budget import Tally, cases
from attack.kills import COMMANDS
from aupair.errors import AupairError, RegistryError, UnreachableError
from aupair.registry import contact, mlflow_store, versions
from aupair.registry.register import register_bundle
from aupair.registry.runs import StageRun
from bundle_parts import write_parts
from conftest import Command
from registry.test_versions import params
from services.clock import FakeClock
from services.mlflow_server import Postgres, postgres_server

SOON = 15.0
"""Seconds within which a command that cannot reach its store ends."""


@contextmanager
def deaf_server() -> Iterator[int]:
    """Yield the port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "http"])
@pytest.mark.parametrize("kind", ["refuses", "does not answer", "has no address"])
def test_a_store_that_cannot_be_reached_is_one_line_soon(
    aupair: Command, free_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contact, "_PROBE_SECONDS", 2.0)  # of five, as libpq has no shorter limit
    with deaf_server() as port:
        host = {"refuses": f"127.0.0.1:{free_port}", "does not answer": f"127.0.0.1:{port}"}.get(
            kind, "no-such-host.invalid:9"
        )
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://someone:hush@{host}/mlflow")
        start = time.monotonic()
        done = aupair("registry", "list")
    assert time.monotonic() - start < SOON
    assert done.code == 5
    assert "does not answer: in " in done.line
    assert done.line.endswith("start it, or correct MLFLOW_TRACKING_URI; --wait SECONDS waits for it")
    assert "hush" not in done.err


def test_a_look_up_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "_ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(contact, "_ask_server", lambda uri: time.sleep(5))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    start = time.monotonic()
    with pytest.raises(
        RegistryError, match=r"^the MLflow server does not answer: in http://host:5000, got TimeoutError;"
    ):
        mlflow_store.open_mlflow()
    assert time.monotonic() - start < 4


def test_a_bucket_that_accepts_and_does_not_answer_is_one_line_soon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from aupair.data.fetch import fetch

    with deaf_server() as port:
        for key, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        start = time.monotonic()
        with pytest.raises(UnreachableError, match="does not answer"):
            fetch("s3://bucket/data", tmp_path / "data")
        assert time.monotonic() - start < SOON


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def store(database: Postgres, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A PostgreSQL store as MLFLOW_TRACKING_URI; it runs when the test begins and ends."""
    monkeypatch.setenv("PGPASSWORD", database.password)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    yield database
    database.start()


def test_a_user_can_wait_for_a_store(
    store: Postgres, clock: FakeClock, aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contact.WAIT_VARIABLE, "")  # so that it is restored
    store.stop()
    done = aupair("registry", "list", "--wait", "20")
    assert (done.code, "does not answer" in done.err) == (5, True)
    assert sum(clock.sleeps) == pytest.approx(20)
    clock.on_sleep = store.start
    assert aupair("registry", "list", "--wait", "20").line.startswith("no such model: ")


@pytest.mark.slow
def test_a_database_that_stops_while_a_model_is_registered_costs_nothing(
    store: Postgres, clock: FakeClock, tmp_path: Path
) -> None:
    """It stops before a statement, and starts again while the command waits, or after the command has ended."""
    tally = Tally("faults", "register-model on PostgreSQL", "test_stores.py")
    for case in cases(2, "faults", len(COMMANDS)):
        rng, name, folder = random.Random(case), f"stopped-{time.time_ns()}", tmp_path / str(case)
        parts, stages = write_parts(folder / "work"), [StageRun("evaluate", metrics={"score": 0.6})]

        def register() -> Any:
            return register_bundle(folder / "bundle", parts, stages, [], params(name))  # noqa: B023

        clock.on_sleep, problem = store.start, ""
        try:
            with stopped_at(rng.randint(1, 120), store):
                register()
        except AupairError as error:
            problem = "" if "\n" not in str(error) else str(error)
        except Exception:
            problem = traceback.format_exc(limit=-6)
        store.start()
        done = register()
        listed = versions.list_versions(name)
        if [(version.number, version.aliases) for version in listed] != [(1, ("challenger",))] or done.version != 1:
            problem = f"versions {listed}"
        tally.add(case, problem)
    tally.close()


@contextmanager
def stopped_at(statement: int, store: Postgres) -> Iterator[None]:
    """Stop the database before a statement of the block, counted from 1."""
    count = iter(range(1, 1_000_000))

    def before(*_: object) -> None:
        if next(count) == statement:
            store.stop()

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", before)
