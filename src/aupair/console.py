"""How the command line shows a stage's log: bars on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from aupair.log import Log

T = TypeVar("T")
QUIET_SECONDS = 15.0


class ConsoleLog(Log):
    """Shows progress on standard error, so that standard output stays what the command is for."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Draw a bar; where there is no terminal, say how far it is every quarter of a minute."""
        if not what:
            yield from items
        elif self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=self._console, transient=True) as bar:
                task = bar.add_task(what, total=total, completed=done)
                for item in items:
                    yield item
                    bar.advance(task)
        else:
            yield from self._lines(items, total, what, done)

    def _lines(self, items: Iterable[T], total: int, what: str, done: int) -> Iterator[T]:
        last = time.monotonic()
        for count, item in enumerate(items, done):
            if time.monotonic() - last > QUIET_SECONDS:
                self.line(f"  {what}: {count} of {total}")
                last = time.monotonic()
            yield item

    def metrics(self, step: int, **values: float) -> None:
        """Print the values that a person follows."""
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.line(f"  step {step}: {shown}")


def show_lines(table: Table, text: str) -> None:
    """Print a table and lines below it on standard output."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)
    console.print(text, markup=False, soft_wrap=True)


def show_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]], note: str = "") -> None:
    """Print a table, and a note below it, on standard output; as wide as it needs where that is no terminal."""
    table = Table(*header, title=title, title_justify="left", caption=note or None, caption_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
