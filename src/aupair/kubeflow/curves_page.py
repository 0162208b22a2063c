"""Draw a training stage's curves as one HTML page for KFP's user interface."""

from collections.abc import Mapping, Sequence
from typing import Any


def render_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a page with a figure for each quantity of `curves.jsonl`, and in it a line for each network."""
    from aupair.report.document import html_page
    from aupair.report.figures import training_curves

    return html_page("report/curves.j2", "aupair: curves", "Training", drawings=training_curves(rows))
