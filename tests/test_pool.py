"""A process that dies affects its own task and no other."""

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from aupair.errors import DataError
from aupair.pool import ProcessDeath, run_in_processes


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module of functions that a fresh process can import."""
    (tmp_path / "pool_work.py").write_text(
        """
import os, signal, sys, time
from aupair.errors import DataError

def double_or_die(task):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 5:
        os._exit(7)
    return 2 * task

def fail(task):
    raise DataError("no such thing", got=task)

def process_id(task):
    time.sleep(0.3)
    return os.getpid()

def ignore_sigterm(task):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return task

def has_torch(task):
    import aupair.faces.folder
    return "torch" in sys.modules
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pool_work", raising=False)
    return importlib.import_module("pool_work")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_death_is_reported_and_the_other_tasks_go_on(work: ModuleType, workers: int) -> None:
    results = dict(run_in_processes(work.double_or_die, range(8), workers))
    assert results == {0: 0, 1: 2, 2: 4, 3: ProcessDeath(-9), 4: 8, 5: ProcessDeath(7), 6: 12, 7: 14}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL (the system does so when memory is exhausted)"),
        (137, "was killed by SIGKILL (the system does so when memory is exhausted)"),
        (-11, "was killed by SIGSEGV (a fault in a library)"),
        (139, "was killed by SIGSEGV (a fault in a library)"),
        (-15, "was killed by SIGTERM"),
        (7, "ended with exit code 7"),
        (0, "ended with exit code 0"),
        (255, "ended with exit code 255"),
    ],
)
def test_a_death_is_described_in_words(code: int, words: str) -> None:
    assert ProcessDeath(code).describe() == words


def test_an_error_is_raised_unchanged(work: ModuleType) -> None:
    with pytest.raises(DataError, match="no such thing, got 4"):
        list(run_in_processes(work.fail, [4], 2))


def test_no_more_processes_than_workers(work: ModuleType) -> None:
    assert len({pid for _, pid in run_in_processes(work.process_id, range(5), 2)}) == 2


def test_a_process_that_waits_for_a_task_ends_even_if_it_misses_the_signal(work: ModuleType) -> None:
    assert list(run_in_processes(work.ignore_sigterm, [1], 1)) == [(1, 1)]


def test_no_tasks(work: ModuleType) -> None:
    assert list(run_in_processes(work.double_or_die, [], 2)) == []


def test_processes_do_not_import_torch(work: ModuleType) -> None:
    assert list(run_in_processes(work.has_torch, [0], 1)) == [(0, False)]


def test_an_interrupt_unwinds_the_processes(tmp_path: Path) -> None:
    """On Ctrl-C each process runs its `finally` blocks, and no process remains."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys, time
from pathlib import Path
from types import ModuleType
from aupair.pool import run_in_processes

def work(folder):
    mark = Path(folder) / "half-written"
    mark.write_text("")
    try:
        time.sleep(60)
    finally:
        mark.unlink()

if __name__ == "__main__":
    list(run_in_processes(work, [sys.argv[1]], 1))
"""
    )
    folder = tmp_path / "work"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, script, folder], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(folder.iterdir())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert not list(folder.iterdir())
