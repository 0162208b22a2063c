"""The layout of the data folder: where annotations, movies, crops and subjects are.

`<data>/annotations/occurrence/<video>.csv`, `<data>/annotations/intensity/<video>.csv`, and `<data>/videos/<video>.mp4`, or
`<data>/cropped_aligned/<video>/` for a video without a movie. The folders of Aff-Wild2,
`<data>/annotations/AU_Set/{Train_Set,Validation_Set}/<video>[_left|_right].txt`, are read without changes, under the names
that its releases use, in upper or lower case.
"""

import csv
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aupair import store
from aupair.data.crops import FOLDER, find_crops
from aupair.errors import DataError

_OFFICIAL = {
    **dict.fromkeys(("train_set", "training_set", "train"), "train"),
    **dict.fromkeys(("validation_set", "valid_set", "val_set", "validation"), "validation"),
}
"""Folder names of the two official sets in the releases of Aff-Wild2, in lower case."""

_OCCURRENCES, _INTENSITIES = "occurrence", "intensity"
_AFFWILD2_OCCURRENCES = ("au_set", "au_detection_challenge")
_AFFWILD2_INTENSITIES = ("au_intensity_set",)
"""Names of the folders of annotations, in lower case."""

USUAL_FPS = 30.0
"""Frames per second assumed for a video whose header has no plausible rate; most videos of Aff-Wild2 have this rate."""

_EXAMPLE = "Train_Set/<video>.txt and Validation_Set/<video>.txt"

Side = Literal["", "left", "right"]
"""The half of the image that shows the person; empty if the movie shows one person of interest."""

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""The suffixes of movies in the data folder."""


class Annotation(NamedTuple):
    """An annotation file: its name without suffix, its official set (`train`, `validation` or none: ""), and its path."""

    video: str
    official: str
    path: Path


class VideoJob(NamedTuple):
    """A video whose faces are to be aligned.

    Attributes:
        name: the name of the annotation.
        source: the movie or the folder of crops.
        side: the half of the image that shows the person; empty if the movie shows one person of interest.
        frames: the number of label rows.
    """

    name: str
    source: Path
    side: Side = ""
    frames: int = 0


class Header(NamedTuple):
    """Number of frames and frame rate in a movie's header; both may be wrong, and are 0 if the header lacks them."""

    frames: int
    fps: float


@dataclass(frozen=True)
class Layout:
    """The contents of a data folder.

    Attributes:
        root: the data folder.
        annotations: occurrence files, sorted by video.
        intensities: intensity files, sorted by video; often empty.
        movies: the movie files by their stem; more than one file under a name is ambiguous.
        crops: the folders of crops by video; more than one folder under a name is ambiguous.
        subjects: the subject of each video that subjects.csv lists.
        voids_partial_rows: whether a label row with any -1 counts as not annotated, which is the rule of Aff-Wild2.
    """

    root: Path
    annotations: tuple[Annotation, ...]
    intensities: tuple[Annotation, ...]
    movies: dict[str, tuple[Path, ...]]
    crops: dict[str, tuple[Path, ...]]
    subjects: dict[str, str]
    voids_partial_rows: bool = False

    def movie(self, video: str) -> str | None:
        """Return the name of a video's movie: the video's name, else that name without `_left` or `_right`, else None."""
        candidates = (video, re.sub(r"_(left|right)$", "", video))
        return next((name for name in candidates if name in self.movies), None)

    def source(self, video: str) -> Path | None:
        """Return the path of a video's movie, else of its folder of crops; None if there is neither.

        Raises:
            DataError: there are two movies or two folders of crops of that name.
        """
        name = self.movie(video)
        paths = self.crops.get(video, ()) if name is None else self.movies[name]
        if len(paths) > 1:
            what = "two folders of crops for one video" if name is None else "two files for one video"
            raise DataError(what, where=paths[0], got=paths[1], expected="one", todo="remove one")
        return paths[0] if paths else None

    def side(self, video: str) -> Side:
        """Return the half of the image that shows the person; empty if the movie shows only this video's person."""
        if self.movie(video) in (video, None):
            return ""
        return "left" if video.endswith("_left") else "right"

    def subject(self, video: str) -> str:
        """Return the subject of a video from subjects.csv, else the video's name (`_left` and `_right` are two subjects)."""
        return self.subjects.get(video, video)


