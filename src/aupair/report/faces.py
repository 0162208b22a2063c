"""Faces for the report: those with the highest and lowest uncertainty, and those with the most confident errors."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aupair import store
from aupair.aus import label_au
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.report.formatting import number, percent

SIDE = 96
"""Maximum side of a thumbnail, pixels."""
QUALITY = 80
SPLIT = "validation"


class _Face(NamedTuple):
    """A face of one frame, the decision on one AU, whether it is right, and further caption lines."""

    jpeg: bytes
    frame: str
    au: str
    decision: str
    right: bool
    lines: Sequence[str]


Thumbnail = Callable[[int], np.ndarray]
"""The index of a frame that has a face -> its picture, (S, S, 3) uint8 RGB."""


def thumbnails(folder: Path, frames: Frames) -> Thumbnail:
    """Return a function that reads the aligned face of a frame from the files of preprocess-faces.

    Raises:
        ArtifactError: when that function is called, if a file is missing or corrupt.
    """
    import cv2

    slices = frames.slices()
    table_of = cache(store.read_faces)

    def read(row: int) -> np.ndarray:
        video = int(frames.video[row])
        path = Path(folder) / f"{frames.videos[video]}.arrow"
        image = store.decode_jpeg(table_of(path)["jpeg"][row - slices[video].start].as_py(), where=path)
        if len(image) > SIDE:
            image = np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        return image

    return read


def montages(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail) -> dict[str, list[_Face]]:
    """Return the faces with the highest and lowest sigma, the least confident decision and the most confident error.

    There is one for each AU: a frame of validation with a label of the AU, in different videos as far as possible.
    """
    sigma, confidence = evaluation.outputs.sigma, evaluation.confidence
    usable = _usable_cells(frames)
    wrong = usable & (evaluation.decisions != (frames.labels >= 1))
    groups = {
        "highest_sigma": (sigma, usable),
        "lowest_sigma": (-sigma, usable),
        "least_confident": (-confidence, usable),
        "confident_errors": (confidence, wrong),
    }
    return {
        name: [_face(evaluation, frames, thumbnail, row, au) for row, au in _pick(score, allowed, frames.video)]
        for name, (score, allowed) in groups.items()
    }


def _usable_cells(frames: Frames) -> np.ndarray:
    """Return which AUs are labelled in the frames of validation that have a face, (N, A) bool."""
    return (frames.ok & frames.of_split(SPLIT))[:, None] & frames.labelled


def _pick(score: np.ndarray, allowed: np.ndarray, video: np.ndarray) -> list[tuple[int, int]]:
    """Return (row, AU) of each AU's highest score, in a video that is not used yet if possible.

    Args:
        score: (N, A) float.
        allowed: (N, A) bool; an AU without any is left out.
        video: (N,) int.
    """
    cells: list[tuple[int, int]] = []
    used: set[int] = set()
    for au in range(score.shape[1]):
        rows = np.flatnonzero(allowed[:, au] & np.isfinite(score[:, au]))
        rows = rows[np.argsort(-score[rows, au], kind="stable")]
        if len(rows):
            row = next((int(row) for row in rows if int(video[row]) not in used), int(rows[0]))
            used.add(int(video[row]))
            cells.append((row, au))
    return cells


def _face(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail, row: int, au: int) -> _Face:
    """Return a face with the decision, the truth, the confidence and sigma."""
    sigma = evaluation.outputs.sigma
    level, active = int(frames.labels[row, au]), bool(evaluation.decisions[row, au])
    rank = float((sigma[_usable_cells(frames)[:, au], au] < sigma[row, au]).mean())
    return _Face(
        jpeg=store.encode_jpeg(thumbnail(row), QUALITY),
        frame=f"{frames.videos[frames.video[row]]}, frame {frames.frame[row]}, {frames.time[row]:.1f} s",
        au=label_au(frames.aus[au]),
        decision=f"decided {'active' if active else 'not active'}",
        right=active == (level >= 1),
        lines=(
            f"truth: {'active' if level else 'not active'}" + (f", level {level}" if level > 1 else ""),
            f"confidence {number(float(evaluation.confidence[row, au]), 2)}",
            f"sigma {number(float(sigma[row, au]), 2)}, above {percent(rank)}",
        ),
    )
