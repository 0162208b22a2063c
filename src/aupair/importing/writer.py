"""Writer of recordings as a data folder: annotations, videos, subjects, and import.json, which describes the import."""

import csv
import glob
import io
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from aupair import store
from aupair.aus import NOT_ANNOTATED, check_au_names
from aupair.data.crops import FOLDER
from aupair.data.layout import read_movie_header
from aupair.errors import DataError
from aupair.importing.images import write_movie
from aupair.importing.lengths import fit_to_video
from aupair.importing.recordings import Media, Notes, Recording, check_names, unite_aus
from aupair.log import Log

_SETS = {"": "", "train": "Train_Set", "validation": "Validation_Set"}
"""The folder of each official set, below that of the annotations."""

Transfer = Literal["link", "copy", "none"]


class WriteOptions(NamedTuple):
    """Options of writing: the data folder, how to place videos in it, and which problems to accept."""

    out: Path
    transfer: Transfer = "link"
    overwrite: bool = False
    any_length: bool = False


@dataclass(frozen=True)
class AUCounts:
    """Counts of an AU: videos in which it is coded, and frames with a label, active frames, and frames with an intensity."""

    au: str
    videos: int
    labelled: int
    positives: int
    intensities: int


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import: the recordings as they were written, counts of each AU, and irregularities."""

    recordings: tuple[Recording, ...]
    counts: tuple[AUCounts, ...]
    notes: Notes

    HEADER = ("AU", "videos", "labelled frames", "active", "share", "with intensity")

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the printed table."""
        return [
            (
                count.au,
                f"{count.videos:,}",
                f"{count.labelled:,}",
                f"{count.positives:,}",
                f"{count.positives / count.labelled:.1%}" if count.labelled else "",
                f"{count.intensities:,}" if count.intensities else "",
            )
            for count in self.counts
        ]

    def title(self) -> str:
        """Return the numbers of imported videos, people and frames, in one line."""
        videos, frames = len(self.recordings), sum(len(r.occurrence) for r in self.recordings)
        subjects = len({r.subject or r.video for r in self.recordings})
        return f"{videos:,} videos of {subjects:,} people, {frames:,} frames"


def check_out(out: Path, overwrite: bool) -> None:
    """Raise an error if a data folder has annotations already, or cannot be written; called before anything is read."""
    annotations = out / "annotations"
    if annotations.exists() and any(annotations.iterdir()) and not overwrite:
        todo = "name another folder by --out, or add --overwrite to replace them"
        raise DataError("the data folder has annotations already", where=annotations, todo=todo)
    store.check_writable(annotations)


def write_data(
    kind: str, source: Path, recordings: Sequence[Recording], notes: Notes, options: WriteOptions, log: Log
) -> ImportSummary:
    """Write recordings as a data folder; the annotations are written last, so that an interrupted import leaves none.

    Raises:
        DataError: there is no recording, the label rows do not fit a video, or a file would be replaced.
    """
    if not recordings:
        raise DataError("no labelled video", where=source, got="; ".join(notes.lines()) or "nothing")
    check_names(recordings)
    _check_source(recordings, options.out / "annotations")
    fitted = [fit_to_video(r, notes, options.any_length) for r in recordings]
    aus, written = unite_aus(sorted(fitted, key=lambda r: r.video))
    check_au_names(aus, source)
    if not any((r.occurrence != NOT_ANNOTATED).any() for r in written):
        raise DataError("no labelled frame", where=source, got="; ".join(notes.lines()) or f"{len(written)} videos")
    _check_subjects(options, written, notes)
    summary = ImportSummary(tuple(written), _count(aus, written), notes)
    _place_videos(written, options, log)
    if subjects := _subjects_csv(written):
        store.write_text(options.out / "subjects.csv", subjects)
    store.write_json(options.out / "import.json", _describe(kind, source, summary))
    with store.atomic(options.out / "annotations") as folder:
        _write_annotations(folder, summary.counts, written, log)
    return summary


def _check_source(recordings: Sequence[Recording], annotations: Path) -> None:
    """Raise a DataError if a label file is in the folder of annotations, which is replaced."""
    for recording in recordings:
        if recording.origin.resolve().is_relative_to(annotations.resolve()):
            todo = "name another folder by --out"
            raise DataError("the labels would be replaced by their import", where=recording.origin, todo=todo)


def _check_subjects(options: WriteOptions, recordings: Sequence[Recording], notes: Notes) -> None:
    """Note the videos without a subject; raise a DataError if a different subjects.csv would be replaced."""
    path, text = options.out / "subjects.csv", _subjects_csv(recordings)
    if path.exists() and not text:
        notes.add("file not changed, since the source has no subjects", str(path))
        return
    if path.exists() and not options.overwrite and path.read_text() != text:
        todo = "add --overwrite to replace it, or remove it"
        raise DataError("the data folder has other subjects already", where=path, todo=todo)
    people = sorted({r.subject for r in recordings if r.subject}, key=lambda name: (name.lower(), name))
    similar = [f"{one} and {other}" for one, other in pairwise(people) if one.lower() == other.lower()]
    notes.add("pairs of people whose names differ only in case, two people each", *similar)
    unknown = [r.video for r in recordings if not r.subject]
    notes.add("videos without a subject, each counts as a different person", *unknown)


