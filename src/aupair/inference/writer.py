"""The writing of a video's predictions: its table, its picture, and its row of the summary."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aupair import store
from aupair.faces.decode import VideoError, describe_missing_frames
from aupair.inference.predictions import VideoPredictions
from aupair.inference.summary import Summary
from aupair.inference.timeline import save_timeline


@dataclass(frozen=True)
class VideoWriter:
    """The writing of a video's table and picture.

    Attributes:
        limits: see `BundleRecognizer.limits`; None: no decision is left out.
        note: the line below the title of the picture of a video that differs from the training videos.
    """

    limits: np.ndarray | None
    note: str

    def __call__(self, result: VideoPredictions | VideoError, video: Path, target: Path) -> Summary:
        """Write both, unless the video could not be read, and return its row of the summary."""
        if isinstance(result, VideoError):
            return Summary(str(video), result.status, 0, 0, str(result))
        table, picture = (target.with_name(f"{target.name}.{suffix}") for suffix in ("csv", "png"))
        # the table appears after the picture, so that there is no table without one
        with store.atomic(table) as complete_table:
            result.write_csv(complete_table, self.limits)
            save_timeline(picture, result, target.name, self.limits, self.note if result.differing else "")
        frames = len(result.decision)
        differs = ", ".join(f"{group} x{ratio:.2f}" for group, ratio in (result.differing or {}).items())
        cut = describe_missing_frames(video, frames - result.scores.status.count("unreadable"))
        if result.faces:
            return Summary(str(video), "ok", frames, result.faces, cut, target.name, differs)
        message = "; ".join(filter(None, ("no face in any frame", cut)))
        return Summary(str(video), "no_face", frames, 0, message, target.name)
