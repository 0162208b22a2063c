"""Self-contained HTML pages and Markdown documents, rendered from the same templates.

A template begins with `{% import macros as out %}` and builds sections, texts, tables and figures with the macros of `out`:
those of macros.html.j2 for a page, and those of macros.md.j2 for Markdown.
"""

import base64
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aupair.report.formatting import interval, number, percent

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The content security policy of a page: a browser loads nothing from outside the page."""


def html_page(content: str, title: str, heading: str, origin: Sequence[tuple[str, str]] = (), **values: Any) -> str:
    """Render a complete page with links to its sections.

    Args:
        content: the template of the page's content, such as report/report.j2.
        origin: names and values for a line below the heading, such as the commit.
        values: the variables of the template.
    """
    from markupsafe import Markup

    environment = _environment(autoescape=True)
    body = Markup(environment.get_template(content).render(values, macros="report/macros.html.j2"))
    sections = re.findall(r'<section id="(.*?)"><h2>(.*?)</h2>', body)
    page = environment.get_template("report/page.html.j2")
    return page.render(title=title, heading=heading, origin=origin, sections=sections, body=body, policy=POLICY) + "\n"


def markdown(content: str, title: str, **values: Any) -> str:
    """Render a Markdown document from the same templates, without figures and with folded parts open."""
    template = _environment(autoescape=False).get_template(content)
    text = template.render(values, macros="report/macros.md.j2")
    return f"# {title}\n\n" + re.sub(r"\n\s*\n", "\n\n", re.sub(r"(?m)^ +", "", text)).strip() + "\n"


def _environment(autoescape: bool) -> "Environment":
    """Return the Jinja environment with the package's templates and the filters that they use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aupair", ""), autoescape=autoescape, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"inline": _inline, "jpeg_address": _jpeg_address}
    environment.filters |= {"number": number, "percent": percent, "interval": interval}
    return environment


def _inline(words: str) -> "Markup":
    """Escape text for HTML, with non-breaking spaces inside intervals and numbers, and with `code` and **strong** as tags."""
    from markupsafe import Markup, escape

    text = " ".join(str(escape(words)).split())
    text = re.sub(r"\[[^\]]*\]", lambda match: match[0].replace(" ", "\u00a0"), text)
    text = re.sub(r"(?<=\d) (?=%)|(?<=\d) (?=/ \d)|(?<=\d /) (?=\d)", "\u00a0", text)
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
    return Markup(re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", text))


def _jpeg_address(jpeg: bytes) -> str:
    """Return a JPEG picture as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
