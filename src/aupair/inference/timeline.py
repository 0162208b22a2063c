"""The timeline of a video that `aupair predict` writes beside its table."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aupair.inference.predictions import VideoPredictions

if TYPE_CHECKING:
    from aupair.report.timelines import Series


def save_timeline(path: Path, result: VideoPredictions, title: str, limits: np.ndarray | None = None) -> None:
    """Write a PNG with a panel for each AU: y_hat with its sigma, where it is active, and where it is abstained.

    Args:
        limits: decisions of a lower confidence are marked as abstained; see `Predictions.abstained`.
    """
    from aupair.report.timelines import draw_timeline

    title = f"{title}: {len(result.frame)} frames, {result.faces} with a face"
    draw_timeline(prediction_series(result, limits), title, columns=2).save_png(path)


def prediction_series(result: VideoPredictions, limits: np.ndarray | None = None) -> "Series":
    """Return what is drawn of a video's predictions; see `save_timeline`."""
    from aupair.report.figures import ORANGE, PURPLE
    from aupair.report.timelines import Series

    predictions = result.predictions
    strips = {"active": [(predictions.decision == 1, ORANGE)]}
    if limits is not None:
        strips["abstained"] = [(predictions.abstained(limits), PURPLE)]
    no_face = np.array([status != "ok" for status in result.status], bool)
    return Series(result.time, predictions.pseudo_intensity, predictions.uncertainty, no_face, strips)
