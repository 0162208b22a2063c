"""A reader of crops, the faces that the authors of a data set have aligned and that are only resized here."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aupair.data.crops import image_names
from aupair.data.image_size import choose_reduction
from aupair.data.layout import USUAL_FPS
from aupair.errors import DataError
from aupair.faces.decode import EmptyVideoError, VideoError
from aupair.faces.row import FaceRow

TAIL = 1024
"""Number of bytes at the end of an image file that must contain the end marker of its format."""


def iter_crops(folder: Path, size: int, frames: int = 0) -> Iterator[FaceRow]:
    """Yield a row for every frame up to the last image, and at least `frames` rows.

    The status of a frame without an image is no_face, that of a damaged image is unreadable. Times assume USUAL_FPS.

    Args:
        size: side of the resized faces, pixels.

    Raises:
        VideoError: the folder cannot be read, or its images do not count from 1 (before any row).
        EmptyVideoError: there is no image, and `frames` is 0.
    """
    try:
        names = image_names(folder)
    except DataError as error:
        raise VideoError(str(error)) from error
    total = max(frames, max(names, default=-1) + 1)
    if not total:
        raise EmptyVideoError("no image", where=folder, expected="00001.jpg and so on")
    for frame in range(total):
        time = frame / USUAL_FPS
        if frame not in names:
            yield FaceRow(frame, time, "no_face")
            continue
        image = _read_crop(folder / names[frame], size)
        yield FaceRow(frame, time, "unreadable" if image is None else "ok", image)


def _read_crop(path: Path, size: int) -> np.ndarray | None:
    """Return an image as (size, size, 3) uint8 RGB; None if the file is damaged or truncated, or the image too large.

    A JPEG of more than MAX_PIXELS is decoded at a half, a quarter or an eighth of its size.
    """
    import cv2

    try:
        data = path.read_bytes()
    except OSError:
        return None
    # The decoders would also reject a truncated file, but they write a message to stderr.
    if not (b"\xff\xd9" in data[-TAIL:] if data[:2] == b"\xff\xd8" else b"IEND" in data[-TAIL:]):
        return None
    reduced = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    reduction = choose_reduction(data)
    image = None if reduction is None else cv2.imdecode(np.frombuffer(data, np.uint8), reduced[reduction])
    if image is None:
        return None
    interpolation = cv2.INTER_AREA if max(image.shape[:2]) > size else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(image, (size, size), interpolation=interpolation), cv2.COLOR_BGR2RGB)
