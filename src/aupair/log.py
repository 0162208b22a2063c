"""How a stage tells its caller how far it is: silent here, a progress bar in `cli.py`, MLflow elsewhere."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Log:
    """The silent log. A caller overrides what it wants to hear."""

    def line(self, text: str) -> None:
        """Say one line."""

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Pass `items` through, counting them on from `done` against `total` under the heading `what`."""
        yield from items

    def metrics(self, step: int, **values: float) -> None:
        """Report values at a step of a stage (the same that go to curves.jsonl)."""


SILENT = Log()
