"""Draw a training stage's curves as one HTML page for KFP's user interface."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Curves</title></head>
<body><img alt="curves" style="max-width: 100%" src="data:image/png;base64,{}"></body></html>
"""


def render_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a page with a panel for each quantity of `curves.jsonl`, and in it a line for each network."""
    from matplotlib.figure import Figure

    from aupair.registry.runs import curve_points

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, value, step in curve_points(rows):
        network, _, quantity = name.rpartition("/")
        panels.setdefault(quantity, {}).setdefault(network, []).append((step, value))
    figure = Figure(figsize=(4.2 * max(len(panels), 1), 3.2), layout="constrained")
    figure.subplots(1, max(len(panels), 1))
    for axis, (quantity, networks) in zip(figure.axes, panels.items()):
        for network, points in networks.items():
            axis.plot(*zip(*points), marker="o", markersize=3, label=network or None)
        axis.set_title(quantity, loc="left", fontsize=10)
        axis.set_xlabel("step")
        if any(networks):
            axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return _PAGE.format(base64.b64encode(picture.getvalue()).decode())
