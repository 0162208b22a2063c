"""Progress callbacks of a stage: silent here; `aupair.console` prints them, `aupair.registry` logs them to MLflow."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Log:
    """Progress callbacks that do nothing; subclasses override those that they show."""

    def line(self, text: str) -> None:
        """Report a line of text."""

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Yield the items, and report under the heading `what` how many of `total` are done, counted from `done`."""
        yield from items

    def metrics(self, step: int, **values: float) -> None:
        """Report values at a step, the same that are written to curves.jsonl."""


SILENT = Log()
