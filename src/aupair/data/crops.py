"""The folder `cropped_aligned/` of faces cropped and aligned by the publishers: a folder for each video, an image for each face.

`cropped_aligned/<video>/00001.jpg` shows the first frame. The batches of a release may be in separate folders.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aupair.errors import DataError

FOLDER = "cropped_aligned"
"""The beginning of those folders' names, in any case: cropped_aligned, cropped_aligned_images ..."""

_HIDDEN = (".", "@", "__MACOSX")
"""Beginnings of the names of folders that operating systems and archive programs create beside data."""

_IMAGE = re.compile(r"(\d{1,6})\.(jpe?g|png)", re.IGNORECASE | re.ASCII)
"""The name of an image. Six digits are more than nine hours; a longer number is a date or the like."""


class Crops(NamedTuple):
    """Sizes of a video's folder: number of images, and of frames up to that of the last image."""

    images: int
    frames: int


def frame_number(name: str) -> int | None:
    """Return the 0-based frame that an image shows: names count from 1, `00001.jpg` shows frame 0, label row 0.

    The result is None for other names, and -1 for the number 0, which a folder that counts from 1 does not have.
    """
    match = _IMAGE.fullmatch(name)
    return int(match[1]) - 1 if match else None


def is_crops(path: Path) -> bool:
    """Return whether a folder contains crops, by its name or that of one above it."""
    return any(part.lower().startswith(FOLDER) for part in Path(path).absolute().parts)


def find_crops(top: Path, inside: bool = False) -> list[Path]:
    """List the videos' folders in all folders of crops below `top`, sorted, without opening an image.

    A folder of numbered images is a video's, and so is one without any folder below it (a video without a face).

    Args:
        inside: whether `top` itself is a folder of crops.
    """
    return sorted(_walk(Path(top), inside, set()))


def image_names(folder: Path) -> dict[int, str]:
    """Return the name of each frame's image; of two images for one frame the first by name.

    Raises:
        DataError: the folder cannot be read, or an image has the number 0, so that all would be off by one.
    """
    try:
        every = sorted(os.listdir(folder), reverse=True)
    except OSError as error:
        raise DataError("the folder cannot be read", where=folder, got=error.strerror or error) from error
    names = {frame: name for name in every if (frame := frame_number(name)) is not None}
    if -1 in names:
        raise DataError(
            "an image with the number 0",
            where=folder,
            expected="00001.jpg for the first frame",
            todo="rename the images of this folder, all are off by one",
        )
    return names


def count_crops(folder: Path) -> Crops | None:
    """Count a video's images by their names, see `image_names`; None where there is none."""
    names = image_names(folder)
    return Crops(len(names), max(names) + 1) if names else None


def _walk(folder: Path, inside: bool, visited: set[str]) -> Iterator[Path]:
    """Yield the videos' folders below a folder; links to folders are followed, each folder once."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    below: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if inside and frame_number(entry.name) is not None:
                yield folder
                return
            # entry.is_dir() raises for a link to itself
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            if is_folder and not entry.name.startswith(_HIDDEN):
                below.append(folder / entry.name)
    if inside and not below and not folder.name.lower().startswith(FOLDER):
        yield folder
    for path in below:
        yield from _walk(path, inside or path.name.lower().startswith(FOLDER), visited)
