"""Tests of `benchmarks/run.py`: rows of earlier runs, failures, names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BAD, GOOD = "raise SystemExit(7)", "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text({rows!r})"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with run.py, harness.py, and rows of an earlier run."""
    for name in ("run.py", "harness.py"):
        (tmp_path / name).write_text((BENCHMARKS / name).read_text())
    write(tmp_path, "pairs", GOOD, ours="first")
    assert run(tmp_path, "pairs").returncode == 0
    return tmp_path


def write(folder: Path, name: str, script: str, ours: str = "") -> None:
    row = {"question": "how much", "ours": ours, "reference": "", "ratio": 1.239, "goal": "", "met": True, "same": ""}
    (folder / f"{name}.py").write_text(script.format(rows=json.dumps([row])))


def run(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "run.py", *names], capture_output=True, text=True, timeout=120)


def test_failed_benchmark_leaves_the_rows_of_its_last_run(folder: Path) -> None:
    write(folder, "pairs", BAD)
    failed = run(folder, "pairs")
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1].endswith("results.md; failed: pairs")
    page = (folder / "results.md").read_text()
    assert "| how much | first |  | 1.23 x |" in page
    assert "the last run failed with code 7 |" in page
    write(folder, "pairs", GOOD, ours="second")
    assert run(folder, "pairs").returncode == 0
    page = (folder / "results.md").read_text()
    assert ("first" not in page, "second" in page, "failed" not in page) == (True, True, True)


def test_page_lists_benchmarks_that_were_not_run(folder: Path) -> None:
    assert "| predict.py |  | not yet |" in (folder / "results.md").read_text()


def test_wrong_name_is_a_one_line_error(folder: Path) -> None:
    before = (folder / "results.json").read_bytes()
    wrong = run(folder, "gpu")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("no such benchmark: gpu; there are faces, pairs, ")
    assert "run affwild2_size.py, gpu.py directly" in wrong.stderr
    assert (folder / "results.json").read_bytes() == before
