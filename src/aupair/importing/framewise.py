"""Labels in tables with a row for each frame: the frame's number, and a column for each AU."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aupair.aus import NOT_ANNOTATED, check_au_names
from aupair.errors import DataError
from aupair.importing.recordings import Media, Notes
from aupair.importing.tables import MISSING, TextTable, read_text_table

_NOT_AUS = ("video", "frame", "subject")
CHOOSE_AUS = "--aus names the columns that are AUs"
_NO_OCCURRENCE = f"--levels reads intensities from 0 to 5; --missing names another code for no label; {CHOOSE_AUS}"
ASK_FIRST = "add --first-frame 1 if frames are counted from 1, else --first-frame 0"
_LEFT_OUT = ("", "timestamp", "confidence", "success", "face_id", "comment", "notes")
"""Columns that are not AUs unless --aus names them; a column without a name is an index."""

MAX_FRAMES = 1 << 22
"""Maximum number of frames of a video, more than 19 hours at 60 per second; a larger number is not a frame number."""


@dataclass(frozen=True)
class FrameLabels:
    """The labels of one video in one table.

    Attributes:
        video: the name that the table uses.
        aus: the A AUs.
        frames: (n,) int64, ascending frame numbers of the table.
        values: (n, A) float64, NaN if not labelled.
        subject: the person; empty if the table does not state it.
        path: the table.
    """

    video: str
    aus: tuple[str, ...]
    frames: np.ndarray
    values: np.ndarray
    subject: str
    path: Path

    def spread(self, first_frame: int) -> np.ndarray:
        """Return the labels by frame, (N, A) float64: row k is frame k of the video, NaN if not labelled."""
        result = np.full((int(self.frames[-1]) - first_frame + 1, len(self.aus)), np.nan)
        result[self.frames - first_frame] = self.values
        return result


def read_frame_labels(
    table: TextTable, aus: Sequence[str] = (), missing: Sequence[str] = (), levels: bool = False
) -> Iterator[FrameLabels]:
    """Yield the labels of each video of a table.

    Args:
        aus: the columns that are AUs; by default every column other than video, frame, subject and `_LEFT_OUT`.
        missing: further cells besides MISSING that mean "not labelled"; numbers match in any notation, as 9.0 for 9.
        levels: whether the values are intensities.

    Raises:
        DataError: a column is missing, named twice or reserved, a cell is not a number or out of range, or a frame is
            listed twice.
    """
    columns = _au_columns(table, aus)
    if not len(table):
        return
    frame = _frame_numbers(table)
    codes = [*MISSING, *missing]
    todo = CHOOSE_AUS if table.first_line > 1 else ""  # a file without a header has no names to choose from
    values = np.stack([table.numbers(k, codes, "a label", todo) for k in columns.values()], axis=1)
    values[np.isin(values, _numbers_in(codes))] = np.nan
    check_range(values, tuple(columns), table.where, levels)
    video_codes, names = texts_or(table, "video", table.path.stem)
    order = np.lexsort((frame, video_codes))
    _check_repeated(table, video_codes, frame, order)
    subjects = subjects_by_video(table, video_codes, names)
    edges = np.searchsorted(video_codes[order], np.arange(len(names) + 1))
    for video, start, stop in zip(names, edges[:-1], edges[1:]):
        rows = order[start:stop]
        yield FrameLabels(video, tuple(columns), frame[rows], values[rows], subjects.get(video, ""), table.path)


def read_single(path: Path, au: str, missing: Sequence[str] = ()) -> FrameLabels:
    """Read a file of lines `frame,intensity` about one AU of one video, without a header.

    Raises:
        DataError: a cell is not a number or out of range, or a frame is listed twice.
    """
    table = read_text_table(path, header=("frame", au))
    if not len(table):
        raise DataError("an empty file", where=path, expected="lines frame,value")
    (labels,) = read_frame_labels(table, (au,), missing, levels=True)
    return labels


def stack_frames(labels: Sequence[FrameLabels], first_frame: int) -> np.ndarray:
    """Concatenate the AUs of one video from several files: (N, A) float64, NaN if not labelled.

    Raises:
        DataError: a file lists a frame before the first.
    """
    resolve_first_frame(labels, first_frame)
    parts = [part.spread(first_frame) for part in labels]
    result = np.full((max(map(len, parts)), sum(part.shape[1] for part in parts)), np.nan)
    column = 0
    for part in parts:
        result[: len(part), column : column + part.shape[1]] = part
        column += part.shape[1]
    return result


def resolve_first_frame(labels: Sequence[FrameLabels], first_frame: int | None) -> int:
    """Return the number of the first frame: 0 or 1.

    Raises:
        DataError: a table has a frame before the first; or `first_frame` is None, and the lowest frame of all tables is 1.
    """
    lowest = min(labels, key=lambda part: int(part.frames[0]))
    start = int(lowest.frames[0])
    if first_frame is None and start == 1:
        raise DataError("are frames counted from 0 or from 1?", where=lowest.path, got="no frame 0", todo=ASK_FIRST)
    first = first_frame or 0
    if start < first:
        where = f"{lowest.path} video {lowest.video}"
        todo = "if other videos count from 1, convert this one" if start == 0 else ""
        raise DataError("a frame before the first", where=where, got=start, expected=first, todo=todo)
    return first


def check_range(values: np.ndarray, aus: Sequence[str], where: Callable[[int], str], levels: bool) -> None:
    """Raise a DataError if a value is neither NaN nor an occurrence or, with `levels`, an intensity.

    Args:
        values: (n, A) float64.
        where: returns the location of a row for the error.
    """
    wrong = ~(np.isnan(values) | (((values >= 0) & (values <= 5)) if levels else np.isin(values, (0, 1))))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what, expected, todo = (
            ("an intensity out of range", "0 to 5, or nothing", "")
            if levels
            else ("a label out of range", "0 or 1, or nothing", _NO_OCCURRENCE)
        )
        place, got = f"{where(int(row))} column {aus[column]}", f"{values[row, column]:g}"
        raise DataError(what, where=place, got=got, expected=expected, todo=todo)


def occurrence_of(values: np.ndarray) -> np.ndarray:
    """Return occurrences, (N, A) int8, from values of 0, 1 and NaN."""
    return np.where(np.isnan(values), NOT_ANNOTATED, values).astype(np.int8)


def intensity_of(values: np.ndarray) -> np.ndarray:
    """Return intensities, (N, A) float32, from values of 0 to 5 and NaN."""
    return np.where(np.isnan(values), NOT_ANNOTATED, values).astype(np.float32)


def is_left_out(name: str) -> bool:
    """Return whether the name of a column is known for other content than labels."""
    return name.lower() in _LEFT_OUT or name.lower().startswith("unnamed:")


def check_threshold(threshold: float) -> None:
    """Raise a DataError unless a threshold of intensities is in (0, 5]."""
    if not 0 < threshold <= 5:
        expected = "more than 0, at most 5"
        raise DataError("not a threshold of intensities", where="--threshold", got=f"{threshold:g}", expected=expected)


def active_from(intensity: np.ndarray, threshold: float) -> np.ndarray:
    """Return the occurrences of intensities, (N, A) int8: 1 for intensities of at least `threshold`."""
    return np.where(intensity == NOT_ANNOTATED, NOT_ANNOTATED, intensity >= threshold).astype(np.int8)


def count_rows(labels: FrameLabels, first_frame: int, media: Media, notes: Notes) -> int:
    """Return the number of label rows to compare with the number of frames of the video.

    If the table lists all frames up to its last one, labelled or not, it is their number. Otherwise, which is noted, the
    labels cover parts of the video and their end is no evidence about its frame rate: it is at least the number of frames.
    """
    rows = int(labels.frames[-1]) - first_frame + 1
    if rows == len(labels.frames):
        return rows
    rows = max(rows, media.header.frames)
    example = f"{labels.video} ({rows - len(labels.frames):,})"
    notes.add("videos with frames that their table does not list, these are not labelled", example)
    return rows


def subjects_by_video(table: TextTable, codes: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    """Return the subject of each video from the column `subject`; empty without the column.

    Raises:
        DataError: a video has two subjects.
    """
    column = table.index("subject")
    if column is None:
        return {}
    subject_codes, subjects = table.texts(column)
    first: dict[str, str] = {}
    pairs, at = np.unique(codes.astype(np.int64) * len(subjects) + subject_codes, return_index=True)
    for pair, row in zip(pairs.tolist(), at.tolist()):
        video, subject = names[pair // len(subjects)], subjects[pair % len(subjects)]
        if first.setdefault(video, subject) != subject:
            got = f"{video}: {subject}"
            raise DataError("a video has two subjects", where=table.where(row), got=got, expected=first[video])
    return first


def texts_or(table: TextTable, name: str, otherwise: str) -> tuple[np.ndarray, list[str]]:
    """Return a column of names as codes and names; without the column, all rows have the name `otherwise`."""
    column = table.index(name)
    return (np.zeros(len(table), np.int64), [otherwise]) if column is None else table.texts(column)


def _numbers_in(codes: Sequence[str]) -> list[float]:
    """Return the codes that are numbers."""
    return [float(code) for code in codes if re.fullmatch(r"-?\d+(\.\d+)?", code)]


def _au_columns(table: TextTable, aus: Sequence[str]) -> dict[str, int]:
    """Return the index of the column of each AU."""
    where = f"{table.path} line 1"
    names = [name for name in table.header if name.lower() not in _NOT_AUS and (aus or not is_left_out(name))]
    for au in aus:
        if au not in names:
            raise DataError("no column for an AU", where=where, got=",".join(names)[:200] or "no AU", expected=au)
    names = [name for name in names if not aus or name in aus]
    try:
        check_au_names(names, where)
    except DataError as error:
        raise DataError(f"{error}; {CHOOSE_AUS}") from error
    return {name: table.header.index(name) for name in names}


def _frame_numbers(table: TextTable) -> np.ndarray:
    """Return the number of each row's frame, (N,) int64."""
    column = table.index("frame")
    if column is None:
        raise DataError("no column for the frame", where=f"{table.path} line 1", got=",".join(table.header)[:200])
    values = table.numbers(column, expected="the number of a frame")
    wrong = (values < 0) | (values >= MAX_FRAMES) | (values % 1 != 0)
    if wrong.any():
        row = int(wrong.argmax())
        where, got = table.where(row, column), f"{values[row]:g}"
        raise DataError("not the number of a frame", where=where, got=got, expected="a whole number, at least 0")
    return values.astype(np.int64)


def _check_repeated(table: TextTable, codes: np.ndarray, frame: np.ndarray, order: np.ndarray) -> None:
    """Raise a DataError if a frame of a video has two rows."""
    same = (np.diff(codes[order]) == 0) & (np.diff(frame[order]) == 0)
    if same.any():
        first, second = sorted(order[int(same.argmax()) :][:2].tolist())
        line = first + table.first_line
        raise DataError(
            "a frame is listed twice", where=table.where(second), got=frame[second], expected=f"once, as in line {line}"
        )
