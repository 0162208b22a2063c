"""Pieces of HTML: text, tables, pictures, sections; everything that is not a piece itself is escaped here."""

import html
import re
from collections.abc import Collection, Iterable, Sequence


def text(words: str) -> str:
    """Escape words; `code` and **strong** as in Markdown."""
    escaped = html.escape(words)
    escaped = re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", escaped)


def paragraph(words: str, css: str = "") -> str:
    """Give a paragraph; none for no words."""
    return f"<p{_of_class(css)}>{text(words)}</p>" if words else ""


def table(lines: Iterable[Sequence[str]], caption: str, strong: Collection[int] = ()) -> str:
    """Lay out lines of cells, the first being the head; it scrolls by itself where the page is narrow.

    Args:
        strong: which of the other lines stand out, from 0.
    """
    head, *rows = lines
    columns = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr{_of_class('strong' if k in strong else '')}>" + _cells(row) + "</tr>" for k, row in enumerate(rows)
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{html.escape(caption)}">'
        f"<table><caption>{text(caption)}</caption>"
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, *parts: str) -> str:
    """Give what is read on demand; paper shows it unfolded."""
    inside = "".join(parts)
    return f"<details><summary>{text(summary)}</summary>{inside}</details>" if inside else ""


def grid(parts: Iterable[str], css: str = "grid") -> str:
    """Set parts side by side, as many as the page is wide."""
    inside = "".join(parts)
    return f'<div class="{css}">{inside}</div>' if inside else ""


def _cells(row: Sequence[str]) -> str:
    """Give the cells of a line, the first being its head; an interval is not broken."""
    cells = (re.sub(r"\[.*?\]", lambda found: found[0].replace(" ", "\u00a0"), cell) for cell in row[1:])
    return f'<th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in cells)


def _of_class(css: str) -> str:
    return f' class="{css}"' if css else ""
