"""`cropped_aligned/`: faces that the releasers have cut and aligned, a folder a video, an image a frame that has a face.

`cropped_aligned/<video>/00001.jpg` shows the first frame. Batches may lie in folders of their own.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aupair.errors import DataError

FOLDER = "cropped_aligned"
"""What the names of those folders begin with, in any case: cropped_aligned, cropped_aligned_images ..."""

HIDDEN = (".", "@", "__MACOSX")
"""What systems leave beside data: the names of such folders begin so."""

IMAGE = re.compile(r"(\d{1,6})\.(jpe?g|png)", re.IGNORECASE | re.ASCII)
"""Six digits are more than nine hours; a longer number is a date or the like."""


class Crops(NamedTuple):
    """What is in a video's folder: how many images, and how many frames up to that of the last one."""

    images: int
    frames: int


def frame_of(name: str) -> int | None:
    """Give the frame, 0-based, that an image shows: names count from 1, `00001.jpg` shows frame 0, label row 0.

    None for other names; -1 for number 0, which a folder that counts from 1 does not have.
    """
    match = IMAGE.fullmatch(name)
    return int(match[1]) - 1 if match else None


def is_crops(path: Path) -> bool:
    """Say whether a folder holds crops: by its name, or that of one above it."""
    return any(part.lower().startswith(FOLDER) for part in Path(path).absolute().parts)


def find_crops(top: Path, inside: bool = False) -> list[Path]:
    """List the videos' folders in all folders of crops below `top`, sorted; not one image is opened.

    A folder of numbered images is a video's, and so is one without any folder below it (a video without a face).

    Args:
        inside: `top` holds crops itself.
    """
    return sorted(_find(Path(top), inside, set()))


def images(folder: Path) -> dict[int, str]:
    """Give the name of each frame's image; of two images for one frame the first by name.

    Raises:
        DataError: an image has the number 0, so that all would be off by one.
    """
    found: dict[int, str] = {}
    for name in sorted(_names(folder)):
        frame = frame_of(name)
        if frame is not None:
            found.setdefault(frame, name)
    _check_first(found, folder)
    return found


def count(folder: Path) -> Crops | None:
    """Count a video's images by their names; None where there is none.

    Raises:
        DataError: an image has the number 0.
    """
    found = {frame for name in _names(folder) if (frame := frame_of(name)) is not None}
    _check_first(found, folder)
    return Crops(len(found), max(found) + 1) if found else None


def _names(folder: Path) -> list[str]:
    """List a folder; one that cannot be read is told in a line."""
    try:
        return os.listdir(folder)
    except OSError as error:
        raise DataError("an unreadable folder", where=folder, got=error.strerror or error) from error


def _check_first(frames: set[int] | dict[int, str], folder: Path) -> None:
    if -1 in frames:
        raise DataError(
            "an image with the number 0",
            where=folder,
            expected="00001.jpg for the first frame",
            todo="rename the images of this folder, all are off by one",
        )


def _find(folder: Path, inside: bool, seen: set[str]) -> Iterator[Path]:
    """Walk down; links to folders are followed, each folder once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    below: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if inside and frame_of(entry.name) is not None:
                yield folder
                return
            if not entry.name.startswith(HIDDEN) and entry.is_dir():
                below.append(folder / entry.name)
    if inside and not below and not folder.name.lower().startswith(FOLDER):
        yield folder
    for path in below:
        yield from _find(path, inside or path.name.lower().startswith(FOLDER), seen)