def read_layout(data: Path) -> Layout:
    """Find annotations, movies, crops and subjects in a data folder, without reading the annotations.

    Raises:
        DataError: the folder, its annotations or its videos are missing or ambiguous.
    """
    data = Path(data)
    if not data.is_dir():
        raise DataError(
            "no data folder",
            where=data,
            todo="get the demo corpus by `dvc pull -r demo data.dvc`, or convert your labels by `aupair import`",
        )
    if not any(data.iterdir()):
        raise DataError("an empty data folder", where=data, expected="annotations/ and videos/")
    annotations = data / "annotations"
    # A release may come in batches, each with a separate folder of movies.
    movies = _group_by_name(
        (path.stem, path)
        for path in sorted((data / "videos").rglob("*"))
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    crops = _group_by_name((path.name, path) for path in find_crops(data))
    folder, occurrences = _list_annotations(annotations, (_OCCURRENCES, *_AFFWILD2_OCCURRENCES))
    if not occurrences:
        raise _no_labels_error(annotations, folder, bool(movies or crops))
    if not (movies or crops):
        expected = f"<video>{'|'.join(EXTENSIONS)}, or {data / FOLDER}/<video>/00001.jpg"
        raise DataError("no videos", where=data / "videos", expected=expected)
    _, intensities = _list_annotations(annotations, (_INTENSITIES, *_AFFWILD2_INTENSITIES))
    path = data / "subjects.csv"
    subjects = read_subjects(path) if path.exists() else {}
    of_affwild2 = folder is not None and folder.name.lower() in _AFFWILD2_OCCURRENCES
    return Layout(data, occurrences, intensities, movies, crops, subjects, of_affwild2)


def list_video_jobs(data: Path, labels: Path) -> list[VideoJob]:
    """List the videos of the labels table with their movies or crops, for preprocess-faces.

    Raises:
        DataError: a labelled video has no file, although it had one when check-data ran.
    """
    layout = read_layout(data)
    result = []
    rows = store.read_table(labels, columns=["video"])["video"].value_counts().to_pylist()
    for video, frames in sorted((row["values"], row["counts"]) for row in rows):
        path = layout.source(video)
        if path is None:
            raise DataError(
                "a labelled video has no file", where=layout.root / "videos", got=video, todo="run check-data again"
            )
        result.append(VideoJob(video, path, layout.side(video), frames))
    return result


def check_name(name: str, where: object) -> None:
    """Raise a DataError for a name with a line break, a control character or bytes that are not UTF-8.

    Such a name would break the rows of tables and the lines of messages.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        what = "a name with a line break or another character that cannot be printed"
        raise DataError(what, where=where, got=ascii(name), todo="rename it")


def read_subjects(path: Path) -> dict[str, str]:
    """Read the subject of each video from a table `video,subject`.

    Raises:
        DataError: a video has two subjects; for other errors see `read_csv`.
    """
    subjects: dict[str, str] = {}
    for line, (video, subject) in enumerate(read_csv(path, ("video", "subject")), start=2):
        if subjects.setdefault(video, subject) != subject:
            got = f"{video}: {subject}"
            raise DataError("a video has two subjects", where=f"{path} line {line}", got=got, expected=subjects[video])
    return subjects


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Read the named columns of a small comma-separated file; row k, counted from 0, is on line k + 2 of the file.

    Raises:
        DataError: the file is not text, a column is missing, or a row is ragged, blank or has an empty cell.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines or [""])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("not a readable table", where=path, got=error, expected=",".join(columns)) from error
    if not set(columns) <= set(header):
        raise DataError(
            "wrong header", where=f"{path} line 1", got=",".join(header) or "nothing", expected=",".join(columns)
        )
    at = [header.index(column) for column in columns]
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or not all(row[k] for k in at):
            raise DataError(
                "a ragged row", where=f"{path} line {line}", got=",".join(row) or "nothing", expected=",".join(header)
            )
        for k in at:
            check_name(row[k], f"{path} line {line}")
    return [tuple(row[k] for k in at) for row in rows]


def read_movie_header(path: Path) -> Header | None:
    """Read a movie's header; return None if OpenCV cannot open the file.

    Decoding may return another number of frames than the header states.
    """
    # FFmpeg must not write to stderr, since aupair reports a broken movie in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            return None
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)
    return Header(int(frames) if 0 < frames < 2**31 else 0, fps if np.isfinite(fps) and 0 < fps <= 1000 else 0.0)


def _list_annotations(annotations: Path, names: tuple[str, ...]) -> tuple[Path | None, tuple[Annotation, ...]]:
    """Find the folder with one of some names, in any case, in `annotations` or one level below, and list its files.

    Returns:
        The folder, or None, and its files and those of its official sets, sorted by video.
    """
    folders = sorted(
        path
        for pattern in ("*", "*/*")
        for path in annotations.glob(pattern)
        if path.name.lower() in names and path.is_dir()
    )
    if len(folders) > 1:
        raise DataError(
            "two folders of annotations", where=folders[0], got=folders[1], expected="one", todo="move one away"
        )
    suffix = ".csv" if folders and folders[0].name.lower() in (_OCCURRENCES, _INTENSITIES) else ".txt"
    files = [
        Annotation(path.stem, official, path)
        for folder in folders
        for part, official in _list_sets(folder)
        for path in part.iterdir()
        if path.suffix.lower() == suffix and not path.name.startswith(".") and path.is_file()
    ]
    files.sort()
    for file in files:
        check_name(file.video, file.path)
    for one, other in pairwise(files):
        if one.video == other.video:  # (video, frame) would not be unique
            got, todo = f"also {one.path}", "remove one"
            raise DataError("a video is annotated twice", where=other.path, got=got, expected="one file", todo=todo)
    return (folders[0] if folders else None), tuple(files)


def _list_sets(folder: Path) -> list[tuple[Path, str]]:
    """Return a folder of annotations with the set "", and its folders of the official sets with their sets."""
    parts = [part for part in folder.iterdir() if part.is_dir() and part.name.lower() in _OFFICIAL]
    return [(folder, ""), *((part, _OFFICIAL[part.name.lower()]) for part in parts)]


def _no_labels_error(annotations: Path, folder: Path | None, videos: bool) -> DataError:
    """Return the error for a data folder without labels; with videos, it may be the release of a test set."""
    what, expected = "no annotation files", f"<video>.csv, or those of Aff-Wild2: {_EXAMPLE}"
    if folder is None:
        exists = annotations.is_dir()
        what = "no AU annotations" if exists else "no annotations"
        expected = f"{_OCCURRENCES}/<video>.csv, or those of Aff-Wild2: AU_Set/{_EXAMPLE}"
    todo = "convert annotations of another format by `aupair import`"
    if videos:
        todo += "; for a test release run `aupair predict`, then `aupair submission`"
    return DataError(what, where=folder or annotations, expected=expected, todo=todo)


def _group_by_name(named: Iterable[tuple[str, Path]]) -> dict[str, tuple[Path, ...]]:
    """Group paths by their names."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for name, path in named:
        groups[name].append(path)
    return {name: tuple(paths) for name, paths in groups.items()}
