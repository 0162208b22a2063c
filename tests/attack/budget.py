"""How much is tried, what is tried again, and what came of it.

Variables: AUPAIR_ATTACK_FACTOR multiplies the number of cases, AUPAIR_ATTACK_SEED is the first case, AUPAIR_ATTACK_CASE is
the only one, AUPAIR_ATTACK_UNTIL is the second of the epoch after which no case begins, AUPAIR_ATTACK_TALLY is the file to
which each kind appends a line.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest


def cases(count: int) -> Iterator[int]:
    """Yield the numbers of the cases to try, `count` times the factor, until the time is over."""
    only = os.environ.get("AUPAIR_ATTACK_CASE")
    if only is not None:
        yield int(only)
        return
    first = int(os.environ.get("AUPAIR_ATTACK_SEED", 0))
    until = float(os.environ.get("AUPAIR_ATTACK_UNTIL", "inf"))
    for k in range(max(1, round(count * float(os.environ.get("AUPAIR_ATTACK_FACTOR", 1))))):
        if time.time() > until:
            return
        yield first + k


@dataclass
class Tally:
    """The cases of one kind that were tried.

    Attributes:
        group: inputs, kills or races.
        name: the kind.
        test: the file of the test, by which a case is tried again.
    """

    group: str
    name: str
    test: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, case: int, problem: str = "", tried: int = 1) -> None:
        """Count what was tried in a case, and its problem if it has one."""
        self.tried += tried
        if problem:
            again = f"AUPAIR_ATTACK_CASE={case} pytest tests/attack/{self.test} -k '{self.name}'"
            self.failures.append(f"{self.name}, case {case}: {problem}\n    again: {again}")

    def close(self) -> None:
        """Append the counts to the file of this run, and fail where a case did."""
        if path := os.environ.get("AUPAIR_ATTACK_TALLY"):
            row = {"group": self.group, "name": self.name, "tried": self.tried, "failures": self.failures}
            with open(path, "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.failures:
            pytest.fail(f"{len(self.failures)} of {self.tried}\n" + "\n".join(self.failures[:20]), pytrace=False)
