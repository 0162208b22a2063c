"""Broken inputs of every kind: accepted, or refused in one line; no traceback, crash, hang or hunger for memory."""

from pathlib import Path

import pytest

from attack.budget import Tally, cases
from attack.inputs import KINDS, Attempt, list_victims, restore, write_whole
from attack.sandbox import run, try_all


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_broken_inputs_are_accepted_or_refused_in_a_line(name: str, finished: Path, tmp_path: Path) -> None:
    attempt, tally = Attempt(name, tmp_path / "whole", tmp_path / "root"), Tally("inputs", name, "test_inputs.py")
    written = run(write_whole, name, attempt.whole, finished)
    assert written.kind == "accepted", written.detail
    restore(attempt)
    for victim in list_victims(attempt)[:20]:
        accepted = run(KINDS[name].read, attempt.root, victim, 1)
        assert accepted.kind == "accepted", f"{victim}: {accepted.detail}"
    kinds: dict[str, int] = {}
    for case, verdict in try_all(attempt, cases(KINDS[name].share // 5)):
        kinds[verdict.kind] = kinds.get(verdict.kind, 0) + 1
        tally.add(case, f"{verdict.kind}: {verdict.detail}" if verdict.failed else "")
        if verdict.kind in ("hang", "crash"):
            restore(attempt)
    print(name, kinds)
    tally.close()
