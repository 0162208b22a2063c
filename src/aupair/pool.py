"""A pool of processes, each of which may die without harm to the others.

concurrent.futures cannot tell which task killed a process, and ends all tasks then (BrokenProcessPool).
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ProcessDeath:
    """The end of a process in the middle of a task."""

    exit_code: int | None
    """negative: the signal that killed it (-9 often means too little memory, -11 a fault in a library)"""


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
            worker.end()


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
        """End the process, which removes its temporary files first.

        The connection is closed first, since a signal that arrives just before the process waits for the next task does
        not wake it.
        """
        self.connection.close()
        self.process.terminate()
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
    with suppress(EOFError, BrokenPipeError):
        while True:
            task = connection.recv()
            try:
                result: tuple[bool, R | Exception] = (True, function(task))
            except Exception as error:
                result = (False, error)
            connection.send(result)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends anyway, and what libraries do then must not be interrupted
