"""Charts of lines, bands and bars: SVG that stretches to the page's width, under HTML text that does not.

So a chart is read on a phone as on paper, and the same figures give the same bytes. Colours are names of style.css.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupair.report.page.markup import text

SIDE = 1000
"""both sides of a chart, in its own units"""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        low, high: its ends.
        ticks: where it is labelled.
        names: what the labels say; the numbers themselves if there are none.
        label: what is along it.
    """

    low: float
    high: float
    ticks: Sequence[float] = ()
    names: Sequence[str] = ()
    label: str = ""

    def place(self, values: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Give the share of the axis that lies below each value, 0..1 for those on it."""
        return (np.asarray(values, np.float64) - self.low) / (self.high - self.low)

    def labels(self) -> list[tuple[float, str]]:
        """Give place and words of each label that lies on the axis."""
        names = self.names or [f"{tick:g}" for tick in self.ticks]
        places = [float(self.place(tick)) for tick in self.ticks]
        return [(place, name) for place, name in zip(places, names) if -1e-9 <= place <= 1 + 1e-9]


def axis(values: np.ndarray | Sequence[float], label: str = "", at_most: int = 5) -> Axis:
    """Make an axis that holds all finite values, with round ticks."""
    from matplotlib.ticker import MaxNLocator

    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = [round(float(tick), 10) for tick in MaxNLocator(at_most).tick_values(low, high)]
    return Axis(min(low, ticks[0]), max(high, ticks[-1]), ticks, label=label)


class Chart:
    """A chart that is drawn into, then written down.

    Args:
        height: in CSS pixels.
    """

    def __init__(self, x: Axis, y: Axis, height: int = 220) -> None:
        self.x, self.y, self.height = x, y, height
        self._shapes: list[str] = []
        self._legend: dict[str, str] = {}

    def line(self, x: np.ndarray, y: np.ndarray, css: str, legend: str = "", dots: bool = False) -> "Chart":
        """Draw a line, interrupted where y is unknown, and dots on it."""
        px, py, known = self._at(x, y)
        for run in _runs(known):
            points = " ".join(f"{_short(a)},{_short(b)}" for a, b in zip(px[run], py[run]))
            self._shapes.append(f'<polyline class="line {css}" points="{points}"/>')
        if dots:
            self.dots(x, y, css)
        return self._told(css, legend)

    def dots(self, x: np.ndarray, y: np.ndarray, css: str, legend: str = "") -> "Chart":
        """Draw round dots, which no stretching makes oval."""
        px, py, known = self._at(x, y)
        path = "".join(f"M{_short(a)} {_short(b)}h0" for a, b in zip(px[known], py[known]))
        self._shapes.append(f'<path class="dot {css}" d="{path}"/>')
        return self._told(css, legend)

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str, legend: str = "") -> "Chart":
        """Fill between two lines."""
        px, below, known = self._at(x, low)
        _, above, _ = self._at(x, high)
        for run in _runs(known):
            there = [f"{_short(a)},{_short(b)}" for a, b in zip(px[run], above[run])]
            back = [f"{_short(a)},{_short(b)}" for a, b in zip(px[run][::-1], below[run][::-1])]
            points = " ".join(there + back)
            self._shapes.append(f'<polygon class="band {css}" points="{points}"/>')
        return self._told(css, legend)

    def bar(
        self, x: tuple[float, float], y: tuple[float, float], css: str, legend: str = "", title: str = ""
    ) -> "Chart":
        """Fill a rectangle from x[0] to x[1] and from y[0] to y[1]."""
        (left, right), (top, bottom) = sorted(SIDE * self.x.place(x)), sorted(SIDE * (1 - self.y.place(y)))
        said = f"<title>{html.escape(title)}</title>" if title else ""
        self._shapes.append(
            f'<rect class="bar {css}" x="{_short(left)}" y="{_short(top)}" width="{_short(right - left)}" '
            f'height="{_short(bottom - top)}">{said}</rect>'
        )
        return self._told(css, legend)

    def html(self, title: str) -> str:
        """Write it down; title: what the picture shows, for those who cannot see it."""
        lines = [f'<path class="grid-line" d="M0 {_short(SIDE * (1 - p))}H{SIDE}"/>' for p, _ in self.y.labels()]
        lines += [f'<path class="grid-line" d="M{_short(SIDE * p)} 0V{SIDE}"/>' for p, _ in self.x.labels()]
        words = [f'<span class="y" style="bottom:{_share(p)}">{text(name)}</span>' for p, name in self.y.labels()]
        words += [f'<span class="x" style="left:{_share(p)}">{text(name)}</span>' for p, name in self.x.labels()]
        keys = "".join(f'<li><i class="{css}"></i>{text(name)}</li>' for name, css in self._legend.items())
        legend = f'<ul class="legend">{keys}</ul>' if keys else ""
        css = "plot named" if any(len(name) > 8 for name in self.y.names) else "plot"
        return (
            f'<div class="chart">{_note(self.y.label, "above")}'
            f'<div class="{css}" style="height:{self.height}px">'
            f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" aria-label="{html.escape(title)}">'
            f"{''.join(lines + self._shapes)}</svg>{''.join(words)}</div>{_note(self.x.label, 'below')}{legend}</div>"
        )

    def _told(self, css: str, legend: str) -> "Chart":
        if legend:
            self._legend.setdefault(legend, css)
        return self

    def _at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place points, those beyond the chart a little outside of it; which of them are known."""
        px, py = SIDE * self.x.place(x), SIDE * (1 - self.y.place(y))
        return px, np.clip(py, -SIDE, 2 * SIDE), np.isfinite(px) & np.isfinite(py)


def strip(spans: Sequence[tuple[float, float, str]], name: str) -> str:
    """Draw a thin bar below a chart: spans of the width, (from, to) as shares 0..1 with a colour, named at its left."""
    shapes = "".join(
        f'<rect class="bar {css}" x="{_short(SIDE * a)}" y="0" width="{_short(SIDE * (b - a))}" height="10"/>'
        for a, b, css in spans
    )
    return (
        f'<div class="strip"><span>{text(name)}</span>'
        f'<svg viewBox="0 0 {SIDE} 10" preserveAspectRatio="none" role="img" aria-label="{html.escape(name)}">'
        f"{shapes}</svg></div>"
    )


def _runs(known: np.ndarray) -> list[slice]:
    """The stretches where `known`, (n,) bool, holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _short(value: float) -> str:
    """A coordinate to a tenth, without trailing zeros."""
    return f"{value:.1f}".removesuffix(".0")


def _share(value: float) -> str:
    return f"{100 * value:.2f}%"


def _note(words: str, css: str) -> str:
    return f'<p class="{css}">{text(words)}</p>' if words else ""
