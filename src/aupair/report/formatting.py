"""Figures as words: numbers, shares and intervals of a text, and a table of Markdown."""

from collections.abc import Sequence

UNKNOWN = "–"
"""what is not known: None or NaN"""


def number(value: float | None, digits: int = 3) -> str:
    """Write a number."""
    return UNKNOWN if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Write a share as a percentage."""
    return UNKNOWN if value is None or value != value else f"{100 * value:.1f} %"


def interval(edges: Sequence[float | None] | None, digits: int = 3) -> str:
    """Write an interval in brackets; nothing for none."""
    return "" if edges is None else f"[{number(edges[0], digits)}, {number(edges[1], digits)}]"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Lay out lines of cells, the first being the head."""
    head, *rows = lines
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])
