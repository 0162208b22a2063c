"""Run every benchmark, one after the other, and write results.md: `make bench`.

    python benchmarks/run.py [NAME ...]

A named one replaces its rows in results.md and leaves the others; one that fails leaves its own, too, and says so.
Needs a machine that does nothing else.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from harness import Row, cells

from aupair import store

HERE = Path(__file__).parent
NAMES = ("faces", "pairs", "accuracy", "features", "mapping", "predict", "processes")
"""in the order of the flow"""
OTHERS = ("affwild2_size.py", "gpu.py")
"""commands of their own: the full size, a GPU"""

HEAD = """# What the benchmarks said

Written by `make bench`. Each question is a file of this folder with a reference in the same run; `same` says how it was
made sure that both do the same. Seconds are of the machine named; ratios should hold elsewhere.
"""


def machine() -> str:
    """Say what this was measured on, when, and which code."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo")), 0.0)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB; load before: {os.getloadavg()[0]:.1f}; "
        f"{datetime.date.today().isoformat()}, commit {commit()}, torch {version('torch')}"
    )


def commit() -> str:
    """Name the code that is measured: its commit, and whether it was changed since (pages and tests measure nothing)."""
    found = _git("rev-parse", "--short=7", "HEAD")
    measured = (":/src", ":/benchmarks", ":/params", ":/params.yaml", ":(exclude)results.*")
    changed = _git("status", "--porcelain", "--", *measured)
    return (found or "unknown") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def run(name: str) -> dict[str, object]:
    """Run one and give its rows, or why there are none."""
    start, where = time.perf_counter(), machine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--json", str(path)], check=False).returncode
        rows = json.loads(path.read_text()) if code == 0 else []
    return {"rows": rows, "machine": where, "code": code, "seconds": round(time.perf_counter() - start)}


def page(results: dict[str, dict]) -> str:
    """Lay out results.md."""
    lines = [HEAD, "| question | ours | reference | ratio | goal | met | the same? |", "|---|---|---|---|---|---|---|"]
    for name in NAMES:
        lines += ["| " + " | ".join(cells(Row(**row))) + " |" for row in results.get(name, {}).get("rows", [])]
    lines += ["", "| file | seconds | measured on |", "|---|---|---|"]
    for name in NAMES:
        result = results.get(name, {"seconds": "", "machine": "not yet", "code": 0})
        failed = f"; the last run failed with code {result['code']}" if result["code"] else ""
        lines.append(f"| {name}.py | {result['seconds']} | {result['machine']}{failed} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named")
    names = parser.parse_args().names or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        known = f"there are {', '.join(NAMES)}; by themselves run {', '.join(OTHERS)}"
        sys.exit(f"no such benchmark: {', '.join(unknown)}; {known}")
    kept = HERE / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name in names:
        print(f"# {name}", flush=True)
        found = run(name)
        results[name] = {**results.get(name, found), "code": found["code"]} if found["code"] else found
        store.write_text(kept, json.dumps(results, indent=1) + "\n")
        store.write_text(HERE / "results.md", page(results))
    failed = [name for name in names if results[name]["code"]]
    print(f"written to {HERE / 'results.md'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
