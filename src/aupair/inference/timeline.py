"""The timeline that `aupair predict` draws for each video, and the picture of the README."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aupair.inference.predictions import VideoPredictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aupair.inference.recognizer import BundleRecognizer
    from aupair.report.timelines import Series

_PICTURE_ABSTAINS = 0.2
"""The share of decisions from which the picture of the README abstains."""

_LEFT, _RIGHT, _ROW_GAP = 0.8, 0.15, 0.2
"""Inches to the left of a panel, for the names of its strips; to its right, for the last time; and between two rows."""

_ONE_COLUMN = 4
"""The maximum number of AUs that are drawn in one column."""


def save_timeline(
    path: Path, result: VideoPredictions, title: str, limits: np.ndarray | None = None, note: str = ""
) -> None:
    """Write a PNG with a panel for each AU: y_hat with sigma and its smoothed value, active frames, and abstentions.

    Args:
        limits: decisions with a lower confidence are marked as abstained; see `VideoPredictions.abstained`.
        note: a line below the title.
    """
    from aupair.report.timelines import draw_timeline

    title = f"{title}: {len(result.decision)} frames, {result.faces} with a face"
    title = f"{title}\n{note}" if note else title
    columns = 1 if len(result.aus) <= _ONE_COLUMN else 2
    drawing = draw_timeline(_prediction_series(result, limits), title, columns=columns)
    _place_panels(drawing.figure, -(-len(result.aus) // columns), columns, title_lines=title.count("\n") + 1)
    drawing.save_png(path)


def _place_panels(figure: "Figure", rows: int, columns: int, title_lines: int) -> None:
    """Place the panels at fixed distances, which are the same for any video.

    matplotlib's constrained layout finds nearly the same distances, but takes a third of the time of a picture.
    """
    figure.set_layout_engine(None)
    width, height = (float(inches) for inches in figure.get_size_inches())
    top, bottom = 0.02 * height + 0.11 + 0.2 * title_lines, 0.7  # matplotlib has the title 2 % below the upper edge
    panel = (height - top - bottom - _ROW_GAP * (rows - 1)) / rows
    column = (width - _LEFT - _RIGHT - _LEFT * (columns - 1)) / columns
    figure.subplots_adjust(
        left=_LEFT / width, right=1 - _RIGHT / width, top=1 - top / height, bottom=bottom / height,
        hspace=_ROW_GAP / panel, wspace=_LEFT / column,
    )  # fmt: skip
    figure.supylabel(figure.get_supylabel(), x=0.05 / width, fontsize=8)


def save_prediction_picture(
    path: Path, recognizer: "BundleRecognizer", video: Path, title: str, aus: Sequence[str] = ()
) -> None:
    """Predict a short video and write its timeline with faces above it, as in docs/prediction.png.

    All faces of the video are held in memory. The picture has 256 colours, so that the file is small.

    Args:
        aus: the AUs to draw, in this order; empty: all that the recognizer predicts.
    """
    from aupair.faces.video import iter_faces
    from aupair.report.timelines import draw_timeline, nearest_to_even

    rows = list(iter_faces(video, recognizer.params.preprocess_faces))
    result = recognizer.decide_video(recognizer.score_rows(rows))
    images = [row.image for row in rows]
    shown = nearest_to_even(result.scores.time, np.array([image is not None for image in images]))
    faces = [image for image in (images[k] for k in shown) if image is not None]
    series = _prediction_series(result, recognizer.limits(_PICTURE_ABSTAINS))
    panels = [recognizer.aus.index(au) for au in aus or recognizer.aus]
    draw_timeline(series, title, panels, faces=faces).save_png(path, colours=256)


def _prediction_series(result: VideoPredictions, limits: np.ndarray | None = None) -> "Series":
    """Return the curves and strips of a video's predictions."""
    from aupair.report.figures import ORANGE, PURPLE
    from aupair.report.timelines import Series

    scores = result.scores
    strips = {"active": [(result.decision == 1, ORANGE)]}
    if limits is not None:
        strips["abstained"] = [(result.abstained(limits), PURPLE)]
    no_face = np.array([status != "ok" for status in scores.status], bool)
    smoothed = None if result.smoothed is None else result.smoothed[0]
    return Series(result.aus, scores.time, scores.y_hat, scores.sigma, no_face, strips, smoothed=smoothed)
