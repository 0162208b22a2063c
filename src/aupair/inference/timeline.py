"""The picture of a video's course: for each AU y_hat with a band of sigma, decisions shaded, no face grey."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aupair import store
from aupair.aus import AUS, NAMES
from aupair.inference.recognizer import VideoPredictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 2000
"""Most points that are drawn; of a longer video bins of equal size: mean, lowest and highest, and how much is shaded."""

LINE, ACTIVE, ABSTAINED, ABSENT = "#1f4e79", "#ffcf99", "#b03060", "#c4c4c4"
EXTREMES = 0.12
"""Opacity of the band from the lowest to the highest y_hat of a bin."""
STRIP = 0.06
"""Height of the strip that marks abstention, as a share of the panel."""


def draw_timeline(path: Path, result: VideoPredictions, title: str, limit: np.ndarray | None = None) -> None:
    """Draw a video's predictions as a PNG, one panel an AU.

    Args:
        limit: decisions of a lower confidence are marked as abstained; see `Predictions.unsure`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 11), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(AUS) // 2, 2, sharex=True, sharey=True)
    # down the left column, then the right one: the order of the table
    unsure = result.predictions.unsure(limit)
    absent = np.array([status != "ok" for status in result.status], bool)
    for k, panel in enumerate(axes.T.flat):
        _draw_au(panel, result, k, unsure[:, k], absent)
    low, high = _range(result)
    end = float(result.time[-1]) if len(result.time) else 0.0
    axes[0, 0].set(ylim=(low, high), xlim=(0.0, max(end, 1e-3)))
    for panel in axes[-1]:
        panel.set_xlabel("time, seconds")
    _legend(figure, limit is not None, len(result.frame) > POINTS)
    figure.suptitle(f"{title}   {len(result.frame)} frames, {result.faces} with a face", fontsize=13)
    with store.atomic(path) as temporary:
        # no software version and no date inside: equal predictions give equal bytes
        figure.savefig(temporary, format="png", metadata={"Software": None})


def spans(mask: np.ndarray, time: np.ndarray) -> Iterator[tuple[float, float]]:
    """Give (start, end) in seconds of each run of True: to the next frame's time, or one frame on at the end.

    Args:
        mask: (n,) bool.
        time: (n,) float64, seconds, ascending.
    """
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.04
    ends = np.append(time[1:], time[-1:] + step)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    for first, after in zip(edges[::2], edges[1::2]):
        yield float(time[first]), float(ends[after - 1])


def _draw_au(panel: "Axes", result: VideoPredictions, k: int, unsure: np.ndarray, absent: np.ndarray) -> None:
    """Draw one AU; unsure: (n,) bool, marked as abstained; absent: (n,) bool, no face."""
    predictions, time = result.predictions, result.time
    active = predictions.decision[:, k] == 1
    for mask, height, color in ((absent, 1.0, ABSENT), (active, 1.0, ACTIVE), (unsure, STRIP, ABSTAINED)):
        _shade(panel, mask, time, height, color)
    series = (time, predictions.pseudo_intensity[:, k], predictions.uncertainty[:, k])
    t, y_hat, sigma = (_thin(values) for values in series)
    if len(time) > POINTS:
        low, high = (_thin(series[1], reduce) for reduce in (np.fmin, np.fmax))
        panel.fill_between(t, low, high, color=LINE, alpha=EXTREMES, linewidth=0, zorder=1)
    panel.fill_between(t, y_hat - sigma, y_hat + sigma, color=LINE, alpha=0.25, linewidth=0, zorder=1)
    panel.plot(t, y_hat, color=LINE, linewidth=1.3, zorder=2)
    panel.set_title(f"{AUS[k]}  {NAMES[AUS[k]]}", loc="left", fontsize=10, pad=3)
    panel.set_ylabel("$\\hat{y}$")
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0)


def _shade(panel: "Axes", mask: np.ndarray, time: np.ndarray, height: float, color: str) -> None:
    """Shade where the mask (n,) bool is True, from below to a share of the panel's height."""
    where = panel.get_xaxis_transform()
    if len(mask) <= POINTS:
        bars = [(start, end - start) for start, end in spans(mask, time)]
        panel.broken_barh(bars, (0, height), facecolors=color, linewidth=0, transform=where, zorder=0)
        return
    from matplotlib.colors import to_rgb

    share = _thin(mask)
    cells = np.empty((1, len(share), 4))
    cells[..., :3], cells[..., 3] = to_rgb(color), share
    edges = np.append(time[:: _bin(len(time))], time[-1])
    panel.pcolormesh(edges, [0, height], cells, transform=where, zorder=0)


def _legend(figure: "Figure", abstain: bool, thinned: bool) -> None:
    """Say once what the colours mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=LINE, label="pseudo-intensity"),
        Patch(color=LINE, alpha=0.25, label="± uncertainty"),
        *([Patch(color=LINE, alpha=EXTREMES, label="lowest to highest")] if thinned else []),
        Patch(color=ACTIVE, label="active"),
        *([Patch(color=ABSTAINED, label="abstained")] if abstain else []),
        Patch(color=ABSENT, label="no face"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _range(result: VideoPredictions) -> tuple[float, float]:
    """Give the y limits: nearly all of y_hat, and of its band as much as is usual, not its rare bursts."""
    y_hat, sigma = result.predictions.pseudo_intensity, result.predictions.uncertainty
    ok = np.isfinite(y_hat)
    if not ok.any():
        return -1.0, 1.0
    low = min(np.percentile(y_hat[ok], 0.5), np.percentile((y_hat - sigma)[ok], 10))
    high = max(np.percentile(y_hat[ok], 99.5), np.percentile((y_hat + sigma)[ok], 90))
    room = 0.1 * (high - low)
    return float(low - room), float(high + room)


def _bin(n: int) -> int:
    """How many frames are drawn as one, so that at most POINTS remain."""
    return -(-n // POINTS)


def _thin(values: np.ndarray, reduce: np.ufunc | None = None) -> np.ndarray:
    """Reduce (n,) in bins of equal size, at most POINTS, by their mean or otherwise; one without any number stays NaN."""
    size = _bin(len(values))
    if size <= 1:
        return values.astype(np.float64)
    padded = np.full(-(-len(values) // size) * size, np.nan)
    padded[: len(values)] = values
    bins = padded.reshape(-1, size)
    if reduce is not None:
        return reduce.reduce(bins, axis=1)
    count = np.isfinite(bins).sum(axis=1)
    return np.where(count > 0, np.nansum(bins, axis=1) / np.maximum(count, 1), np.nan)
