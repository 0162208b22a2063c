"""The long attack (`make attack MINUTES=60`): all kinds of inputs, kills and races, and a table of what was tried.

AUPAIR_ATTACK_SEED is the first case of each kind (default 0): another one tries others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

_ALL = "~ all"
"""The name of the sum over the kinds of a group, which is sorted behind them."""


def main() -> int:
    """Run the attack; return 1 if a case failed, or pytest's code if it could not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="about how long it takes")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="pytest-xdist's; each has its own tests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally.jsonl"
        tally.touch()
        variables = {
            "OMP_NUM_THREADS": "1", "AUPAIR_ATTACK_MINUTES": str(options.minutes * options.processes),
            "AUPAIR_ATTACK_TALLY": str(tally),
        }  # fmt: skip
        tests = [str(Path(__file__).with_name(name)) for name in ("test_attack.py", "test_resources.py")]
        spread = ["-n", str(options.processes), "--dist", "worksteal"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, *tests]
        code = subprocess.run(command, env=os.environ | variables, check=False).returncode
        rows = [json.loads(line) for line in tally.read_text().splitlines()]
    _print_table(rows)
    return code


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print how many of each kind were tried, and how many failed."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for name in (row["name"], _ALL):
            count = counts[row["group"], name]
            count[0] += row["tried"]
            count[1] += len(row["failures"])
    print("\n| | of | tried | failed |\n|---|---|---:|---:|")
    for (group, name), (tried, failed) in sorted(counts.items()):
        print(f"| {group} | {name} | {tried:,} | {failed:,} |")


if __name__ == "__main__":
    sys.exit(main())
