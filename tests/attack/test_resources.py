"""Commands without room on the disk, without a free inode, on a read-only disk, or with a limit of file size: one line, nothing half-written."""

import random
from pathlib import Path

import pytest

from attack.budget import Tally, cases, is_long
from attack.faults import CAUSES, Patient, clear, small_disk
from attack.kills import COMMANDS


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_without_room_a_command_ends_with_one_line_and_continues_when_there_is_some(
    name: str, templates: Path, tmp_path: Path
) -> None:
    command, tally, turn = COMMANDS[name], Tally("faults", name, "test_resources.py"), list(COMMANDS).index(name)
    if not (command.quick or is_long()):
        pytest.skip("`make attack` tries it; it is not in the small dose of `make test`")
    disk = tmp_path / "disk"
    with small_disk(disk, "size=1g,nr_inodes=100000"):
        patient = Patient(command, templates / command.template, disk)
        for case in cases(1, "faults", len(COMMANDS)):
            rng = random.Random(f"{name} {case}")
            try:
                patient.attack(CAUSES[(case + turn) % len(CAUSES)], rng, disk)
                problem = ""
            except AssertionError as error:
                problem = str(error)
            tally.add(case, problem)
            clear(disk)
    tally.close()
