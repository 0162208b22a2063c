"""A pool of processes, each of which may die without harm to the others.

concurrent.futures cannot tell which task killed a process, and ends all tasks then (BrokenProcessPool).
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from aupair.errors import TERMINATED

_CAUSES = {"SIGKILL": " (the system does so when memory is exhausted)"} | dict.fromkeys(
    ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), " (a fault in a library)"
)
_GRACE = 10.0
"""Seconds that a process has to remove its temporary files; a library that hangs ignores SIGTERM."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ProcessDeath:
    """The end of a process in the middle of a task."""

    exit_code: int | None
    """negative: the signal that killed it"""

    def describe(self) -> str:
        """Return in words how the process ended, such as `was killed by SIGSEGV (a fault in a library)`."""
        code = self.exit_code or 0
        number = code - 128 if code > 128 else -code  # a shell, and some libraries, add 128 to a signal's number
        try:
            name = signal.Signals(number).name
        except ValueError:
            return f"ended with exit code {code}"
        return f"was killed by {name}{_CAUSES.get(name, '')}"


def count_cores() -> int:
    """Return how many cores this process may use; those that torchrun starts on one machine share them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def run_in_processes(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[tuple[T, R | ProcessDeath], None, None]:
    """Yield each task with its result, in the order in which they finish.

    Args:
        function: called in a fresh process ("spawn"); must be picklable, and so must the tasks.
        workers: processes at once; each takes one task at a time.

    Raises:
        Exception: whatever the function raised; the other processes are terminated first, also after KeyboardInterrupt.
    """
    waiting, workers_by_connection = deque(tasks), dict[Connection, _Worker[T]]()
    try:
        while waiting or workers_by_connection:
            while waiting and len(workers_by_connection) < workers:
                worker = _start_worker(function, waiting.popleft())
                workers_by_connection[worker.connection] = worker
            for connection in wait(list(workers_by_connection)):
                worker = workers_by_connection[connection]  # type: ignore[index]
                result, task = worker.receive(), worker.task
                if waiting and not isinstance(result, ProcessDeath):
                    worker.send(waiting.popleft())
                else:
                    workers_by_connection.pop(worker.connection).end()
                yield task, result
    finally:
        for worker in workers_by_connection.values():
            worker.stop()
        for worker in workers_by_connection.values():
            worker.join()


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM during the block, so that its processes are ended and its temporary files removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class _Worker(Generic[T]):
    """A process and the task it works on."""

    process: Any
    connection: Connection
    task: T

    def send(self, task: T) -> None:
        """Send the next task to the process."""
        self.task = task
        with suppress(BrokenPipeError):  # the process died meanwhile: `receive` reports it
            self.connection.send(task)

    def receive(self) -> Any:
        """Return the function's result or the process's death, or raise what the function raised."""
        try:
            succeeded, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return ProcessDeath(self.process.exitcode)
        if not succeeded:
            raise value
        return value

    def end(self) -> None:
        """End the process, which removes its temporary files first."""
        self.stop()
        self.join()

    def stop(self) -> None:
        """Send the process the signal to end.

        The connection is closed first, since a signal that arrives just before the process waits for the next task does
        not wake it.
        """
        self.connection.close()
        self.process.terminate()

    def join(self) -> None:
        """Wait for the end of the process; kill it after _GRACE."""
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()


def _start_worker(function: Callable[[T], R], task: T) -> _Worker[T]:
    """Start a process with its first task."""
    context = get_context("spawn")
    connection, of_child = context.Pipe()
    process = context.Process(target=_serve, args=(function, of_child), daemon=True)
    process.start()
    of_child.close()
    worker = _Worker(process, connection, task)
    worker.send(task)
    return worker


def _serve(function: Callable[[T], R], connection: Connection) -> None:
    """Call the function on each task that arrives, until the parent closes the connection."""
    # The parent ends its children with SIGTERM, which unwinds the stack so that temporary files are removed.
    # Ctrl-C reaches children too, but only the parent reacts to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        while True:
            task = connection.recv()
            try:
                result: tuple[bool, R | Exception] = (True, function(task))
            except Exception as error:
                result = (False, error)
            connection.send(result)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends anyway, and what libraries do then must not be interrupted


def _end_with_parent() -> None:
    """End this process in the middle of its task when its parent has ended, even if that was killed."""
    if (parent := parent_process()) is not None:
        parent.join()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
