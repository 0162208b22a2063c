"""Timelines of videos: faces along the time, y_hat with its sigma, and how truth and decisions go together."""

from itertools import pairwise

import numpy as np

from aupair.aus import AUS, NAMES
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.report.page.charts import Axis, Chart, axis, strip
from aupair.report.page.faces import Thumbnail, picture
from aupair.report.page.markup import folded, paragraph, text
from aupair.report.plots import stretch, videos_to_show

VIDEOS, OPEN, FACES = 2, 4, 10
"""videos shown, AUs of each that are not folded away, faces along the time"""
UNSURE = 0.2
"""the share of all decisions on validation that a timeline marks as unsure"""

WORDS = (
    "The line is y_hat (standardised), the band one sigma each way. Below it the truth, the decision, where the two "
    f"differ, and the least confident {100 * UNSURE:g} % of all decisions."
)

Spans = list[tuple[float, float, str]]


def timelines(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail | None) -> str:
    """Show some seconds of the videos of validation in which most can be seen, of different people if there are."""
    judged = frames.usable & frames.of_split("validation")
    known = evaluation.confidence[judged]
    unsure = evaluation.confidence < (np.nanquantile(known, UNSURE) if np.isfinite(known).any() else 0.0)
    return paragraph(WORDS) + "".join(
        _timeline(evaluation, frames, unsure, video, thumbnail) for video in videos_to_show(frames, count=VIDEOS)
    )


def _timeline(
    evaluation: Evaluation, frames: Frames, unsure: np.ndarray, video: int, thumbnail: Thumbnail | None
) -> str:
    """One video: faces, the AUs that change most, the others folded."""
    rows = stretch(frames, frames.slices()[video])
    time = frames.time[rows]
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1.0
    across = _seconds(float(time[0]), float(time[-1]) + step)
    active = frames.labels[rows] >= 1
    order = np.argsort(-(active[1:] != active[:-1]).sum(0), kind="stable")
    panels = [_panel(evaluation, frames, unsure, rows, across, au) for au in range(len(AUS))]
    shown, others = sorted(order[:OPEN]), sorted(order[OPEN:])
    faces = "" if thumbnail is None else _faces(frames, rows, across, thumbnail)
    return (
        f"<h3>{text(frames.videos[video])}</h3>"
        f'<div class="scroll" tabindex="0" role="group" aria-label="timeline"><div class="timeline">{faces}'
        + "".join(panels[au] for au in shown)
        + folded("the other AUs", *(panels[au] for au in others))
        + "</div></div>"
    )


def _seconds(start: float, end: float) -> Axis:
    """The axis of time, from the first frame to the end of the last."""
    ticks = axis([start, end], at_most=8).ticks
    return Axis(start, end, ticks, [f"{tick:g} s" for tick in ticks])


def _faces(frames: Frames, rows: slice, across: Axis, thumbnail: Thumbnail) -> str:
    """Faces at even distances, each the nearest one there is."""
    seen = rows.start + np.flatnonzero(frames.ok[rows])
    if not len(seen):
        return ""
    wanted = across.low + (np.arange(FACES) + 0.5) / FACES * (across.high - across.low)
    nearest = seen[np.abs(frames.time[seen][None] - wanted[:, None]).argmin(1)]
    when = [f"{frames.time[row]:.1f} s" for row in nearest]
    shown = (
        f"<figure>{picture(thumbnail(int(row)), f'face at {at}')}<figcaption>{at}</figcaption></figure>"
        for row, at in zip(nearest, when)
    )
    return f'<div class="faces">{"".join(shown)}</div>'


def _panel(evaluation: Evaluation, frames: Frames, unsure: np.ndarray, rows: slice, across: Axis, au: int) -> str:
    """One AU: y_hat and its sigma, then the truth, the decision, where it is wrong, and where it is unsure."""
    y, s = evaluation.trial.y_hat[rows, au], evaluation.trial.sigma[rows, au]
    time, labels, decided = frames.time[rows], frames.labels[rows, au], evaluation.decisions[rows, au]
    chart = Chart(across, axis(np.concatenate([y - s, y + s]), at_most=3), height=84)
    chart.band(time, y - s, y + s, "blue").line(time, y, "blue")
    ok, annotated = frames.ok[rows], labels >= 0
    truth = np.select([labels < 0, labels == 1, labels > 1], ["none", "orange", "orange"], "")
    strips = (
        ("truth", truth),
        ("decided", np.where(decided, "dark", "")),
        ("wrong", np.where(annotated & (decided != (labels >= 1)), "red", "")),
        ("unsure", np.where(ok & unsure[rows, au], "purple", np.where(ok, "", "none"))),
    )
    title = f"{AUS[au]} {NAMES[AUS[au]]}"
    drawn = "".join(strip(_spans(time, css, across), name) for name, css in strips)
    return f'<div class="panel"><h4>{text(title)}</h4>{chart.html(f"y_hat and sigma of {title}")}{drawn}</div>'


def _spans(time: np.ndarray, css: np.ndarray, across: Axis) -> Spans:
    """The stretches of one colour, (n,) of names, as shares of the axis; the empty name is nothing."""
    edges = [0, *(np.flatnonzero(css[1:] != css[:-1]) + 1), len(css)]
    ends = across.place(np.append(time, across.high))
    return [(float(ends[a]), float(ends[b]), str(css[a])) for a, b in pairwise(edges) if css[a]]
