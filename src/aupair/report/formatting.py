"""The format of numbers, shares and intervals in tables and texts."""

from collections.abc import Sequence

UNKNOWN = "–"
"""The text for None and NaN."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text."""
    return UNKNOWN if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return UNKNOWN if value is None or value != value else f"{100 * value:.1f} %"


def interval(edges: Sequence[float | None] | None, digits: int = 3) -> str:
    """Return an interval in brackets, or an empty string if there is none."""
    return "" if edges is None else f"[{number(edges[0], digits)}, {number(edges[1], digits)}]"
