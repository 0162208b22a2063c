"""The attack: broken inputs, commands killed at random moments, and two commands at once (docs/reliability.md)."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attack.budget import Tally, cases, is_long
from attack.inputs import KINDS, Attempt, list_victims, restore, write_whole
from attack.kills import COMMANDS, Victim
from attack.races import RACES, SHARED, Course, prepare_database, race_in_database
from attack.sandbox import run, try_all
from services.mlflow_server import postgres

NOT_QUICK = "`make attack` tries it; it is not in the small dose of `make test`"


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_input(name: str, finished: Path, tmp_path: Path) -> None:
    """A broken input is accepted, or refused in a line: no traceback, crash or hang, and no more memory than allowed."""
    kind, attempt = KINDS[name], Attempt(name, tmp_path / "whole", tmp_path / "root")
    written = run(write_whole, name, attempt.whole, finished)
    assert written.kind == "accepted", written.detail
    restore(attempt)
    for victim in list_victims(attempt)[:20] if kind.damaged else ():
        accepted = run(kind.read, attempt.root, victim, 1)
        assert accepted.kind == "accepted", f"{victim}: {accepted.detail}"
    tally = Tally("inputs", name, "test_input")
    for case, verdict in try_all(attempt, cases(kind.dose, "inputs", len(KINDS))):
        tally.add(case, f"{verdict.kind}: {verdict.detail}" if verdict.failed else "")
        if verdict.kind in ("hang", "crash"):
            restore(attempt)
    tally.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_kill(name: str, templates: Path, tmp_path: Path) -> None:
    """After a kill at any moment the next run ends with the same bytes, or one consistent state of the registry."""
    command = COMMANDS[name]
    if not (command.quick or is_long()):
        pytest.skip(NOT_QUICK)
    victim = Victim(command, templates / command.template, tmp_path / "folder")
    tally = Tally("kills", name, "test_kill")
    _try_cases(tally, len(COMMANDS), lambda case: victim.attack(random.Random(f"{name} {case}")))


@pytest.mark.slow
@pytest.mark.parametrize("name", RACES)
def test_race(name: str, templates: Path, tmp_path: Path) -> None:
    """The outcome of two commands at once is that of one order, and the bytes are those of one of them."""
    entry = RACES[name]
    if not (entry.quick or is_long()):
        pytest.skip(NOT_QUICK)
    course = Course(entry, templates / entry.template, tmp_path / "folder")
    _try_cases(Tally("races", name, "test_race"), len(RACES) + len(SHARED), lambda _: course.run())


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """The variables of an MLflow store in PostgreSQL."""
    if not is_long():
        pytest.skip("tests/registry/test_races.py has a small dose of each kind of store")
    with postgres() as variables:
        uri = variables["MLFLOW_BACKEND_STORE_URI"]
        environment = {"MLFLOW_TRACKING_URI": uri, "PGPASSWORD": variables["PGPASSWORD"]}
        prepare_database(environment)
        yield environment


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_race_in_postgresql(name: str, database: dict[str, str]) -> None:
    """As with sqlite, the outcome is that of one order."""
    tally = Tally("races", name, "test_race_in_postgresql")
    _try_cases(tally, len(RACES) + len(SHARED), lambda _: race_in_database(database, name))


def _try_cases(tally: Tally, tests: int, attempt: Callable[[int], int | None]) -> None:
    """Try the cases of a test and count them.

    Args:
        tests: how many tests share the time of the tally's group.
        attempt: takes a case; returns how often it hit, None for once; raises AssertionError for a failure.
    """
    for case in cases(1, tally.group, tests):
        hits, problem = None, ""
        try:
            hits = attempt(case)
        except AssertionError as error:
            problem = str(error)
        tally.add(case, problem, 1 if hits is None else hits)
    tally.close()
