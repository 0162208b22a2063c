"""Progress callbacks of a stage: silent here; `aupair.console` prints them, `aupair.registry` logs them to MLflow."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Log:
    """Progress callbacks that do nothing; a caller overrides those that it shows."""

    def line(self, text: str) -> None:
        """Report a line of text."""

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Yield the items and report how many of `total` are done, from `done` on, under the heading `what`."""
        yield from items

    def metrics(self, step: int, **values: float) -> None:
        """Report values at a step, the same that are written to curves.jsonl."""


SILENT = Log()
