"""Two commands at the same moment in one folder, and what must hold after both."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attack import kills
from attack.sandbox import run
from services.racers import race


@dataclass(frozen=True)
class Race:
    """Two calls at once in a copy of a folder.

    Attributes:
        calls: the two.
        template: the folder's name.
        outputs: what they write; afterwards it has the bytes that one call alone writes.
        check: raises if the folder is not as it must be afterwards.
        quick: whether it is in the small dose of `make test`.
        refusals: beginnings of the lines with which one of the two may refuse.
    """

    calls: tuple[Callable[[], object], Callable[[], object]]
    template: str
    outputs: tuple[str, ...] = ()
    check: Callable[[], object] = int
    refusals: tuple[str, ...] = ()
    quick: bool = False


_QUICK = ("preprocess-faces", "sample-pairs", "extract-features")


def _twice(name: str) -> Race:
    command = kills.COMMANDS[name]
    return Race((command.start, command.start), command.template, command.outputs, command.check, quick=name in _QUICK)


_AFTER = ({"champion": 2, "previous": 3}, {"champion": 2, "previous": 1}, {"champion": 1}, {"champion": 3})
"""The aliases after a promotion of 2 and a rollback, in either order; version 3 was the champion and 1 the previous one."""

RACES: dict[str, Race] = {
    "two register-model": _twice("register-model"),
    "two promotions": Race(
        (partial(kills.promote, 2), partial(kills.promote, 2)),
        "store",
        check=partial(kills.check_aliases, [{"champion": 2, "previous": 3}]),
    ),
    "a promotion and a rollback": Race(
        (partial(kills.promote, 2), kills.roll_back), "store", check=partial(kills.check_aliases, _AFTER)
    ),
    "two rollbacks": Race(
        (kills.roll_back, kills.roll_back),
        "store",
        check=partial(kills.check_aliases, [{"champion": 1}]),
        refusals=("no version to roll back to",),
    ),
    "two makings of a store": Race((kills.create_store, kills.create_store), "empty", check=kills.check_tables),
    "two predictions into a folder": Race((kills.predict, kills.predict), "flow", ("predictions",)),
    "two corpora into a folder": Race(
        (kills.synthesise, kills.synthesise),
        "empty",
        ("new",),
        refusals=("the folder is not empty",),
        quick=True,
    ),
} | {f"two runs of {name}": _twice(name) for name in kills.COMMANDS if kills.COMMANDS[name].outputs and "-" in name}


SHARED: dict[str, tuple[tuple[tuple, tuple], tuple[dict[str, int], ...]]] = {
    "two promotions in PostgreSQL": (
        (("promote", 2, kills.NAME), ("promote", 2, kills.NAME)),
        ({"champion": 2, "previous": 3},),
    ),
    "a promotion and a rollback in PostgreSQL": ((("promote", 2, kills.NAME), ("rollback", kills.NAME)), _AFTER),
}
"""Commands at once in one database, and the aliases that there may be afterwards."""


def race_in_database(environment: Mapping[str, str], name: str) -> None:
    """Hold a race in a database that has the versions of `kills.register_three`.

    Raises:
        AssertionError: a call failed, or the aliases are those of no order.
    """
    calls, allowed = SHARED[name]
    _call_in(environment, kills.set_aliases)
    said = race(calls, environment)
    assert all(line.startswith("ok") for line in said), said
    _call_in(environment, partial(kills.check_aliases, allowed))


def prepare_database(environment: Mapping[str, str]) -> None:
    """Make MLflow's tables and three versions in an empty database."""
    _call_in(environment, kills.register_three)


def _call_in(environment: Mapping[str, str], call: Callable[[], object]) -> None:
    verdict = run(_with_environment, dict(environment), call)
    assert verdict.kind == "accepted", verdict.detail


def _with_environment(environment: Mapping[str, str], call: Callable[[], object]) -> None:
    os.environ.update(environment)
    call()


class Course:
    """A folder in which a race is held again and again."""

    def __init__(self, entry: Race, template: Path, folder: Path) -> None:
        self._race, self._template, self._folder = entry, template, folder
        self._expected = self._alone() if entry.outputs else {}

    def run(self) -> None:
        """Hold the race once.

        Raises:
            AssertionError: a call failed, an output differs, or a check fails.
        """
        self._reset()
        said = race([("call", str(self._folder), call) for call in self._race.calls], {"MLFLOW_TRACKING_URI": ""})
        refused = [line for line in said if not line.startswith("ok")]
        assert len(refused) < 2, refused
        assert all(line.startswith(self._race.refusals) for line in refused), refused
        verdict = run(kills.in_folder, self._folder, self._race.check)
        assert verdict.kind == "accepted", verdict.detail
        self._compare()

    def _compare(self) -> None:
        outputs = self._outputs()
        names: Sequence[str] = sorted({**outputs, **self._expected})
        differing = [name for name in names if outputs.get(name) != self._expected.get(name)]
        assert not differing, f"other bytes in {differing[:5]}"

    def _alone(self) -> dict[str, bytes]:
        self._reset()
        verdict = run(kills.in_folder, self._folder, self._race.calls[0])
        assert verdict.kind == "accepted", verdict.detail
        return self._outputs()

    def _reset(self) -> None:
        kills.reset(self._folder, self._template, self._race.outputs)

    def _outputs(self) -> dict[str, bytes]:
        return kills.read_outputs(self._folder, self._race.outputs)
