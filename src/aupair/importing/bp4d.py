"""The kind `bp4d`: the folders of BP4D and BP4D+, with occurrences for each task of a person and intensities of some AUs.

`AUCoding/AU_OCC/F001_T1.csv` has a header `0,1,2,4,...` with the numbers of the AUs, then a row for each coded frame: its
number, counted from 1, and 0, 1 or 9 (not coded). `AUCoding/AU_INT/AU06/F001_T1_AU06.csv` has lines `frame,intensity` with
0 to 5 or 9. The images are `.../F001/T1/0001.jpg`, or a movie `F001_T1.avi`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.errors import DataError
from aupair.importing.framewise import intensity_of, occurrence_of, read_frame_labels, read_single, stack_frames
from aupair.importing.images import open_images
from aupair.importing.movies import Movies
from aupair.importing.recordings import Media, Notes, Recording
from aupair.importing.tables import TextTable, read_text_table

MISSING = ("9",)
"""The cell that means "not coded" in BP4D's files."""

_OCCURRENCE = re.compile(r"(?P<subject>[FM]\d+)_(?P<task>T\d+)\.csv", re.IGNORECASE)
_INTENSITY = re.compile(r"(?P<video>[FM]\d+_T\d+)_AU(?P<au>\d+)\.csv", re.IGNORECASE)
_IMAGES = re.compile(r"(?P<subject>[FM]\d+)/(?P<task>T\d+)", re.IGNORECASE)


K = TypeVar("K")


@dataclass(frozen=True)
class Bp4dOptions:
    """Options of an import of BP4D.

    Attributes:
        fps: frames per second of the images.
        allow_missing: whether to omit labels without images or a movie instead of raising an error.
    """

    fps: float = 25.0
    allow_missing: bool = False


@dataclass(frozen=True)
class _Files:
    """The files of a source, by the upper-case name of the video, such as F001_T1."""

    occurrence: Mapping[str, Path]
    intensity: Mapping[str, Mapping[int, Path]]
    images: Mapping[str, Path]


def read_bp4d(source: Path, options: Bp4dOptions, out: Path, notes: Notes) -> list[Recording]:
    """Read the labels and find the movies or images; each task of a person is a video.

    Raises:
        DataError: there are no labels, a value is wrong, or labels have neither a movie nor images.
    """
    files = _list_files(source)
    movies = Movies(source, out)
    recordings = []
    for video, path in files.occurrence.items():
        media = _find_media(video, path, files, movies, options, notes)
        if media:
            recordings.append(_recording(video, path, files.intensity.get(video, {}), media))
            _note_contradictions(recordings[-1], notes)
    notes.add("videos without labels, left out", *sorted(set(files.images) - set(files.occurrence)), *movies.unused())
    notes.add(
        "intensities of videos without occurrences, left out", *sorted(set(files.intensity) - set(files.occurrence))
    )
    return _without_uncoded(recordings, notes)


def _list_files(source: Path) -> _Files:
    """Find label files and folders of images by their names.

    Raises:
        DataError: there are no occurrences, or two files for one video.
    """
    occurrence: dict[str, Path] = {}
    intensity: dict[str, dict[int, Path]] = defaultdict(dict)
    images: dict[str, Path] = {}
    for path in _walk(source):
        if match := _OCCURRENCE.fullmatch(path.name):
            _set_once(occurrence, f"{match['subject']}_{match['task']}".upper(), path)
        elif match := _INTENSITY.fullmatch(path.name):
            _set_once(intensity[match["video"].upper()], int(match["au"]), path)
        elif match := _IMAGES.fullmatch("/".join(path.parts[-2:])):
            _set_once(images, f"{match['subject']}_{match['task']}".upper(), path)
    if not occurrence:
        raise DataError("no labels of BP4D", where=source, expected="AUCoding/AU_OCC/F001_T1.csv")
    return _Files(dict(sorted(occurrence.items())), intensity, images)


def _walk(source: Path) -> list[Path]:
    """List the folders and the .csv files below a folder."""
    result: list[Path] = []
    for folder, folders, names in os.walk(source):
        folders.sort()
        result += [Path(folder, name) for name in folders]
        result += [Path(folder, name) for name in sorted(names) if name.lower().endswith(".csv")]
    return result


def _set_once(table: dict[K, Path], key: K, path: Path) -> None:
    """Set a key; raise a DataError if it has another path already."""
    if table.setdefault(key, path) != path:
        raise DataError(
            "two files or folders for one video", where=table[key], got=path, expected="one", todo="remove one"
        )


