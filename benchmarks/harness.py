"""What the benchmarks share: time two ways in turn, measure a process of its own, say what came out.

A benchmark is a file with `measure() -> list[Row]`. `python benchmarks/NAME.py` shows its rows; `make bench` runs all
and writes results.md. Ours and the reference run in the same process or in two like ones, one after the other: these
ratios are to hold on other machines, seconds are not.
"""

import argparse
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """The answer to a question.

    Attributes:
        question: what was asked, in a few words.
        ours, reference: what was measured of each, with its unit.
        ratio: how many times better ours is; None where the answer is no ratio.
        goal: what was aimed at.
        met: whether it was.
        same: how it was made sure that both do the same, and what came out.
    """

    question: str
    ours: str
    reference: str
    ratio: float | None
    goal: str
    met: bool
    same: str


@dataclass(frozen=True)
class Child:
    """What a process of its own did: its result, seconds on the clock and of the processor, peak memory in GiB."""

    result: Any
    seconds: float
    busy: float
    memory: float


def in_turn(
    ours: Callable[[], object],
    reference: Callable[[], object],
    rounds: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Time both alternately and give the shortest time of each, seconds: what else runs here only ever adds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, kept in zip((ours, reference), times):
            start = clock()
            call()
            kept.append(clock() - start)
    return min(times[0]), min(times[1])


def in_child(call: Callable[..., Any], *args: Any) -> Child:
    """Run a module's function in a fresh process, so that its memory is its own.

    Raises:
        RuntimeError: it died.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, call, args))
    process.start()
    theirs.close()
    try:
        return mine.recv()  # type: ignore[no-any-return]
    except EOFError as error:
        process.join()
        raise RuntimeError(f"{call.__name__} ended with code {process.exitcode}") from error
    finally:
        process.join()


def _report(pipe: Any, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    result = call(*args)
    seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    pipe.send(Child(result, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20))


def main(measure: Callable[[], list[Row]]) -> None:
    """Run a benchmark and show its rows; `--json PATH` keeps them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    rows = measure()
    table = Table("question", "ours", "reference", "ratio", "goal", "met", "the same?")
    for row in rows:
        table.add_row(*cells(row))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]))


def cells(row: Row) -> list[str]:
    """Give a row as texts; a ratio is cut, not rounded: one below its goal must not look met."""
    ratio = "" if row.ratio is None else f"{math.floor(100 * row.ratio) / 100:g} x"
    return [row.question, row.ours, row.reference, ratio, row.goal, "yes" if row.met else "no", row.same]
