"""Commands killed at random moments: after the next run the same bytes, or one consistent state of the registry."""

import random
from pathlib import Path

import pytest

from attack.budget import Tally, cases
from attack.kills import COMMANDS, Victim


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_the_next_run_mends_it(name: str, templates: Path, tmp_path: Path) -> None:
    command, tally = COMMANDS[name], Tally("kills", name, "test_kills.py")
    victim = Victim(command, templates / command.template, tmp_path / "folder")
    for case in cases(command.rounds):
        try:
            hits, problem = victim.attack(random.Random(f"{name} {case}")), ""
        except AssertionError as error:
            hits, problem = 1, str(error)
        tally.add(case, problem, hits)
    tally.close()
