"""The quality signals of every frame, measured by preprocess-faces; they indicate where the output of f may be wrong."""

from pathlib import Path

import numpy as np

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError

QUALITY_SIGNALS = ("pass_disagreement", "detector_score", "procrustes_residual")
"""The columns of the face files that contain the signals; see `store.FACES_SCHEMA`."""


def load_quality(faces: Path, frames: Frames) -> np.ndarray:
    """Load the quality signals of every frame.

    Args:
        faces: the folder with a face file for each video.

    Returns:
        (N, 3) float32, in the order of QUALITY_SIGNALS; NaN if the frame has no face, or comes from a crop.

    Raises:
        ArtifactError: a file is missing or corrupt, or its number of frames differs from that of `frames`.
    """
    quality = np.empty((len(frames), len(QUALITY_SIGNALS)), np.float32)
    for video, rows in zip(frames.videos, frames.slices()):
        path = Path(faces) / f"{video}.arrow"
        table = store.read_faces(path)
        if len(table) != rows.stop - rows.start:
            got, expected = f"{len(table)} frames", f"{rows.stop - rows.start}, as the labels were joined with"
            raise ArtifactError(
                "faces of other frames", where=path, got=got, expected=expected, todo="run the flow again"
            )
        for k, name in enumerate(QUALITY_SIGNALS):
            quality[rows, k] = table[name].to_numpy()
    quality[~frames.ok] = np.nan
    return quality
