"""Tables of events, `video,start,end,au[,intensity]`, and tables of coded AUs, `video,au[,start,end]`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupair.aus import check_au_names
from aupair.errors import DataError
from aupair.importing.events import LEVELS, CodedEvent, Span, code_everywhere
from aupair.importing.framewise import subjects_by_video, texts_or
from aupair.importing.recordings import natural_key
from aupair.importing.tables import TextTable, read_text_table

_COLUMNS = ("video", "start", "end", "au", "intensity", "subject")

Uncoded = Literal["absent", "missing"]


@dataclass
class VideoEvents:
    """The events of a video in one table, before the movie is looked up."""

    video: str
    path: Path
    subject: str
    events: list[CodedEvent]


def is_event_table(table: TextTable) -> bool:
    """Return whether a table has a row for each event."""
    return {"start", "end"} <= {name.lower() for name in table.header}


def unknown_columns(table: TextTable) -> list[str]:
    """Return the columns of a table of events that are not read."""
    return [name for name in table.header if name.lower() not in _COLUMNS]


def read_events(table: TextTable) -> tuple[list[VideoEvents], bool]:
    """Return the events of each video, and whether the table has intensities.

    A table without the column `video` belongs to the video with the name of the file, even if it has no row.

    Raises:
        DataError: a column is missing, or a cell has a wrong value.
    """
    aus, times, intensity = _aus(table), _times(table), _intensities(table)
    codes, names = texts_or(table, "video", table.path.stem)
    subjects = subjects_by_video(table, codes, names)
    result = [VideoEvents(name, table.path, subjects.get(name, ""), []) for name in names]
    for row, (code, au, (start, end), level) in enumerate(zip(codes.tolist(), aus, times.tolist(), intensity.tolist())):
        result[code].events.append(CodedEvent(au, start, end, level, table.where(row)))
    return result, table.index("intensity") is not None


def read_coded(path: Path, video_of: Callable[[str], str]) -> dict[str, dict[str, list[Span]]]:
    """Read the times in which each AU is coded, by video; an empty list means the whole video.

    Args:
        video_of: returns the name of a video in the data folder for the name in the table.

    Raises:
        DataError: a column is missing, a time ends before it starts, or an AU is coded both in the whole and in parts.
    """
    table = read_text_table(path)
    if table.index("video") is None:
        raise DataError("no column for the video", where=f"{path} line 1", expected="video,au[,start,end]")
    aus, (codes, names) = _aus(table), texts_or(table, "video", "")
    times = _times(table, ("",)) if table.index("start") is not None else np.full((len(table), 2), np.nan)
    result: dict[str, dict[str, list[Span]]] = {video_of(name): {} for name in names}
    for row, (code, au, (start, end)) in enumerate(zip(codes.tolist(), aus, times.tolist())):
        where, coded = table.where(row), result[video_of(names[code])]
        whole = bool(np.isnan(start))
        if whole != bool(np.isnan(end)):
            raise DataError("a time with only one end", where=where, expected="start and end, or neither")
        if au in coded and (whole or not coded[au]):
            raise DataError("an AU is coded in the whole video and listed twice", where=where, got=au)
        if end < start:
            raise DataError("a time ends before it starts", where=where, got=f"{start:g} to {end:g}")
        spans = coded.setdefault(au, [])
        spans += [] if whole else [Span(start, end, where)]
    return result


def merge_tables(videos: Sequence[VideoEvents]) -> list[VideoEvents]:
    """Merge the events of each video from all tables that contain it.

    Raises:
        DataError: two tables have events of one AU in one video, or disagree on the person.
    """
    merged: dict[str, VideoEvents] = {}
    for video in videos:
        one = merged.setdefault(video.video, video)
        if one is video:
            continue
        both = {event.au for event in one.events} & {event.au for event in video.events}
        if both or (one.subject and video.subject not in ("", one.subject)):
            what = "an AU of a video has events in two tables" if both else "two tables name different subjects"
            got = ", ".join(sorted(both)) or f"{one.subject} and {video.subject}"
            where = f"{one.path} and {video.path}"
            raise DataError(
                what, where=where, got=f"{video.video}: {got}", expected="one", todo="merge or correct them"
            )
        one.events = [*one.events, *video.events]
        one.subject = one.subject or video.subject
    return list(merged.values())


def coded_times(
    videos: Sequence[VideoEvents], coded: Mapping[str, Mapping[str, Sequence[Span]]] | None, uncoded: Uncoded
) -> dict[str, dict[str, tuple[Span, ...]]]:
    """Return the times in which the AUs of each video are coded, sorted by AU.

    Without `coded`, every AU of the tables counts as coded in the whole of every video, or, if `uncoded` is `missing`, in
    the whole of every video in which it has an event.

    Raises:
        DataError: `coded` does not list an AU of an event.
    """
    used = {video.video: sorted({event.au for event in video.events}, key=natural_key) for video in videos}
    every = sorted({au for aus in used.values() for au in aus}, key=natural_key)
    check_au_names(every, videos[0].path)
    if coded is None:
        return {name: code_everywhere(every if uncoded == "absent" else aus) for name, aus in used.items()}
    check_au_names(sorted({au for aus in coded.values() for au in aus} | set(every), key=natural_key), videos[0].path)
    for video in videos:
        for event in video.events:
            if event.au not in coded.get(video.video, ()):
                got = f"{video.video}, {event.au}"
                raise DataError(
                    "an event of an AU that is not coded", where=event.where, got=got, todo="list it in --coded"
                )
    return {name: {au: tuple(aus[au]) for au in sorted(aus, key=natural_key)} for name, aus in coded.items()}


def _aus(table: TextTable) -> list[str]:
    """Return the AU of each row."""
    codes, names = _column(table, "au")
    return [names[code] for code in codes.tolist()]


def _column(table: TextTable, name: str) -> tuple[np.ndarray, list[str]]:
    column = table.index(name)
    if column is None:
        raise DataError(f"no column {name}", where=f"{table.path} line 1", got=",".join(table.header)[:200])
    return table.texts(column) if len(table) else (np.zeros(0, np.int64), [])


def _times(table: TextTable, missing: Sequence[str] = ()) -> np.ndarray:
    """Return the start and the end of each row, (N, 2) float64; NaN for cells in `missing`."""
    result = []
    for name in ("start", "end"):
        column = table.index(name)
        if column is None:
            raise DataError(f"no column {name}", where=f"{table.path} line 1", got=",".join(table.header)[:200])
        result.append(table.numbers(column, missing, "a time"))
    return np.stack(result, axis=1)


def _intensities(table: TextTable) -> np.ndarray:
    """Return the intensity of each row, (N,) float64 from 1 to 5; NaN without one."""
    column = table.index("intensity")
    if column is None:
        return np.full(len(table), np.nan)
    cells = table.columns[column]
    at = pc.index_in(pc.utf8_upper(cells), value_set=pa.array(LEVELS))
    digits = pc.if_else(pc.is_null(at), cells, pc.take(pa.array(LEVELS.values()), pc.fill_null(at, 0)))
    columns = (*table.columns[:column], digits, *table.columns[column + 1 :])
    values = replace(table, columns=columns).numbers(column, ("", "NaN", "NA"), "1 to 5 or A to E")
    wrong = (values < 1) | (values > 5)
    if wrong.any():
        row = int(wrong.argmax())
        where, got = table.where(row, column), f"{values[row]:g}"
        raise DataError("an intensity out of range", where=where, got=got, expected="1 to 5 or A to E, or nothing")
    return values
