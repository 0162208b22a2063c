"""Faces for the page: thumbnails of stored ones, and those the model was most unsure of and most wrong about."""

import base64
import html
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from aupair import store
from aupair.aus import AUS, NAMES
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.report.formatting import number, percent
from aupair.report.page.markup import grid, paragraph, text

SIDE = 96
"""largest side of a thumbnail, pixels"""
QUALITY = 80
SPLIT = "validation"

Thumbnail = Callable[[int], bytes]
"""a row of the frames, one with a face -> JPEG"""


def thumbnails(folder: Path, frames: Frames) -> Thumbnail:
    """Give what makes a thumbnail of a frame's aligned face, from the files that preprocess-faces wrote.

    Raises:
        ArtifactError: when asked, if a file is missing or corrupt.
    """
    import cv2

    slices = frames.slices()
    table_of = cache(store.read_faces)

    def make(row: int) -> bytes:
        video = int(frames.video[row])
        path = Path(folder) / f"{frames.videos[video]}.arrow"
        image = store.decode_jpeg(table_of(path)["jpeg"][row - slices[video].start].as_py(), where=path)
        if len(image) > SIDE:
            image = np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        return store.encode_jpeg(image, QUALITY)

    return make


def picture(jpeg: bytes, alt: str) -> str:
    """Put a JPEG into the page itself."""
    data = base64.b64encode(jpeg).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt)}">'


def montages(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail) -> str:
    """Show a face for each AU: where sigma is highest, and lowest; where a decision is least sure; where it is wrong.

    Of the annotated frames of validation with a face; each face is of another video as long as there is one.
    """
    sigma, confidence = evaluation.trial.sigma, evaluation.confidence
    judged = np.broadcast_to((frames.usable & frames.of_split(SPLIT))[:, None], sigma.shape)
    wrong = judged & (evaluation.decisions != (frames.labels >= 1))
    shown = (
        ("Most unsure: the highest sigma", "What hides, turns or blurs the face should be here.", sigma, judged),
        ("Least unsure: the lowest sigma", "The same for comparison: these should be clear.", -sigma, judged),
        ("Least confident decisions", "Close to the threshold, or sigma is high.", -confidence, judged),
        ("Most wrong: confident, and wrong", "What to look at first.", confidence, wrong),
    )
    parts = []
    for title, words, score, allowed in shown:
        faces = [_face(evaluation, frames, thumbnail, *cell) for cell in pick(score, allowed, frames.video)]
        if faces:
            parts.append(f"<h3>{text(title)}</h3>{paragraph(words)}{grid(faces, 'montage')}")
    return "".join(parts)


def pick(score: np.ndarray, allowed: np.ndarray, video: np.ndarray) -> list[tuple[int, int]]:
    """Give (row, AU) of each AU's highest score, in a video not taken yet where there is one.

    Args:
        score: (N, A) float.
        allowed: (N, A) bool; an AU without any is left out.
        video: (N,) int.
    """
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    for au in range(score.shape[1]):
        rows = np.flatnonzero(allowed[:, au] & np.isfinite(score[:, au]))
        rows = rows[np.argsort(-score[rows, au], kind="stable")]
        if len(rows):
            row = next((int(row) for row in rows if int(video[row]) not in taken), int(rows[0]))
            taken.add(int(video[row]))
            found.append((row, au))
    return found


def _face(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail, row: int, au: int) -> str:
    """One face with all that is said about it."""
    sigma = evaluation.trial.sigma
    level, active = int(frames.labels[row, au]), bool(evaluation.decisions[row, au])
    same = frames.usable & frames.of_split(SPLIT)
    rank = float((sigma[same, au] < sigma[row, au]).mean())
    truth = ("active" if level else "not active") + (f", level {level}" if level > 1 else "")
    right = active == (level >= 1)
    place = f"{frames.videos[frames.video[row]]}, frame {frames.frame[row]}, {frames.time[row]:.1f} s"
    lines = (
        f"<strong>{AUS[au]}</strong> {text(NAMES[AUS[au]])}",
        f'<span class="{"right" if right else "error"}">decided {"active" if active else "not active"}</span>',
        text(f"truth: {truth}"),
        text(f"confidence {number(float(evaluation.confidence[row, au]), 2)}"),
        text(f"sigma {number(float(sigma[row, au]), 2)}, above {percent(rank)}"),
        text(place),
    )
    caption = "<br>".join(lines)
    return f"<figure>{picture(thumbnail(row), place)}<figcaption>{caption}</figcaption></figure>"
