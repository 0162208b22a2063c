"""The kind `affwild2`: a folder in Aff-Wild2's layout, in which a row with any -1 counts as not annotated."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data.crops import count_crops
from aupair.data.layout import Annotation, Header, Layout, read_layout, read_movie_header
from aupair.data.sheets import Sheets, read_sheets
from aupair.errors import DataError
from aupair.importing.framewise import check_range, intensity_of, occurrence_of
from aupair.importing.recordings import Media, Notes, Recording


def read_affwild2(source: Path, allow_missing: bool, notes: Notes) -> list[Recording]:
    """Read annotations and official sets, and find the movies or crops.

    Args:
        allow_missing: whether to omit annotations without a movie or crops instead of raising an error.

    Raises:
        DataError: the folder has another layout, a file or a value is wrong, or an annotated video has no file.
    """
    layout = read_layout(source)
    if not layout.voids_partial_rows:
        where = layout.annotations[0].path.parent
        raise DataError("not Aff-Wild2's folders", where=where, expected="annotations/AU_Set/Train_Set/<video>.txt")
    unchecked = read_sheets(layout.annotations, np.int16)
    notes.add("annotation files with rows that lack some AUs, not annotated there", *_partial_files(unchecked))
    labels = unchecked.without_partial_rows()
    graded = read_sheets(layout.intensities, np.float32).without_partial_rows() if layout.intensities else None
    result = []
    for k, annotation in enumerate(labels.annotations):
        media = _find_media(layout, annotation, allow_missing, notes)
        if media:
            recording = _recording(layout, labels, k, media)
            result.append(replace(recording, intensity=_intensity(graded, recording, notes)) if graded else recording)
    names = {layout.movie(a.video) for a in layout.annotations}
    notes.add("videos without labels, left out", *sorted(set(layout.movies) - names))
    return result


def _partial_files(sheets: Sheets) -> list[str]:
    """Return the videos with rows in which some AUs are labelled and others are not."""
    partial = sheets.totals(sheets.annotated & ~sheets.labelled.all(axis=1))
    return [f"{a.video} ({count:,})" for a, count in zip(sheets.annotations, partial.tolist()) if count]


def _recording(layout: Layout, labels: Sheets, index: int, media: Media) -> Recording:
    """Return the recording of one annotation file, without intensities."""
    annotation = labels.annotations[index]
    rows = _rows(labels, index)
    check_range(rows, labels.aus, lambda row: f"{annotation.path} line {row + 2}", levels=False)
    occurrence = occurrence_of(rows)
    return Recording(
        annotation.video,
        media,
        labels.aus,
        occurrence,
        None,
        annotation.path,
        layout.subjects.get(annotation.video, ""),
        annotation.official,
        (layout.movie(annotation.video) or "") if media.kind == "movie" else "",
    )


def _rows(sheets: Sheets, index: int) -> np.ndarray:
    """Return the rows of one file, (n, A) float64, NaN if not annotated."""
    values = sheets.values[sheets.edges[index] : sheets.edges[index + 1]].astype(np.float64)
    return np.where(values == NOT_ANNOTATED, np.nan, values)


def _intensity(graded: Sheets, recording: Recording, notes: Notes) -> np.ndarray | None:
    """Return the intensities of a video, (n, A) float32; None if it has none, or their number of rows differs."""
    index = next((k for k, other in enumerate(graded.annotations) if other.video == recording.video), None)
    if index is None:
        return None
    aus, rows, values = recording.aus, len(recording.occurrence), _rows(graded, index)
    if len(values) != rows:
        reason = "videos whose intensities differ in rows from their occurrences, without intensities"
        notes.add(reason, f"{recording.video} ({len(values)}, {rows})")
        return None
    result = np.full((rows, len(aus)), NOT_ANNOTATED, np.float32)
    path = graded.annotations[index].path
    check_range(values, graded.aus, lambda row: f"{path} line {row + 2}", levels=True)
    at = [aus.index(au) for au in graded.aus if au in aus]
    columns = [k for k, au in enumerate(graded.aus) if au in aus]
    result[:, at] = intensity_of(values[:, columns])
    return result


def _find_media(layout: Layout, annotation: Annotation, allow_missing: bool, notes: Notes) -> Media | None:
    """Return the movie or the crops of a video; None without a readable one, if `allow_missing` is set.

    Raises:
        DataError: there is neither, or the movie cannot be opened, and `allow_missing` is not set.
    """
    path = layout.source(annotation.video)
    if path is not None and path.is_dir() and count_crops(path):
        return Media(path, Header(0, 0.0), "crops")
    header = read_movie_header(path) if path is not None and path.is_file() else None
    if path is not None and header is not None:
        return Media(path, header)
    what = "the movie cannot be opened" if path else "labels without a video"
    if not allow_missing:
        todo = "add the file, or omit such labels by --allow-missing"
        raise DataError(what, where=path or annotation.path, got=annotation.video, todo=todo)
    notes.add(f"labelled videos left out: {what}", annotation.video)
    return None
