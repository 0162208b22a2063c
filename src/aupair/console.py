"""The command line's output: progress bars on a terminal, regular lines elsewhere, and tables."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from aupair.log import Log

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 15.0


class ConsoleLog(Log):
    """Progress on standard error; standard output is reserved for a command's result."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def line(self, text: str) -> None:
        """Print a line of text."""
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Draw a progress bar, or print a line every 15 seconds if there is no terminal; print nothing if `what` is empty."""
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
            yield from self._progress_lines(items, total, what, done)

    def _progress_lines(self, items: Iterable[T], total: int, what: str, done: int) -> Iterator[T]:
        start = last = time.monotonic()
        for count, item in enumerate(items, done):
            now = time.monotonic()
            if now - last > _SECONDS_BETWEEN_LINES:
                seconds = (now - start) / max(count - done, 1) * (total - count)
                remaining = f", about {_describe_seconds(seconds)} left" if count > done else ""
                self.line(f"  {what}: {count} of {total}{remaining}")
                last = now
            yield item

    def metrics(self, step: int, **values: float) -> None:
        """Print the values of a step."""
        text = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.line(f"  step {step}: {text}")


def _describe_seconds(seconds: float) -> str:
    """Return a duration as text in seconds, minutes or hours."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_lines(table: Table, text: str) -> None:
    """Print a table, and lines of text below it, on standard output."""
    console = _stdout()
    console.print(table)
    console.print(text, markup=False, soft_wrap=True)


def show_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]], note: str = "") -> None:
    """Print a table, and a note below it, on standard output."""
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")  # in a narrow terminal nothing is left out
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # a user's text may look like markup
    _stdout().print(table)


def _stdout() -> Console:
    """Return standard output as a console; if it is not a terminal, it is wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
