"""Numbers, shares and intervals as they are written in tables and texts."""

from collections.abc import Sequence

UNKNOWN = "–"
"""What is written for None and NaN."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text."""
    return UNKNOWN if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return UNKNOWN if value is None or value != value else f"{100 * value:.1f} %"


def interval(edges: Sequence[float | None] | None, digits: int = 3) -> str:
    """Return an interval in brackets, or nothing where there is none."""
    return "" if edges is None else f"[{number(edges[0], digits)}, {number(edges[1], digits)}]"
