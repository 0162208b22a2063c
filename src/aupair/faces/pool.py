"""Spread tasks over processes, each of which may die without harm to the others.

concurrent.futures cannot say which task killed a process (BrokenProcessPool ends them all), hence this small one.
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
class Died:
    """A process ended in the middle of a task."""

    exit_code: int | None
    """negative: the signal that killed it (-9 often means too little memory, -11 a fault in a library)"""


def cores() -> int:
    """Count the cores that this process may use; those that torchrun starts on one machine share them."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def each(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Generator[tuple[T, R | Died], None, None]:
    """Yield each task with its result, in the order in which they finish.

    Args:
        function: what to do, in a fresh process ("spawn"): it and the tasks can be pickled.
        workers: processes at once; each takes one task at a time.

    Raises:
        Exception: what the function raised; the other processes are ended first, as on KeyboardInterrupt.
    """
    waiting, crew = deque(tasks), dict[Connection, _Worker[T]]()
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                worker = _hire(function, waiting.popleft())
                crew[worker.connection] = worker
            for connection in wait(list(crew)):
                worker = crew[connection]  # type: ignore[index]
                result, task = worker.result(), worker.task
                if waiting and not isinstance(result, Died):
                    worker.give(waiting.popleft())
                else:
                    crew.pop(worker.connection).end()
                yield task, result
    finally:
        for worker in crew.values():
            worker.end()


@dataclass
class _Worker(Generic[T]):
    """A process and the task it works on."""

    process: Any
    connection: Connection
    task: T

    def give(self, task: T) -> None:
        """Hand over the next task."""
        self.task = task
        with suppress(BrokenPipeError):  # it died since: `result` will say so
            self.connection.send(task)

    def result(self) -> Any:
        """Receive what became of the task; raises what the function raised."""
        try:
            ok, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Died(self.process.exitcode)
        if not ok:
            raise value
        return value

    def end(self) -> None:
        """End the process; what it was writing is cleaned up by it."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _hire(function: Callable[[T], R], task: T) -> _Worker[T]:
    """Start a process with its first task."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    worker = _Worker(process, ours, task)
    worker.give(task)
    return worker


def _serve(function: Callable[[T], R], connection: Connection) -> None:
    """Work until the other end closes."""
    # The parent decides: on its word (SIGTERM) unwind, so that temporary files go; Ctrl-C is the parent's alone.
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
