"""What KFP's pages show of a stage beside its artifacts: metrics, and curves as a page that needs nothing else."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 1rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100%; height: auto }}
</style></head><body>
{body}
</body></html>
"""


def show(places: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Fill what a component says to people beside its artifacts: `scores` and `curves` of training, figures of evaluate.

    Args:
        places: where the stage's artifacts are.
        given: the component's arguments.
    """
    if "curves" in given:
        rows = store.read_jsonl(trained(places) / "curves.jsonl")
        for name, value in last_values(rows).items():
            given["scores"].log_metric(name, value)
        store.write_text(Path(given["curves"].path), curves_page(rows))
    if "metrics" in given and "report" in given:
        from aupair.registry.register import headline_metrics

        for name, value in headline_metrics(store.read_json(places["metrics"])).items():
            given["metrics"].log_metric(name, value)


def trained(places: Mapping[str, Any]) -> Path:
    """Give the folder that a training stage wrote: the last of f, h, mapping that it has."""
    return Path(next(places[name] for name in ("mapping", "h", "f") if name in places))


def last_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give the last value of each curve, by its network's name where there are several."""
    from aupair.registry.runs import curve_points

    return {name: value for name, value, _ in curve_points(rows)}


def curves_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the curves of a training stage: a panel for each quantity, a line for each network."""
    return page("Curves", _image(_draw(rows), "curves"))


def page(title: str, body: str) -> str:
    """Give a page of HTML that loads nothing."""
    return PAGE.format(title=html.escape(title), body=body)


def _draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw curves as a PNG."""
    from aupair.registry.runs import curve_points

    lines: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, value, step in curve_points(rows):
        network, _, quantity = name.rpartition("/")
        lines.setdefault(quantity, {}).setdefault(network, []).append((step, value))
    figure = _figure(max(len(lines), 1))
    for axis, (quantity, networks) in zip(figure.axes, lines.items()):
        for network, points in networks.items():
            axis.plot(*zip(*points), marker="o", markersize=3, label=network or None)
        axis.set_title(quantity, loc="left", fontsize=10)
        axis.set_xlabel("step")
        if any(networks):
            axis.legend(fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def _figure(panels: int) -> "Figure":
    """Make a figure with panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * panels, 3.2), layout="constrained")
    figure.subplots(1, panels)
    return figure


def _image(png: bytes, name: str) -> str:
    """Put a picture into a page."""
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
