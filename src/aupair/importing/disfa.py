"""The kind `disfa`: DISFA's folders, with a file of intensities for each AU and person, and movies of two cameras.

`ActionUnit_Labels/SN001/SN001_au1.txt` has lines `frame,intensity` and counts frames from 1. The movies are
`Videos_LeftCamera/LeftVideoSN001_comp.avi` and `Videos_RightCamera/RightVideoSN001_comp.avi`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aupair.errors import DataError
from aupair.importing.framewise import active_from, check_threshold, count_rows, intensity_of, read_single, stack_frames
from aupair.importing.movies import Movies
from aupair.importing.recordings import Media, Notes, Recording

Camera = Literal["left", "right"]

_LABELS = re.compile(r"(?P<subject>SN\d+)_au(?P<au>\d+)\.txt", re.IGNORECASE)
_MOVIE = re.compile(r"(?P<camera>left|right)video_?(?P<subject>SN\d+)(_.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class DisfaOptions:
    """Options of an import of DISFA.

    Attributes:
        camera: the camera whose movies are used.
        threshold: the intensity from which an AU counts as active; 2 by DISFA's convention.
        allow_missing: whether to omit labels without a movie, and to accept people who lack an AU, without an error.
    """

    camera: Camera = "left"
    threshold: float = 2.0
    allow_missing: bool = False


def read_disfa(source: Path, options: DisfaOptions, out: Path, notes: Notes) -> list[Recording]:
    """Read the labels and find the movies; each person has one video, with the name of the person.

    Raises:
        DataError: there are no labels, a value is wrong, a person lacks an AU that others have, or has no movie.
    """
    check_threshold(options.threshold)
    files = _label_files(source)
    every = sorted({au for aus in files.values() for au in aus})
    _check_complete(files, every, source, options.allow_missing, notes)
    media = _find_movies(source, files, options, out, notes)
    return [
        _recording(subject, files[subject], media[subject], options.threshold, notes)
        for subject in files
        if subject in media
    ]


def _label_files(source: Path) -> dict[str, dict[int, Path]]:
    """Return the label file of each AU of each subject, sorted.

    Raises:
        DataError: there is no label file, or there are two for an AU of a subject.
    """
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(source.rglob("*")):
        match = _LABELS.fullmatch(path.name)
        if match:
            subject, au = match["subject"].upper(), int(match["au"])
            other = files[subject].setdefault(au, path)
            if other is not path:
                raise DataError("two files for one AU", where=other, got=path, expected=f"one for AU{au} of {subject}")
    if not files:
        raise DataError("no labels of DISFA", where=source, expected="ActionUnit_Labels/SN001/SN001_au1.txt")
    return {subject: dict(sorted(files[subject].items())) for subject in sorted(files)}


def _check_complete(
    files: Mapping[str, Mapping[int, Path]], every: list[int], source: Path, allow_missing: bool, notes: Notes
) -> None:
    """Raise a DataError for a subject who lacks an AU that others have; with `allow_missing`, only note it."""
    for subject, aus in files.items():
        missing = [f"AU{au}" for au in every if au not in aus]
        if missing and not allow_missing:
            folder = next(iter(aus.values())).parent
            expected = f"{subject}_{missing[0].lower()}.txt, as other people have"
            todo = "add the file, or accept a person without this AU by --allow-missing"
            raise DataError(
                "a person lacks an AU",
                where=folder,
                got=f"no {', '.join(missing)} of {subject}",
                expected=expected,
                todo=todo,
            )
        notes.add(
            "AUs without a file of a person, not labelled for this person", *(f"{subject} {au}" for au in missing)
        )


def _find_movies(
    source: Path, files: Mapping[str, object], options: DisfaOptions, out: Path, notes: Notes
) -> dict[str, Media]:
    """Return the movie of each subject.

    Raises:
        DataError: a labelled subject has no movie, two movies, or one that cannot be opened.
    """
    movies = Movies(source, out)
    names: dict[str, str] = {}
    others: list[str] = []
    for name in movies.names():
        match = _MOVIE.fullmatch(name)
        if match is None or match["camera"].lower() != options.camera:
            others.append(name)
        elif names.setdefault(match["subject"].upper(), name) != name:
            one, two = movies.find(names[match["subject"].upper()]), movies.find(name)
            raise DataError("two movies for one person", where=one, got=two, expected="one", todo="remove one")
    result: dict[str, Media] = {}
    for subject in files:
        path = movies.find(names[subject]) if subject in names else None
        media = movies.open(path) if path else None
        if media:
            result[subject] = media
            continue
        what = "the movie cannot be opened" if path else "labels without a video"
        if not options.allow_missing:
            expected = f"{options.camera.capitalize()}Video{subject}_comp.avi"
            todo = "choose the other camera by --camera, or leave the person out by --allow-missing"
            raise DataError(what, where=path or source, got=subject, expected=expected, todo=todo)
        notes.add(f"labelled videos left out: {what}", subject)
    notes.add("videos without labels, left out", *(name for subject, name in names.items() if subject not in files))
    notes.add("movies of the other camera or of another name, left out", *others)
    return result


def _recording(subject: str, files: Mapping[int, Path], media: Media, threshold: float, notes: Notes) -> Recording:
    """Return the recording of a subject."""
    folder = next(iter(files.values())).parent
    aus = tuple(f"AU{au}" for au in files)
    parts = [read_single(path, au) for au, path in zip(aus, files.values())]
    values = stack_frames(parts, first_frame=1)
    intensity = intensity_of(values)
    rows = {part.path: count_rows(part, 1, media, notes) for part in parts}
    return Recording(subject, media, aus, active_from(intensity, threshold), intensity, folder, subject, rows=rows)
