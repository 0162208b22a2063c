"""Timelines of a video: y_hat with its uncertainty and its smoothed value, above strips such as the decisions.

The report draws them for videos of validation, and `aupair predict` for each video.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from aupair.aus import NOT_ANNOTATED, label_au
from aupair.evaluation.selection import uses_uncertainty
from aupair.report.figures import BLUE, GREEN, INK, ORANGE, PURPLE, RED, STYLE, Drawing

if TYPE_CHECKING:
    from aupair.data.frames import Frames
    from aupair.evaluation.evaluate import Evaluation

SECONDS = 20.0
"""Maximum length of the part of a video that the report shows, seconds."""
UNSURE = 0.2
"""The share of all decisions on validation that the report marks as unsure."""
FACES = 10
"""The number of faces above a timeline."""
FACE_HEIGHT = 1.1
"""Height of the faces above a timeline, inches."""
POINTS = 2000
"""Maximum number of points; a longer video is drawn in bins of equal size, with their mean, minimum and maximum."""
STRIP = 0.11
"""Height of a strip below the curve, as a share of the curve's height."""
UNKNOWN = "#d9d9d9"
"""The colour of frames without a face and of those without annotation."""

Strips = Mapping[str, Sequence[tuple[np.ndarray, str]]]


@dataclass(frozen=True)
class Series:
    """The data of a timeline: n frames of one video, or n bins of frames.

    Attributes:
        aus: the names of the A AUs.
        time: (n,) float64, seconds, ascending.
        y_hat, sigma: (n, A) float, NaN without a face.
        no_face: (n,) bool, or the share of a bin's frames.
        strips: by name the masks (n, A) bool, or the shares of a bin's frames, and their colours.
        extremes: the minimum and the maximum y_hat of each bin, (n, A) each.
        smoothed: the smoothed y_hat, (n, A) float, NaN where it is not drawn; None for a model without a smoother.
    """

    aus: tuple[str, ...]
    time: np.ndarray
    y_hat: np.ndarray
    sigma: np.ndarray
    no_face: np.ndarray
    strips: Strips
    extremes: tuple[np.ndarray, np.ndarray] | None = None
    smoothed: np.ndarray | None = None

    def binned(self) -> "Series":
        """Return the series in at most POINTS bins of equal size."""
        size = -(-len(self.time) // POINTS)
        if size <= 1:
            return self
        return Series(
            aus=self.aus,
            time=self.time[::size],
            y_hat=_bin_means(self.y_hat, size),
            sigma=_bin_means(self.sigma, size),
            no_face=_bin_means(self.no_face[:, None], size)[:, 0],
            strips={
                name: [(_bin_means(mask, size), colour) for mask, colour in layers]
                for name, layers in self.strips.items()
            },
            extremes=(_in_bins(self.y_hat, size, np.fmin), _in_bins(self.y_hat, size, np.fmax)),
            smoothed=None if self.smoothed is None else _bin_means(self.smoothed, size),
        )


def _bin_means(values: np.ndarray, size: int) -> np.ndarray:
    """Return the means of bins of `size` frames, (n, A) -> (bins, A) float64; a bin without any number stays NaN."""
    totals = _in_bins(np.nan_to_num(values.astype(np.float64)), size, np.add)
    counts = _in_bins(np.isfinite(values).astype(np.float64), size, np.add)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _in_bins(values: np.ndarray, size: int, reduce: np.ufunc) -> np.ndarray:
    """Reduce (n, A) by bins of `size` frames; the last one may be shorter."""
    return np.asarray(reduce.reduceat(values, np.arange(0, len(values), size), axis=0))


def _runs(values: np.ndarray, time: np.ndarray) -> list[tuple[float, float, float]]:
    """Return start and duration in seconds of each run of equal, non-zero values, and its value.

    A run lasts until the time of the next frame; the last frame lasts as long as the usual step.

    Args:
        values: (n,) bool or float.
        time: (n,) float64, seconds, ascending.
    """
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1), len(values)]
    ends = np.append(time, time[-1:] + _step(time))
    pairs = pairwise(edges)
    return [(float(ends[a]), float(ends[b] - ends[a]), float(values[a])) for a, b in pairs if b > a and values[a] > 0]


@mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 8})
def draw_timeline(
    series: Series,
    title: str,
    panels: Sequence[int] | None = None,
    columns: int = 1,
    faces: Sequence[np.ndarray] = (),
) -> Drawing:
    """Draw one panel for each AU, and faces above them.

    Args:
        panels: indices of the AUs to draw; None: all.
        columns: panels side by side; the AUs go down the first column, then down the next.
        faces: images (S, S, 3) uint8 RGB, equally spaced in time.
    """
    panels = range(len(series.aus)) if panels is None else panels
    columns = min(columns, len(panels))
    series, rows, above = series.binned(), -(-len(panels) // columns), int(len(faces) > 0)
    panel = max(0.8 + 0.11 * len(series.strips), 1.6 / rows)  # the label of the y axis needs 1.6 inches
    short = 0.35 if len(panels) % columns else 0.0  # a short last column has its own label of the x axis
    size = (9.0 if columns == 1 else 6.5 * columns, rows * panel + above * FACE_HEIGHT + short + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(above + rows, columns, height_ratios=[FACE_HEIGHT] * above + [panel] * rows)
    low, high = _range(series)
    axes: list[Axes] = []
    for k, au in enumerate(panels):
        shared = axes[0] if axes else None
        axes.append(figure.add_subplot(grid[above + k % rows, k // rows], sharex=shared, sharey=shared))
        _draw_au(axes[-1], series, au, low, high)
        last = k % rows == rows - 1 or k == len(panels) - 1
        axes[-1].tick_params(axis="x", labelbottom=last, length=3 if last else 0)
        axes[-1].set_xlabel("time in the video (s)" if last else "")
    if above:
        axis = figure.add_subplot(grid[0, :])
        axis.imshow(np.hstack(faces), extent=(0, len(faces), 0, 1), interpolation="antialiased")
        axis.set_axis_off()
    figure.supylabel("y_hat (standardised)", fontsize=8)
    _legend(figure, series)
    names = ", ".join(series.aus[au] for au in panels)
    smoothed = ", the smoothed y_hat" if series.smoothed is not None else ""
    return Drawing(figure, title, f"y_hat and sigma{smoothed} over time, {', '.join(series.strips)} of {names}")


def _draw_au(axis: Axes, series: Series, au: int, low: float, high: float) -> None:
    """Draw the curve of an AU, clipped to the axis limits low and high, and below it a strip for each of `series.strips`."""
    time, height = series.time, STRIP * (high - low)
    y, s = series.y_hat[:, au], series.sigma[:, au]
    floor = low - (0.4 + 1.5 * len(series.strips)) * height
    _draw_runs(axis, series.no_face, time, (floor, high - floor), UNKNOWN)
    if series.extremes:
        lowest, highest = (np.clip(values[:, au], low, high) for values in series.extremes)
        axis.fill_between(time, lowest, highest, color=BLUE, alpha=0.12, linewidth=0)
    axis.fill_between(time, np.clip(y - s, low, high), np.clip(y + s, low, high), color=BLUE, alpha=0.25, linewidth=0)
    axis.plot(time, y, color=BLUE, linewidth=1.3 if series.smoothed is None else 1.0)
    if series.smoothed is not None:
        axis.plot(time, np.clip(series.smoothed[:, au], low, high), color=GREEN, linewidth=1.7)
    ticks = {
        float(tick): f"{tick:g}" for tick in MaxNLocator(4, integer=True).tick_values(low, high) if low <= tick <= high
    }
    for k, (name, layers) in enumerate(series.strips.items(), 1):
        bottom = low - 1.5 * k * height
        for mask, colour in layers:
            _draw_runs(axis, mask[:, au], time, (bottom, height), colour)
        ticks[bottom + height / 2] = name
    axis.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axis.tick_params(axis="y", length=0)
    axis.set_title(label_au(series.aus[au]), pad=2, fontweight="bold")
    start, end = (time[0], time[-1] + _step(time)) if len(time) else (0.0, 1.0)
    axis.set(xlim=(start, end), ylim=(floor, high))
    axis.grid(axis="x", visible=False)


def _draw_runs(axis: Axes, values: np.ndarray, time: np.ndarray, span: tuple[float, float], colour: str) -> None:
    """Draw bars where values, (n,) in 0..1, are above 0, with the value as opacity; span: lower edge and height."""
    bars = _runs(values, time)
    faces = [to_rgba(colour, value) for _, _, value in bars]
    axis.broken_barh([bar[:2] for bar in bars], span, facecolors=faces, linewidth=0, zorder=1)


def _legend(figure: Figure, series: Series) -> None:
    """Draw one legend for all panels of the figure."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=BLUE, label="y_hat"),
        Patch(color=BLUE, alpha=0.25, label="y_hat ± sigma"),
    ]
    if series.smoothed is not None:
        handles.append(Line2D([], [], color=GREEN, linewidth=1.7, label="smoothed y_hat"))
    if series.extremes:
        handles.append(Patch(color=BLUE, alpha=0.12, label="lowest to highest y_hat"))
    layers = [layer for strip in series.strips.values() for layer in strip]
    unlabelled = any(colour == UNKNOWN and mask.any() for mask, colour in layers)
    if unknown := ["no face"] * bool(series.no_face.any()) + ["no label"] * unlabelled:
        handles.append(Patch(color=UNKNOWN, label=" or ".join(unknown)))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _range(series: Series) -> tuple[float, float]:
    """Return the y limits, which include all of y_hat, and its band of sigma except for rare extremes."""
    y_hat, sigma = series.y_hat, series.sigma
    known = np.isfinite(y_hat)
    if not known.any():
        return -1.0, 1.0
    low = min(y_hat[known].min(), np.percentile((y_hat - sigma)[known], 10))
    high = max(y_hat[known].max(), np.percentile((y_hat + sigma)[known], 90))
    room = max(0.05 * (high - low), 1e-3)
    return float(low - room), float(high + room)


def _step(time: np.ndarray) -> float:
    """Return the median time between two frames, seconds."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.04


def videos_to_show(frames: "Frames", count: int = 2, split: str = "validation") -> list[int]:
    """Return the videos of a split with the most AUs that are sometimes active, then with the most active cells.

    They show different people as far as possible.
    """
    activity: dict[int, tuple[int, int]] = {}
    usable, slices = frames.of_split(split) & frames.usable, frames.slices()
    for video, rows in enumerate(slices):
        labels = frames.labels[rows][usable[rows]]
        active, inactive = labels >= 1, labels == 0
        if len(labels):
            activity[video] = int((active.any(0) & inactive.any(0)).sum()), int(active.sum())
    person = {video: int(frames.subject[slices[video].start]) for video in activity}
    shown: list[int] = []
    while activity and len(shown) < count:
        people = {person[video] for video in shown}
        others = [video for video in activity if person[video] not in people]
        shown.append(max(others or activity, key=lambda video: activity[video]))
        del activity[shown[-1]]
    return shown


def label_changes(labels: np.ndarray) -> np.ndarray:
    """Return whether a label changes between two consecutive labelled frames: (n - 1, A) bool, from labels (n, A)."""
    active, labelled = labels >= 1, labels != NOT_ANNOTATED
    return (active[1:] != active[:-1]) & labelled[1:] & labelled[:-1]


def stretch(frames: "Frames", rows: slice) -> slice:
    """Return the rows of the SECONDS of a video with the most changes of labels, or all rows of a shorter video."""
    time = frames.time[rows]
    if not len(time) or time[-1] - time[0] <= SECONDS:
        return rows
    changes = np.concatenate([[0], np.cumsum(label_changes(frames.labels[rows]).sum(1))])
    ends = np.searchsorted(time, time + SECONDS, "right") - 1
    start = int(np.argmax(changes[ends] - changes))
    return slice(rows.start + start, rows.start + int(ends[start]) + 1)


def validation_series(evaluation: "Evaluation", frames: "Frames", rows: slice) -> Series:
    """Return the series of a part of a validation video, with strips for truth, decisions, errors and low confidence."""
    usable = frames.usable & frames.of_split("validation")
    known = evaluation.confidence[usable]
    limit = np.nanquantile(known, UNSURE) if np.isfinite(known).any() else 0.0
    labels, decided = frames.labels[rows], evaluation.decisions[rows]
    smoothed = evaluation.outputs.smoothed.get(evaluation.outputs.with_route)
    if smoothed is not None:
        uses = np.array([uses_uncertainty(evaluation.selection[au]) for au in frames.aus])
        smoothed = np.where(uses, smoothed[rows], np.nan)  # the other AUs are decided without smoothing
    return Series(
        aus=frames.aus,
        time=frames.time[rows],
        y_hat=evaluation.outputs.y_hat[rows],
        sigma=evaluation.outputs.sigma[rows],
        no_face=~frames.ok[rows],
        strips={
            "truth": [(labels >= 1, ORANGE), (labels < 0, UNKNOWN)],
            "decided": [(decided, INK)],
            "wrong": [((labels >= 0) & (decided != (labels >= 1)), RED)],
            "unsure": [(frames.ok[rows, None] & (evaluation.confidence[rows] < limit), PURPLE)],
        },
        smoothed=smoothed,
    )


def nearest_to_even(time: np.ndarray, ok: np.ndarray) -> list[int]:
    """Return the frames with a face that are nearest to FACES equally spaced times; an empty list if there are none.

    Args:
        time: (n,) float64, seconds, ascending.
        ok: (n,) bool, whether there is a face.
    """
    candidates = np.flatnonzero(ok)
    if not len(candidates):
        return []
    moments = time[0] + (np.arange(FACES) + 0.5) / FACES * (time[-1] - time[0])
    return [int(k) for k in candidates[np.abs(time[candidates][None] - moments[:, None]).argmin(1)]]
