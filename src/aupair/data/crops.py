"""Crops: faces that the authors of a data set have cropped and aligned, in a folder for each video.

The image of the first frame is `cropped_aligned/<video>/00001.jpg`. The batches of a release may be in separate folders.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aupair.errors import DataError

FOLDER = "cropped_aligned"
"""The prefix, in any case, of the names of folders with crops: cropped_aligned, cropped_aligned_images ..."""

_HIDDEN = (".", "@", "__MACOSX")
"""Prefixes of the names of folders that operating systems and archive programs create beside data."""

_IMAGE = re.compile(r"(\d{1,6})\.(jpe?g|png)", re.IGNORECASE | re.ASCII)
"""The name of an image. Six digits number more than nine hours of video; a longer number is not a frame number."""


class Crops(NamedTuple):
    """The number of images in a video's folder, and the number of frames up to the last image."""

    images: int
    frames: int


def frame_number(name: str) -> int | None:
    """Return the 0-based frame of an image by its name, which counts from 1: `00001.jpg` shows frame 0.

    The result is None for names of another form, and -1 for the number 0, which `image_names` rejects.
    """
    match = _IMAGE.fullmatch(name)
    return int(match[1]) - 1 if match else None


def is_crops(path: Path) -> bool:
    """Return whether the name of a folder or of one of its parents is that of a folder of crops."""
    return any(part.lower().startswith(FOLDER) for part in Path(path).absolute().parts)


def find_crops(top: Path, inside: bool = False) -> list[Path]:
    """List the videos' folders in all folders of crops below `top`, sorted, without opening an image.

    A folder of numbered images is a video's, and so is one without any folder below it (a video without a face).

    Args:
        inside: whether `top` itself is a folder of crops.
    """
    return sorted(_walk(Path(top), inside, set()))


def image_names(folder: Path) -> dict[int, str]:
    """Map each frame to the name of its image; of two images of one frame, the first in alphabetical order is used.

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
    """Count the images and frames of a video's folder; return None if it contains no image. See `image_names`."""
    names = image_names(folder)
    return Crops(len(names), max(names) + 1) if names else None


def _walk(folder: Path, inside: bool, visited: set[str]) -> Iterator[Path]:
    """Yield the videos' folders below a folder; links to folders are followed, and each folder is visited once."""
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
