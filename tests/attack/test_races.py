"""Two commands at once: the outcome is that of one order, and the bytes are those of one of them."""

from pathlib import Path

import pytest

from attack.budget import Tally, cases
from attack.races import RACES, Course


@pytest.mark.slow
@pytest.mark.parametrize("name", RACES)
def test_two_at_once_end_as_one_after_the_other(name: str, templates: Path, tmp_path: Path) -> None:
    entry, tally = RACES[name], Tally("races", name, "test_races.py")
    course = Course(entry, templates / entry.template, tmp_path / "folder")
    for case in cases(1):
        try:
            course.run()
            problem = ""
        except AssertionError as error:
            problem = str(error)
        tally.add(case, problem)
    tally.close()
