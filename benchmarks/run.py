"""Run every benchmark, one after the other, and write results.md: `make bench`.

    python benchmarks/run.py [NAME ...]

A benchmark that is named replaces its rows in results.md and leaves the others; one that fails leaves its old rows with
a note. The machine should do nothing else meanwhile.
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
from typing import Any

from harness import HEADINGS, Row, format_row, markdown_table, read_commit

from aupair import store

HERE = Path(__file__).parent
NAMES = ("faces", "pairs", "accuracy", "features", "mapping", "predict", "own_labels")
"""in the order of the stages; the last one is about the whole flow"""
OTHERS = ("affwild2_size.py", "gpu.py")
"""commands of their own: the full size, a GPU"""

INTRODUCTION = """# Results of the benchmarks

Written by `make bench`. Each question is a file of this folder with a reference in the same run; `the same?` says how
it was checked that both do the same. Seconds are of the machine named; ratios should hold elsewhere.
"""


def describe_machine() -> str:
    """Return the processor, its cores, the memory and load, the date, the commit and the version of torch."""
    lines = _read_lines("/proc/cpuinfo")
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = next((int(line.split()[1]) / 2**20 for line in _read_lines("/proc/meminfo")), 0.0)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{next(models, platform.machine())}, {cores} cores, {memory:.0f} GiB; load before: {os.getloadavg()[0]:.1f}; "
        f"{datetime.date.today().isoformat()}, commit {read_commit()}, torch {version('torch')}"
    )


def _read_lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def run_benchmark(name: str) -> dict[str, Any]:
    """Run a benchmark in a process of its own and return its rows, machine, exit code and seconds."""
    start, machine = time.perf_counter(), describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--json", str(path)], check=False).returncode
        rows = json.loads(path.read_text()) if code == 0 else []
    return {"rows": rows, "machine": machine, "code": code, "seconds": round(time.perf_counter() - start)}


def format_page(results: dict[str, dict[str, Any]]) -> str:
    """Return the text of results.md."""
    rows = [format_row(Row(**row)) for name in NAMES for row in results.get(name, {}).get("rows", [])]
    runs = []
    for name in NAMES:
        result = results.get(name, {"seconds": "", "machine": "not yet", "code": 0})
        failure = f"; the last run failed with code {result['code']}" if result["code"] else ""
        runs.append((f"{name}.py", str(result["seconds"]), result["machine"] + failure))
    tables = [*markdown_table(HEADINGS, rows), "", *markdown_table(("file", "seconds", "measured on"), runs)]
    return "\n".join([INTRODUCTION, *tables]) + "\n"


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named")
    names = parser.parse_args().names or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        known = f"there are {', '.join(NAMES)}; run {', '.join(OTHERS)} directly"
        sys.exit(f"no such benchmark: {', '.join(unknown)}; {known}")
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        print(f"# {name}", flush=True)
        result = run_benchmark(name)
        results[name] = {**results.get(name, result), "code": result["code"]} if result["code"] else result
        store.write_text(path, json.dumps(results, indent=1) + "\n")
        store.write_text(HERE / "results.md", format_page(results))
    failed = [name for name in names if results[name]["code"]]
    print(f"written to {HERE / 'results.md'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
