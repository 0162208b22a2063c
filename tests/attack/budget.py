"""How much is tried, what is tried again, and what came of it.

Variables: AUPAIR_ATTACK_FACTOR multiplies the number of cases of each kind, AUPAIR_ATTACK_MINUTES is the time for all kinds
together instead, AUPAIR_ATTACK_SEED is the first case, AUPAIR_ATTACK_CASE is the only one, and AUPAIR_ATTACK_TALLY is the
file to which each kind appends a line.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import pytest

SHARES = {"inputs": 0.3, "kills": 0.35, "races": 0.25, "faults": 0.1}
"""The share of the time for each group, which its kinds divide equally."""


def is_long() -> bool:
    """Return whether this is more than the small dose of `make test`, or one case again."""
    return _factor() > 1 or bool({"AUPAIR_ATTACK_CASE", "AUPAIR_ATTACK_MINUTES"} & os.environ.keys())


def cases(dose: int, group: str | None = None, kinds: int = 1) -> Iterator[int]:
    """Yield the numbers of the cases of a kind to try: `dose` times the factor, or as many as its time allows.

    Args:
        group: a key of SHARES; None: the time does not count.
        kinds: the number of kinds of that group.
    """
    if only := os.environ.get("AUPAIR_ATTACK_CASE"):
        yield int(only)
        return
    numbers = count(int(os.environ.get("AUPAIR_ATTACK_SEED", 0)))
    minutes = os.environ.get("AUPAIR_ATTACK_MINUTES")
    if minutes is None or group is None:
        yield from islice(numbers, max(1, round(dose * _factor())))
        return
    end = time.monotonic() + 60 * float(minutes) * SHARES[group] / kinds
    for number in numbers:
        yield number
        if time.monotonic() > end:
            return


def _factor() -> float:
    return float(os.environ.get("AUPAIR_ATTACK_FACTOR", 1))


@dataclass
class Tally:
    """The cases of one kind that were tried.

    Attributes:
        group: a key of SHARES.
        name: the kind.
        test: the test, by which a case is tried again.
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
            again = f"AUPAIR_ATTACK_CASE={case} pytest tests/attack/test_attack.py -k '{self.test} and {self.name}'"
            self.failures.append(f"{self.name}, case {case}: {problem}\n    again: {again}")

    def close(self) -> None:
        """Append the counts to the file of this run, and fail where a case did."""
        if path := os.environ.get("AUPAIR_ATTACK_TALLY"):
            row = {"group": self.group, "name": self.name, "tried": self.tried, "failures": self.failures}
            with open(path, "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.failures:
            pytest.fail(f"{len(self.failures)} of {self.tried}\n" + "\n".join(self.failures[:20]), pytrace=False)
