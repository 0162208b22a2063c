"""Formatting of numbers, shares and intervals in tables and texts."""

from collections.abc import Sequence

EMPTY = "–"
"""The text of a cell that has no figure."""
UNDEFINED = "undefined"
"""The text for None and NaN."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text."""
    return UNDEFINED if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return UNDEFINED if value is None or value != value else f"{100 * value:.1f} %"


def interval(edges: Sequence[float | None] | None, digits: int = 3) -> str:
    """Return an interval in brackets, or an empty string if there is none or it is undefined."""
    ends = [number(edge, digits) for edge in edges or ()]
    return "" if UNDEFINED in ends or not ends else f"[{', '.join(ends)}]"
