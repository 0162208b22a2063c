"""Folders of numbered images, one for each frame, which are written as movies to the data folder."""

import os
import re
from pathlib import Path

import numpy as np

from aupair import store
from aupair.data.image_size import MAX_PIXELS, count_pixels
from aupair.data.layout import Header, read_movie_header
from aupair.disk import raise_if_full
from aupair.errors import DataError
from aupair.importing.recordings import Media, Notes

_IMAGE = re.compile(r"(\d{1,6})\.(jpe?g|png|bmp)", re.IGNORECASE)
_QUALITY = 95
"""The quality of the JPEGs in a movie, high enough that encoding the images again changes little."""


def list_images(folder: Path) -> dict[int, Path]:
    """Return the image of each frame, counted from 0; the numbers of the images start at 0 or, without an image 0, at 1.

    Raises:
        DataError: two images have the same number.
    """
    numbers: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _IMAGE.fullmatch(path.name)
        if match and numbers.setdefault(int(match[1]), path) != path:
            raise DataError("two images for one frame", where=numbers[int(match[1])], got=path, expected="one")
    first = 0 if 0 in numbers else 1
    return {number - first: numbers[number] for number in sorted(numbers)}


def open_images(folder: Path, fps: float, notes: Notes) -> Media | None:
    """Return a folder of images as a movie of `fps` frames per second; None if it has no image."""
    images = list_images(folder)
    if not images:
        return None
    frames = max(images) + 1
    if frames > len(images):
        notes.add("folders that lack images, a black picture takes their place", f"{folder} ({frames - len(images):,})")
    return Media(folder, Header(frames, fps), "images")


def write_movie(media: Media, path: Path) -> None:
    """Write images as a movie of JPEGs (.avi); an image that is missing or cannot be read becomes a black picture.

    Raises:
        DataError: no image can be read, or they differ in size.
    """
    import cv2

    images = list_images(media.path)
    size = _size(images, media.path)
    with store.atomic(path) as temporary:
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(temporary), cv2.CAP_OPENCV_MJPEG, codec, media.header.fps, size)
        if not writer.isOpened():
            raise DataError("the movie cannot be written", where=path)
        writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _QUALITY)
        black = np.zeros((size[1], size[0], 3), np.uint8)
        for frame in range(media.header.frames):
            image = _read(images[frame]) if frame in images else None
            if image is not None and image.shape[1::-1] != size:
                writer.release()
                got, expected = "{} x {}".format(*image.shape[1::-1]), "{} x {}".format(*size)
                raise DataError("images of different sizes", where=images[frame], got=got, expected=expected)
            writer.write(black if image is None else image)
        writer.release()
        header = read_movie_header(temporary)
        if header is None or header.frames != media.header.frames:  # OpenCV does not report a full disk
            raise_if_full(temporary)
            raise DataError("the movie could not be written", where=path)


def _size(images: dict[int, Path], folder: Path) -> tuple[int, int]:
    """Return the width and height of the first image that can be read."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    for path in images.values():
        image = _read(path)
        if image is not None:
            return image.shape[1], image.shape[0]
    raise DataError("no image can be read", where=folder)


def _read(path: Path) -> np.ndarray | None:
    """Return an image as (H, W, 3) uint8 BGR; None if it cannot be read.

    Raises:
        DataError: the image has more than MAX_PIXELS.
    """
    import cv2

    data = path.read_bytes()
    if (pixels := count_pixels(data)) > MAX_PIXELS:
        got, expected = f"{pixels:,} pixels", f"at most {MAX_PIXELS:,}"
        raise DataError("the image is too large", where=path, got=got, expected=expected, todo="scale it down")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
