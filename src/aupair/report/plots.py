"""Pictures of an evaluation, for a person: each function gives a matplotlib Figure; nothing is shown or saved here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair.aus import AUS, NAMES
from aupair.data.frames import Frames
from aupair.evaluation.selection import uses_uncertainty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY, DARK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9A9A9A", "#222222"
"""Okabe and Ito's colours: they differ for colour-blind readers too."""
SECONDS = 20.0
"""the longest stretch of a video that a timeline shows"""
WAYS = {
    "confidence": ("confidence (margin and sigma)", BLUE, "-"),
    "margin": ("margin to the threshold alone", ORANGE, "--"),
    "certainty": ("certainty (sigma) alone", GREEN, "-."),
}


def video_to_show(frames: Frames, split: str = "validation") -> int:
    """Give the video of a split with the most AUs that are both active and not, then with the most active cells."""
    return videos_to_show(frames, split, 1)[0]


def videos_to_show(frames: Frames, split: str = "validation", count: int = 2) -> list[int]:
    """Give some videos of a split with most to see, the best first; of other people as long as there are any."""
    found: dict[int, tuple[int, int]] = {}
    own = frames.of_split(split) & frames.usable
    for video, rows in enumerate(frames.slices()):
        active = frames.labels[rows][own[rows]] >= 1
        if len(active):
            found[video] = int((active.any(0) & ~active.all(0)).sum()), int(active.sum())
    shown: list[int] = []
    while found and len(shown) < count:
        people = {int(frames.subject[frames.slices()[video].start]) for video in shown}
        new = {v: key for v, key in found.items() if int(frames.subject[frames.slices()[v].start]) not in people}
        some = new or found
        shown.append(max(some, key=lambda video: some[video]))
        del found[shown[-1]]
    return shown


