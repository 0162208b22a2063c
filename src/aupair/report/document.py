"""A page of text, tables and figures, written as HTML that loads nothing, or as Markdown without the figures.

The report, the ablation's report and the pages of a pipeline's steps are all lists of `Section`s of these blocks.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Union

from aupair.report.tables import Table

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from aupair.report.figures import Drawing

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets a page load: nothing that is not in it."""


@dataclass(frozen=True)
class Text:
    """A paragraph with `code` and **strong** as in Markdown; style: plain, note or heading."""

    words: str
    style: str = "plain"
    kind = "text"


@dataclass(frozen=True)
class Card:
    """A number to remember: its name, its value and a few words on it."""

    name: str
    value: str
    details: Sequence[str]


@dataclass(frozen=True)
class Face:
    """A face of one frame, the decision on one AU, whether that is right, and more lines to show below."""

    jpeg: bytes
    frame: str
    au: str
    decision: str
    right: bool
    lines: Sequence[str]

    def address(self) -> str:
        """Return the picture as a data URL."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


@dataclass(frozen=True)
class Grid:
    """Drawings, cards or faces side by side; style: small, two, wide, cards or montage."""

    parts: "Sequence[Drawing | Card | Face]"
    style: str
    kind = "grid"


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens; on paper they are open."""

    summary: str
    blocks: "Sequence[Block]"
    kind = "folded"


Block = Union[Text, Table, Grid, Folded, "Drawing"]


@dataclass(frozen=True)
class Section:
    """A section of a page: a heading, which is also the text of the link to it, and the blocks below."""

    name: str
    blocks: Sequence[Block]


def html_page(title: str, heading: str, sections: Sequence[Section]) -> str:
    """Return a complete page with links to its sections; sections without blocks are left out."""
    shown = [section for section in sections if section.blocks]
    return _template().render(title=title, heading=heading, sections=shown, policy=POLICY).strip() + "\n"


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return a document of Markdown: texts and tables, folded ones too; figures are left out."""
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.name}"] if section.name else []
        parts += _markdown(section.blocks)
    return "\n\n".join(parts) + "\n"


def _markdown(blocks: Sequence[Block]) -> Iterator[str]:
    """Return texts and tables one after the other."""
    for block in blocks:
        if isinstance(block, Text):
            yield f"### {block.words}" if block.style == "heading" else block.words
        elif isinstance(block, Table):
            yield f"**{block.caption}**\n\n{block.markdown()}"
        elif isinstance(block, Folded):
            yield from _markdown(block.blocks)


@cache
def _template() -> "Template":
    """Return the template of every page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("aupair", "report")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["inline"] = _inline
    return environment.get_template("page.html.j2")


def _inline(words: str) -> "Markup":
    """Escape words for HTML, keep an interval in brackets on one line, and set `code` and **strong** as in Markdown."""
    from markupsafe import Markup, escape

    escaped = re.sub(r"\[[^\]]*\]", lambda match: match[0].replace(" ", "\u00a0"), str(escape(words)))
    escaped = re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", escaped))