def _find_media(
    video: str, path: Path, files: _Files, movies: Movies, options: Bp4dOptions, notes: Notes
) -> Media | None:
    """Return the movie of a video, else its folder of images; None without a readable one, if `allow_missing` is set.

    Raises:
        DataError: there is neither, or the movie cannot be opened, and `allow_missing` is not set.
    """
    movie = movies.find(video)
    if movie:
        media = movies.open(movie)
    else:
        media = open_images(files.images[video], options.fps, notes) if video in files.images else None
    if media is None:
        what = "the movie cannot be opened" if movie else "labels without a video"
        if not options.allow_missing:
            expected = f"{video}.avi, or images {video.replace('_', '/')}/0001.jpg"
            todo = "extract its images, or omit such labels by --allow-missing"
            raise DataError(what, where=movie or path, got=video, expected=expected, todo=todo)
        notes.add(f"labelled videos left out: {what}", video)
    return media


def _recording(video: str, path: Path, intensities: Mapping[int, Path], media: Media) -> Recording:
    """Return the recording of a video; frames that the files do not list are not labelled."""
    (labels,) = read_frame_labels(_with_names(read_text_table(path)), missing=MISSING)
    aus = labels.aus
    occurrence = occurrence_of(stack_frames([labels], 1))
    intensity = None
    if intensities:
        coded = {f"AU{au}": file for au, file in sorted(intensities.items())}
        for au, file in coded.items():
            if au not in aus:
                raise DataError("intensities of an AU without occurrences", where=file, got=au, expected=",".join(aus))
        parts = [read_single(file, au, MISSING) for au, file in coded.items()]
        levels = intensity_of(stack_frames(parts, 1))
        rows = max(len(levels), len(occurrence))
        intensity = np.full((rows, len(aus)), NOT_ANNOTATED, np.float32)
        intensity[: len(levels), [aus.index(au) for au in coded]] = levels
    # The coded part may end anywhere in the video, so that its length is no evidence about the frame rate.
    rows = max(media.header.frames, len(occurrence), 0 if intensity is None else len(intensity))
    padded = None if intensity is None else _pad(intensity, rows)
    return Recording(video, media, aus, _pad(occurrence, rows), padded, path, video.split("_")[0])


def _note_contradictions(recording: Recording, notes: Notes) -> None:
    """Note the frames in which occurrence and intensity contradict each other; neither is changed."""
    if recording.intensity is None:
        return
    occurrence, intensity = recording.occurrence, recording.intensity
    coded = intensity != NOT_ANNOTATED
    reasons = {
        "AUs of videos with occurrence 1 and intensity 0 in a frame": (occurrence == 1) & (intensity == 0),
        "AUs of videos with occurrence 0 and an intensity above 0 in a frame": (occurrence == 0) & (intensity > 0),
        "AUs of videos with an intensity in a frame without occurrence": (occurrence == NOT_ANNOTATED) & coded,
    }
    for reason, wrong in reasons.items():
        for k in wrong.any(axis=0).nonzero()[0].tolist():
            frames = wrong[:, k].nonzero()[0] + 1
            notes.add(
                reason, f"{recording.video} {recording.aus[k]} ({len(frames):,} frames, the first is {frames[0]})"
            )


def _with_names(table: TextTable) -> TextTable:
    """Return a table of occurrences with the AUs' names instead of their numbers in the header."""
    header = table.header
    if not all(name.isdecimal() for name in header[1:]):
        where = f"{table.path} line 1"
        raise DataError("not a header of BP4D", where=where, got=",".join(header)[:200], expected="0,1,2,4,...")
    return replace(table, header=("frame", *(f"AU{int(name)}" for name in header[1:])))


def _pad(values: np.ndarray, rows: int) -> np.ndarray:
    """Append unlabelled rows up to `rows` rows."""
    return np.pad(values, ((0, rows - len(values)), (0, 0)), constant_values=NOT_ANNOTATED)


def _without_uncoded(recordings: list[Recording], notes: Notes) -> list[Recording]:
    """Remove the AUs that are not coded in any recording."""
    every = dict.fromkeys(au for r in recordings for au in r.aus)
    coded = {au for r in recordings for k, au in enumerate(r.aus) if (r.occurrence[:, k] != NOT_ANNOTATED).any()}
    if not coded:
        return recordings
    notes.add("AUs that are not coded in any video, left out", *(au for au in every if au not in coded))
    result = []
    for r in recordings:
        at = [k for k, au in enumerate(r.aus) if au in coded]
        intensity = None if r.intensity is None else r.intensity[:, at]
        aus = tuple(r.aus[k] for k in at)
        result.append(replace(r, aus=aus, occurrence=r.occurrence[:, at], intensity=intensity))
    return result
