"""Figures of an evaluation, of training and of a video, as SVG in a page and as PNG files.

Every function returns a `Drawing`, which `Drawing.svg` or `Drawing.save_png` renders. Equal input results in equal bytes on
the same machine and environment.
"""

import base64
import hashlib
import html
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from aupair import store
from aupair.aus import label_au
from aupair.report.formatting import UNDEFINED, interval, number

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#aa4499", "#9a9a9a")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish."""
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLOURS
INK = "#1d1d1f"
"""The colour of text."""
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GREY, "grid.alpha": 0.3,
    "axes.axisbelow": True, "lines.linewidth": 1.6, "legend.frameon": False, "figure.facecolor": "none",
    "axes.facecolor": "none",
}  # fmt: skip
DPI = 150
"""Resolution of the PNG files, pixels per inch."""
_LONGEST_NAME = 32
"""Maximum number of characters on a line of a row's name."""
WIDE, SMALL = (4.8, 3.4), (2.7, 1.8)
"""Sizes of a single figure and of one in a grid, inches; text stays readable on a phone."""

Tree = Mapping[str, Any]

WITHOUT, WITH = "no-uncertainty", "P1"
"""The rows of metrics.json in which all AUs are decided without uncertainty, or all with it."""
BASES = {
    "confidence": ("confidence (margin and sigma)", BLUE, "-"),
    "margin": ("margin to the threshold alone", ORANGE, "--"),
    "certainty": ("certainty (sigma) alone", GREEN, "-."),
}
"""The rankings by which decisions are left out, the lowest first: description, colour and line style of each."""
QUANTITIES = {
    "train_loss": "loss on fit",
    "loss": "loss on select",
    "select_loss": "loss on select",
    "pair_accuracy": "pair accuracy on select",
    "sigma": "mean sigma on select",
}
"""The titles of training curves by their key in curves.jsonl."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its title, and a text description of its numbers for accessibility."""

    figure: Figure
    title: str
    description: str

    def svg(self) -> str:
        """Return an `<svg>` element for an HTML page; text takes the page's font and colour."""
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "aupair"}):
            self.figure.savefig(buffer, format="svg", metadata=nothing)
        text = buffer.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"| id="[\w.]+_\d+"', "", text)
        text = re.sub(r"data:image/png;base64,([^\"]*)", _png_as_jpeg, text)
        # matplotlib's ids depend on the last digits of the layout, which vary between runs, and figures of one page may have
        # equal ids; therefore they are replaced by numbers with a prefix
        label = f"{self.title}. {self.description}"
        prefix = "f" + hashlib.sha256(label.encode()).hexdigest()[:8]
        names = {name: f"{prefix}-{k}" for k, name in enumerate(dict.fromkeys(re.findall(r' id="(\w+)"', text)))}
        text = re.sub(r'( id="|href="#|url\(#)(\w+)', lambda match: match[1] + names[match[2]], text)
        text = re.sub(r"\n\s*", "\n", text).replace(INK, "currentColor")
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)

    def save_png(self, path: Path, colours: int = 0) -> None:
        """Write a PNG with the title above the figure.

        Args:
            colours: the size of the palette, for a small file; 0: full colour.
        """
        style: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 10, "fontweight": "bold", "color": INK}
        heading = self.figure.suptitle(self.title, **style, in_layout=True)
        buffer = io.BytesIO()  # when Pillow writes to a file itself, its errors lack the reason, such as a full disk
        self.figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        if colours:
            with Image.open(buffer) as image:
                buffer = io.BytesIO()
                image.convert("RGB").quantize(colours).save(buffer, format="png", optimize=True)
        with store.atomic(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        heading.set(text="", in_layout=False)  # removed again, since a page shows the title outside the figure


def _png_as_jpeg(address: re.Match[str]) -> str:
    """Convert the data URL of a PNG to that of a JPEG, which is much smaller."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(address[1]))) as image:
        image.convert("RGB").save(buffer, format="jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class Interval(NamedTuple):
    """A named value with an interval.

    Attributes:
        edges: both ends of the interval; NaN or None for an unknown end.
        legend: the meaning of the colour.
    """

    name: str
    value: float
    edges: Sequence[float | None] | None
    colour: str = BLUE
    legend: str = ""


@mpl.rc_context(STYLE)
def intervals(rows: Sequence[Interval], title: str, label: str, marks: Mapping[str, float]) -> Drawing:
    """Draw values with their intervals, one below the other.

    Args:
        label: the label of the axis, with the unit.
        marks: the positions of dashed vertical lines by their labels.
    """
    figure, axes = _figure((4.8, 0.9 + 0.24 * max(len(rows), 5)))
    axis = axes[0, 0]
    for place, row in enumerate(rows):
        _whisker(axis, row.edges, place, row.colour, 2.0)
        axis.plot([row.value], [place], "o", color=row.colour, markersize=5, label=row.legend or "_")
    for (text, value), style in zip(marks.items(), ("--", ":")):
        axis.axvline(value, color=INK, linewidth=1, linestyle=style, label=text)
    _name_rows(axis, [row.name for row in rows])
    _mark_undefined(axis, [place for place, row in enumerate(rows) if not np.isfinite(row.value)])
    axis.set_xlabel(label, loc="right")
    axis.locator_params(axis="x", nbins=5)
    _legend(figure, axis, 2)
    described = (f"{row.name} {number(row.value)} {interval(row.edges)}".strip() for row in rows)
    return Drawing(figure, title, "; ".join(described))


@mpl.rc_context(STYLE)
def au_bars(rows: Mapping[str, Tree], key: str, label: str) -> Drawing:
    """Draw a metric of each AU in the rows without uncertainty, P1 and P2, with intervals if there are any.

    Args:
        rows: the rows of metrics.json of one split by name; `all-one` is drawn as a baseline if it is there.
        key: the metric in `per_au`, such as f1 or icc.
        label: the metric's name on the axis.
    """
    aus = list(rows["P2"]["per_au"])
    values = {name: np.array([row["per_au"][au].get(key) for au in aus], np.float64) for name, row in rows.items()}
    figure, axes = _figure((4.8, 0.9 + 0.375 * max(len(aus), 3)))
    axis, place = axes[0, 0], np.arange(len(aus))
    for name, text, colour, shift in ((WITHOUT, "without uncertainty", GREY, -0.2), (WITH, "P1: with it", BLUE, 0.2)):
        axis.barh(place + shift, np.nan_to_num(values[name]), 0.36, color=colour, label=text)
        for k, au in enumerate(aus):
            _whisker(axis, rows[name]["per_au"][au].get(f"{key}_interval"), k + shift, INK, 1.0)
    if "all-one" in rows:
        axis.vlines(values["all-one"], place - 0.42, place + 0.42, color=RED, linewidth=2.5, label="all one")
    side = np.where(values["P2"] == values[WITHOUT], -0.2, 0.2)  # P2 is one of the two, AU by AU
    side[values[WITHOUT] == values[WITH]] = 0.0
    known = np.isfinite(values[WITHOUT]) & np.isfinite(values[WITH])
    mark = {"marker": "D", "s": 18, "facecolor": "white", "edgecolor": INK, "linewidth": 1, "zorder": 3}
    axis.scatter(values["P2"][known], (place + side)[known], **mark, label="P2: the chosen one")
    axis.set_xlim(float(np.min([values[WITHOUT][known], values[WITH][known]], initial=0.0)), 1)
    _name_rows(axis, [label_au(au) for au in aus])
    _mark_undefined(axis, place[~known])
    axis.set_xlabel(label)
    _legend(figure, axis, 2)
    names = {"all-one": "all one", WITHOUT: "without uncertainty", WITH: "P1", "P2": "P2"}
    shown = {text: values[name] for name, text in names.items() if name in values}
    described = (", ".join(f"{text} {number(own[k])}" for text, own in shown.items()) for k in range(len(aus)))
    texts = (f"{label_au(au)}: {text}" for au, text in zip(aus, described))
    return Drawing(figure, f"{label} of each AU on validation", "; ".join(texts))


@mpl.rc_context(STYLE)
def risk_coverage(curves: Mapping[str, Tree], error: float | None, au: str = "") -> Drawing:
    """Draw the share of wrong decisions among the remaining ones, when the least confident are left out first.

    Args:
        curves: for each key of `BASES` its coverage and risk, (C,) each, 0..1.
        error: the share of wrong decisions if none is left out.
        au: the AU, for a small figure without a legend; all AUs if empty.
    """
    figure, axes = _figure(SMALL if au else WIDE)
    axis = axes[0, 0]
    described = []
    for name, curve in curves.items():
        text, colour, style = BASES.get(name, (name, INK, "-"))
        coverage, risk = (100 * np.array(curve[key], np.float64) for key in ("coverage", "risk"))
        axis.plot(coverage, risk, color=colour, linestyle=style, label=text)
        described.append(f"by {name} {np.interp(80, coverage, risk):.1f} %")
    if error is not None:
        axis.axhline(100 * error, color=GREY, linestyle=":", label="at random")
    axis.set(xlim=(0, 100), xlabel="decisions kept (%)", ylabel="wrong (%)" if au else "wrong among them (%)")
    axis.set_ylim(bottom=0)
    if not au:
        _legend(figure, axis, 2)
    title = au or "Wrong decisions when the least confident are left out (validation, P2)"
    return Drawing(figure, title, f"Wrong at 80 % kept: {', '.join(described)}")


@mpl.rc_context(STYLE)
def reliability(curves: Mapping[str, Tree], low: float, title: str, label: str) -> Drawing:
    """Draw a reliability diagram: the observed share of right cases against the claimed probability, above a histogram.

    Args:
        curves: by name claimed, observed and share, (bins,) each.
        low: the lowest probability that can be claimed: 0.5 for the order of two frames, 0 for a decision.
        label: the event whose probability is claimed, for the axis.
    """
    figure, axes = _figure((4.6, 4.6), 2, 1, sharex=True, height_ratios=(4, 1))
    axis, below = axes[:, 0]
    axis.plot([low, 1], [low, 1], color=GREY, linestyle=":", label="as claimed")
    least, markers = low, "os^"
    for k, (name, curve) in enumerate(curves.items()):
        claimed, observed, share = (np.array(curve[key], np.float64) for key in ("claimed", "observed", "share"))
        axis.plot(claimed, observed, color=COLOURS[k], marker=markers[k], markersize=4, label=name)
        below.stairs(100 * share, np.linspace(low, 1, len(share) + 1), color=COLOURS[k], linewidth=1.6)
        least = min(least, float(np.nanmin(observed, initial=1)))
    axis.set(ylabel="observed share of right cases", ylim=(max(0.0, least - 0.03), 1.02))
    below.set(xlabel=label, ylabel="cases (%)", xlim=(low, 1.005))
    _legend(figure, axis, 3)
    return Drawing(figure, title, f"Observed against {label}: {', '.join(curves)}")


def training_curves(rows: Sequence[Tree]) -> list[Drawing]:
    """Draw the rows of a curves.jsonl: a small figure for each quantity, a line for each network or route (`ROUTE.loss`).

    Rows with a `prior` are not training steps, but fits of h with different strengths of its prior; their loss is out of fold.
    """
    if rows and "prior" in rows[0]:
        points = [(float(row["prior"]), float(row["loss"])) for row in rows]
        return [_curves("pair NLL on fit, out of fold", {"": points}, "strength of the prior of h")]
    quantities: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        step, network = row.get("step", row.get("epoch", 0)), str(row.get("network", ""))
        for key, value in row.items():
            if key not in ("step", "epoch", "network") and isinstance(value, int | float):
                route, _, quantity = key.rpartition(".")
                quantities.setdefault(quantity, {}).setdefault(route or network, []).append((step, value))
    unit = "epoch" if rows and "epoch" in rows[0] else "training step"
    return [_curves(QUANTITIES.get(key, key), networks, unit) for key, networks in quantities.items()]


@mpl.rc_context(STYLE)
def _curves(title: str, networks: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> Drawing:
    """Draw one quantity of all networks."""
    figure, axes = _figure((2.9, 2.1 + 0.17 * len(networks)))
    axis = axes[0, 0]
    for k, (name, points) in enumerate(networks.items()):
        step, value = np.array(points, np.float64).T
        marker = "o" if len(step) < 30 else ""
        axis.plot(step, value, color=COLOURS[k % len(COLOURS)], marker=marker, markersize=3, label=name or "_")
    axis.set_xlabel(unit)
    axis.locator_params(nbins=5)
    _legend(figure, axis, 1)
    described = (f"{name or 'last'} {points[-1][1]:.4g}" for name, points in networks.items())
    return Drawing(figure, title, f"At the end: {'; '.join(described)}")


def _figure(
    size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, np.ndarray[Any, Any]]":
    """Create a figure of a size in inches, without pyplot's global state; return it and its axes as (rows, columns)."""
    figure = Figure(figsize=size, layout=None if size == SMALL else "constrained")
    if size == SMALL:  # one of many equal figures: fixed margins take a third of the time
        figure.subplots_adjust(left=0.19, right=0.93, bottom=0.25, top=0.96)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label each row of a figure, the first on top; a long name is wrapped in a smaller font."""
    axis.set_yticks(range(len(names)), [textwrap.fill(name, _LONGEST_NAME) for name in names])
    for text in axis.get_yticklabels():
        if "\n" in text.get_text():
            text.set(fontsize=7, linespacing=0.95)
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)


def _mark_undefined(axis: Axes, places: Iterable[int]) -> None:
    """Mark some rows of a figure as undefined."""
    style: dict[str, Any] = {"fontsize": 7, "fontstyle": "italic", "ha": "right", "va": "center", "color": INK}
    for place in places:
        axis.text(0.98, place, UNDEFINED, transform=axis.get_yaxis_transform(), **style)


def _whisker(axis: Axes, edges: Sequence[float | None] | None, place: float, colour: str, width: float) -> None:
    """Draw an interval as a horizontal line, if both of its ends are known."""
    if edges is not None and None not in edges:
        axis.plot(np.array(edges, np.float64), [place, place], color=colour, linewidth=width, solid_capstyle="butt")


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    """Draw a legend below the axes, with each label once."""
    entries = dict(zip(*reversed(axis.get_legend_handles_labels())))
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