def timelines(
    frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, decisions: np.ndarray, video: int | None = None
) -> "Figure":
    """Show y_hat with a band of one sigma against the truth, an AU a panel.

    Args:
        y_hat, sigma: (N, A) float.
        decisions: (N, A) bool.
        video: index into `frames.videos`; by default the one of validation with most to see.
    """
    video = video_to_show(frames) if video is None else video
    rows = stretch(frames, frames.slices()[video])
    figure, axes = _figure(12, 9.5, 6, 2, sharex=True, sharey=True)
    time, labels = frames.time[rows], frames.labels[rows]
    seen = np.concatenate([(y_hat - sigma)[rows].ravel(), (y_hat + sigma)[rows].ravel()])
    low, high = np.nanquantile(seen, [0.005, 0.995]) if np.isfinite(seen).any() else (-1.0, 1.0)
    strip = 0.09 * (high - low)
    for au, axis in enumerate(axes.T.flat):
        y, s = y_hat[rows, au], sigma[rows, au]
        axis.fill_between(time, y - s, y + s, color=BLUE, alpha=0.25, linewidth=0, label="y_hat ± sigma")
        axis.plot(time, y, color=BLUE, linewidth=1.1, label="y_hat")
        _strip(axis, time, labels[:, au] >= 1, (low - strip, strip), ORANGE, "truth: active")
        _strip(axis, time, decisions[rows, au], (low - 2.2 * strip, strip), DARK, "decision: active")
        _strip(axis, time, labels[:, au] < 0, (low - strip, strip), "#DDDDDD", "not annotated")
        axis.set_title(f"{AUS[au]}  {NAMES[AUS[au]]}", loc="left", fontsize=10)
        axis.set_ylim(low - 2.4 * strip, high + 0.05 * (high - low))
        axis.margins(x=0)
        axis.locator_params(axis="y", nbins=4, integer=True)
    for axis in axes[-1]:
        axis.set_xlabel("time in the video (s)")
    figure.supylabel("y_hat (standardised)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=5, frameon=False)
    figure.suptitle(f"Pseudo-intensity in {frames.videos[video]}", x=0.01, ha="left")
    return figure


def f1_per_au(metrics: dict[str, Any], selection: dict[str, Any], split: str = "validation") -> "Figure":
    """Show each AU's F1 with and without uncertainty, what all-one gets, and which of the two was chosen."""
    rows = {row["name"]: row["per_au"] for row in metrics["rows"] if row["split"] == split}
    f1 = {name: np.array([per_au[au]["f1"] for au in AUS]) for name, per_au in rows.items()}
    figure, axes = _figure(11, 4.6)
    axis, place = axes[0, 0], np.arange(len(AUS))
    axis.bar(place - 0.2, f1["no-uncertainty"], 0.38, color=GREY, label="without uncertainty")
    axis.bar(place + 0.2, f1["P1"], 0.38, color=BLUE, label="P1: with uncertainty")
    axis.hlines(f1["all-one"], place - 0.42, place + 0.42, color=RED, linewidth=2, label="all one")
    chosen = place + np.where([uses_uncertainty(selection[au]) for au in AUS], 0.2, -0.2)
    axis.plot(chosen, f1["P2"] + 0.025, "v", color=DARK, markersize=6, label="P2: the one chosen")
    axis.set_xticks(place, AUS)
    axis.set_xlim(-0.6, len(AUS) - 0.4)
    axis.set_ylim(0, max(float(values.max()) for values in f1.values()) + 0.08)
    axis.set_ylabel("F1 of the positive class")
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    figure.suptitle(f"F1 of each AU on {split}", x=0.01, ha="left")
    return figure


def risk_coverage(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Show the share of wrong decisions among those kept, the least trusted left out first.

    Args:
        curves: for each way to trust `coverage` and `risk`, (C,) each, 0..1.
    """
    figure, axes = _figure(6.6, 4.8)
    axis = axes[0, 0]
    for name, curve in curves.items():
        text, color, style = WAYS[name]
        coverage, risk = (100 * np.array(curve[key]) for key in ("coverage", "risk"))
        axis.plot(coverage, risk, color=color, linestyle=style, linewidth=2, label=text)
    overall = 100 * next(iter(curves.values()))["risk"][-1]
    axis.axhline(overall, color=GREY, linestyle=":", linewidth=2, label="at random")
    axis.set_xlim(0, 100)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("decisions kept (% of frames and AUs)")
    axis.set_ylabel("wrong among them (%)")
    axis.set_title("Leaving out what is least trusted (validation, P2)", loc="left", pad=12)
    _legend_below(figure, 2)
    return figure


def reliability(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Show the observed share of right orders against Phi(|d|/s), with h's sigma and with the best constant.

    Args:
        curves: of `h` and `constant` claimed, observed and share, (15,) each.
    """
    figure, axes = _figure(6.2, 6.4, 2, 1, sharex=True, height_ratios=(4, 1))
    axis, below = axes[:, 0]
    axis.plot([0.5, 1], [0.5, 1], color=GREY, linestyle=":", linewidth=2, label="perfectly calibrated")
    edges = np.linspace(0.5, 1, len(curves["h"]["share"]) + 1)
    low = 0.5
    for name, text, color, marker in (("constant", "best constant sigma", ORANGE, "s"), ("h", "sigma of h", BLUE, "o")):
        claimed, observed, share = (np.array(curves[name][key]) for key in ("claimed", "observed", "share"))
        axis.plot(claimed, observed, color=color, marker=marker, markersize=5, label=text)
        below.stairs(100 * share, edges, color=color, linewidth=1.8)
        low = min(low, float(np.nanmin(observed, initial=1)))
    axis.set_ylabel("observed share of right orders")
    axis.set_ylim(max(0.0, low - 0.03), 1.01)
    below.set_ylabel("pairs (%)")
    below.set_xlabel("claimed P(order) = Phi(|d|/s)")
    below.set_xlim(0.5, 1.005)
    axis.set_title("Is P(order) what it claims? (validation pairs)", loc="left")
    _legend_below(figure, 3)
    return figure


def stretch(frames: Frames, rows: slice) -> slice:
    """Give the SECONDS of a video in which most labels change; the whole of a shorter one."""
    time = frames.time[rows]
    if not len(time) or time[-1] - time[0] <= SECONDS:
        return rows
    active = frames.labels[rows] >= 1
    changes = np.concatenate([[0], np.cumsum((active[1:] != active[:-1]).sum(1))])
    ends = np.searchsorted(time, time + SECONDS, "right") - 1
    start = int(np.argmax(changes[ends] - changes))
    return slice(rows.start + start, rows.start + int(ends[start]) + 1)


def _strip(axis: "Axes", time: np.ndarray, on: np.ndarray, span: tuple[float, float], color: str, label: str) -> None:
    """Draw the stretches where `on`, (n,) bool, as a bar; span: its lower edge and height."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    spans = [(time[a], time[b - 1] + step - time[a]) for a, b in edges.reshape(-1, 2)]
    axis.broken_barh(spans, span, facecolors=color, linewidth=0, label=label)


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, np.ndarray[Any, Any]]":
    """A figure of its own, without pyplot's global state, and its axes as (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#E5E5E5", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _legend_below(figure: "Figure", columns: int) -> None:
    """Put the legend under the axes, where it covers nothing."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
