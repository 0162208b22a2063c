"""How long until the command line answers? `import aupair` and `aupair --help`, each in fresh processes."""

import subprocess
import sys
import time
from pathlib import Path

from harness import Row, main

TRIES = 5
LIMIT = 1.0
"""seconds"""

COMMANDS = {
    "import aupair": (sys.executable, "-c", "import aupair"),
    "aupair --help": (str(Path(sys.executable).parent / "aupair"), "--help"),
}
FLOOR = (sys.executable, "-c", "pass")


def measure() -> list[Row]:
    """Time both, in turn with a process that does nothing."""
    rows = []
    for name, command in COMMANDS.items():
        ours, floor = zip(*((seconds(command), seconds(FLOOR)) for _ in range(TRIES)))
        rows.append(
            Row(
                question=f"wall time of `{name}`", ours=f"{min(ours):.2f} s", reference=f"python -c pass: {min(floor):.2f} s",
                ratio=None, goal=f"under {LIMIT:g} s", met=min(ours) < LIMIT,
                same=f"exit code 0; {TRIES} processes each, the slowest {max(ours):.2f} s",
            )
        )  # fmt: skip
    return rows


def seconds(command: tuple[str, ...]) -> float:
    """Time a process from its start to its end.

    Raises:
        CalledProcessError: it failed.
    """
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure)
