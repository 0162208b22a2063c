"""Alignment of the faces of one video or folder of crops, with one frame in memory at a time."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aupair import store
from aupair.data.layout import Side
from aupair.faces.align import align_image, face_transform, procrustes_residual
from aupair.faces.crops import iter_crops
from aupair.faces.decode import Frame, read_frames
from aupair.faces.row import FaceRow
from aupair.faces.tracking import Models, TrackedFace, Tracker, load_models
from aupair.params import PreprocessFaces

BATCH = 256
"""Number of rows that are written at once."""


def iter_faces(source: Path, params: PreprocessFaces, side: Side = "", frames: int = 0) -> Iterator[FaceRow]:
    """Yield a row for every frame of a video.

    Args:
        source: a movie, or a folder of crops.
        side: the half of the image that shows the person, if the movie shows two persons.
        frames: minimum number of rows for a folder of crops, whose last frames may have no face and so no image.

    Raises:
        VideoError: the video cannot be opened or has no frame (before any row).
        ArtifactError: a model is not installed.
    """
    if source.is_dir():
        yield from iter_crops(source, params.size, frames)
        return
    tracker = Tracker(_models(), params, side)
    for frame in read_frames(source):
        yield _align_frame(frame, None if frame.image is None else tracker(frame.image), params)


def align_video(source: Path, params: PreprocessFaces, side: Side = "", frames: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the columns of store.FACES_SCHEMA, BATCH rows at a time; arguments and errors are those of `iter_faces`."""
    rows = iter_faces(source, params, side, frames)
    for first in rows:  # the batch has no name, so that its images are freed before the next batch is read
        yield face_columns([first, *islice(rows, BATCH - 1)], params.quality)


def face_columns(rows: Sequence[FaceRow], quality: int) -> dict[str, Any]:
    """Return the columns of store.FACES_SCHEMA for some rows, with the faces as JPEG of the given quality."""
    return {
        "frame": [row.frame for row in rows],
        "time": [row.time for row in rows],
        "status": [row.status for row in rows],
        "jpeg": [b"" if row.image is None else store.encode_jpeg(row.image, quality) for row in rows],
        "landmarks": _fixed_size_lists([row.landmarks for row in rows], 136),
        "transform": _fixed_size_lists([row.transform for row in rows], 6),
        "detector_score": [row.detector_score for row in rows],
        "tracked": [row.tracked for row in rows],
        "pass_disagreement": [row.pass_disagreement for row in rows],
        "procrustes_residual": [row.procrustes_residual for row in rows],
    }


@cache
def _models() -> Models:
    """Return the models, loaded once in each process."""
    return load_models()


def _align_frame(frame: Frame, face: TrackedFace | None, params: PreprocessFaces) -> FaceRow:
    """Return the row of a frame, with its face aligned."""
    if frame.image is None:
        return FaceRow(frame.index, frame.time, "unreadable")
    if face is None:
        return FaceRow(frame.index, frame.time, "no_face")
    transform = face_transform(face.landmarks, params.size, params.align)
    of_all_points = transform if params.align == "all" else face_transform(face.landmarks, params.size)
    return FaceRow(
        frame.index,
        frame.time,
        "ok",
        align_image(frame.image, transform, params.size),
        face.landmarks,
        transform,
        face.score,
        face.tracked,
        face.disagreement,
        procrustes_residual(face.landmarks, of_all_points, params.size),
    )


def _fixed_size_lists(arrays: Sequence[np.ndarray | None], length: int) -> pa.FixedSizeListArray:
    """Return arrays of `length` numbers as one Arrow array of float32, with NaN for None."""
    missing = np.full(length, np.nan)
    flat = np.array([missing if array is None else array.reshape(length) for array in arrays], np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), length)
