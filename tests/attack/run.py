"""The long attack (`make attack MINUTES=60`): inputs, kills and races in turn until the time is over, and a table of them.

Each round begins with the case after the last one of the round before, or with that of AUPAIR_ATTACK_SEED.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

SHARES = {"test_kills.py": 0.45, "test_races.py": 0.3, "test_inputs.py": 0.25}
"""The share of the time for each file."""

FACTORS = {"test_kills.py": 4, "test_races.py": 3, "test_inputs.py": 60}
"""The factor of each file in one round: so that a round of each takes some minutes, and its preparation pays."""

STRIDE = 1_000_000
"""The distance of the first cases of two rounds."""


def main() -> int:
    """Run the attack; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    end = time.time() + 60 * parser.parse_args().minutes
    first = int(os.environ.get("AUPAIR_ATTACK_SEED", 0))
    spent: dict[str, float] = dict.fromkeys(SHARES, 0.0)
    rounds: dict[str, int] = dict.fromkeys(SHARES, 0)
    with tempfile.TemporaryDirectory() as folder:
        tally, broken = Path(folder) / "tally.jsonl", False
        tally.touch()
        while time.time() < end:
            name = min(SHARES, key=lambda name: spent[name] / SHARES[name])
            start = time.time()
            variables = {
                "AUPAIR_ATTACK_SEED": first + STRIDE * rounds[name],
                "AUPAIR_ATTACK_FACTOR": FACTORS[name],
                "AUPAIR_ATTACK_UNTIL": end,
                "AUPAIR_ATTACK_TALLY": tally,
            }
            code = _run(name, {key: str(value) for key, value in variables.items()})
            broken |= code not in (0, 1)
            spent[name] += time.time() - start
            rounds[name] += 1
        rows = [json.loads(line) for line in tally.read_text().splitlines()]
    return _report(rows) or int(broken)


def _run(name: str, variables: dict[str, str]) -> int:
    """Run a file of tests; return its exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(name))]
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables, check=False).returncode


def _report(rows: list[dict]) -> int:
    """Print a table of what was tried and what failed; return 1 if anything did."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for name in (row["name"], "all"):
            count = counts[row["group"], name]
            count[0] += row["tried"]
            count[1] += len(row["failures"])
    print("\n| | what | tried | failed |\n|---|---|---:|---:|")
    for (group, name), (tried, failed) in sorted(counts.items()):
        print(f"| {group} | {name} | {tried:,} | {failed:,} |")
    for row in rows:
        for failure in row["failures"]:
            print(f"\n{failure}")
    return int(any(failed for _, failed in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