def _count(aus: tuple[str, ...], recordings: Sequence[Recording]) -> tuple[AUCounts, ...]:
    """Count each AU over all recordings."""
    labelled = np.array([(r.occurrence != NOT_ANNOTATED).sum(axis=0) for r in recordings])
    positives = np.array([(r.occurrence == 1).sum(axis=0) for r in recordings])
    graded = np.zeros(len(aus), np.int64)
    for recording in recordings:
        if recording.intensity is not None:
            graded += (recording.intensity != NOT_ANNOTATED).sum(axis=0)
    columns = np.stack([(labelled > 0).sum(axis=0), labelled.sum(axis=0), positives.sum(axis=0), graded], axis=1)
    return tuple(AUCounts(au, *counts) for au, counts in zip(aus, columns.tolist()))


def _write_annotations(folder: Path, counts: Sequence[AUCounts], recordings: Sequence[Recording], log: Log) -> None:
    """Write the occurrences of each recording, and the intensities of the AUs that have any, by official set."""
    graded = [k for k, count in enumerate(counts) if count.intensities]
    aus = [count.au for count in counts]
    for recording in log.progress(recordings, len(recordings), "writing annotations"):
        name = Path(_SETS[recording.official], f"{recording.video}.csv")
        _write_values(folder / "occurrence" / name, aus, recording.occurrence)
        if graded:
            blank = np.full(recording.occurrence.shape, NOT_ANNOTATED, np.float32)
            values = blank if recording.intensity is None else recording.intensity
            _write_values(folder / "intensity" / name, [aus[k] for k in graded], values[:, graded])


def _write_values(path: Path, aus: Sequence[str], values: np.ndarray) -> None:
    """Write one annotation file: a header with the AUs, then a row for each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table([pa.array(np.ascontiguousarray(column)) for column in values.T], names=list(aus))
    with open(path, "wb") as file:
        file.write((",".join(aus) + "\n").encode())
        pa.csv.write_csv(table, file, pa.csv.WriteOptions(include_header=False, quoting_style="none"))


def _subjects_csv(recordings: Sequence[Recording]) -> str:
    """Return the content of subjects.csv, with the videos whose subject is known; empty if there are none."""
    rows = [(r.video, r.subject) for r in recordings if r.subject]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("video", "subject"), *rows] if rows else [])
    return text.getvalue()


def _describe(kind: str, source: Path, summary: ImportSummary) -> dict[str, Any]:
    """Return the content of import.json."""
    return {
        "kind": kind,
        "source": str(source),
        "aus": {
            c.au: {"videos": c.videos, "labelled": c.labelled, "positives": c.positives, "intensities": c.intensities}
            for c in summary.counts
        },
        "notes": summary.notes.examples,
        "videos": [
            {
                "video": r.video,
                "subject": r.subject or r.video,
                "official": r.official or None,
                "labels": str(r.origin),
                "movie": str(r.media.path),
                "rows": len(r.occurrence),
                "frames": r.media.header.frames or None,
                "fps": r.media.header.fps or None,
            }
            for r in summary.recordings
        ],
    }


def _place_videos(recordings: Sequence[Recording], options: WriteOptions, log: Log) -> None:
    """Link or copy the movies into the data folder."""
    if options.transfer == "none":
        return
    target: dict[Path, Media] = {}
    for recording in recordings:
        media = recording.media
        if media.kind == "crops":
            target[options.out / FOLDER / recording.video] = media
            continue
        name = recording.movie or recording.video
        if media.path.stem == name and media.path.parent.resolve().is_relative_to((options.out / "videos").resolve()):
            continue  # in the data folder already, perhaps in a subfolder
        suffix = ".avi" if media.kind == "images" else media.path.suffix.lower()
        target[options.out / "videos" / f"{name}{suffix}"] = media
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(_place, path, media, options) for path, media in sorted(target.items())]
        try:
            for job in log.progress(jobs, len(jobs), "placing videos"):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _place(path: Path, media: Media, options: WriteOptions) -> None:
    """Link, copy or encode the movie of a recording, unless it is in its place already.

    Raises:
        DataError: another file has its name, or the images cannot be written as a movie.
    """
    source = media.path
    if media.kind == "crops":
        _place_crops(path, source, options)
        return
    for other in path.parent.glob(f"{glob.escape(path.stem)}.*") if path.parent.is_dir() else ():
        if other == path and _is_placed(path, media):
            return
        if not options.overwrite or other != path:
            todo = "add --overwrite to replace it, or remove it" if other == path else "remove it"
            raise DataError("another file has the name of a video", where=other, got=f"also {source}", todo=todo)
    if media.kind == "images":
        write_movie(media, path)
        return
    with store.atomic(path) as temporary:
        (shutil.copy2 if options.transfer == "copy" else _link)(source, temporary)


def _place_crops(folder: Path, source: Path, options: WriteOptions) -> None:
    """Link or copy a folder of crops, unless it is in its place already."""
    names = sorted(os.listdir(source))
    if folder.is_dir() and sorted(os.listdir(folder)) == names:
        return
    if folder.exists() and not options.overwrite:
        raise DataError("another folder has the name of a video", where=folder, got=f"also {source}", todo="remove it")
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        for name in names:
            (shutil.copy2 if options.transfer == "copy" else _link)(source / name, temporary / name)


def _link(source: Path, path: Path) -> None:
    """Hard-link a file, or copy it if the file system does not support that."""
    try:
        os.link(source.resolve(), path)
    except OSError:
        shutil.copy2(source, path)


def _is_placed(path: Path, media: Media) -> bool:
    """Return whether a file is that movie already: the same file, one of equal size and time, or with as many images."""
    if media.kind == "images":
        header = read_movie_header(path)
        return header is not None and header.frames == media.header.frames
    one, other = path.stat(), media.path.stat()
    return path.samefile(media.path) or (one.st_size == other.st_size and int(one.st_mtime) == int(other.st_mtime))
