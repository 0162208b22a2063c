"""The kind `csv`: tables of your own, with a row for each frame or for each event."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aupair.errors import DataError
from aupair.importing.csv_options import CsvOptions
from aupair.importing.event_tables import (
    VideoEvents,
    coded_times,
    is_event_table,
    merge_tables,
    read_coded,
    read_events,
    unknown_columns,
)
from aupair.importing.events import Clock, EventLabels, label_frames
from aupair.importing.framewise import (
    ASK_FIRST,
    FrameLabels,
    active_from,
    check_threshold,
    count_rows,
    intensity_of,
    is_left_out,
    occurrence_of,
    read_frame_labels,
    resolve_first_frame,
)
from aupair.importing.movies import Movies, video_name
from aupair.importing.recordings import Media, Notes, Recording, merge_recordings, natural_key
from aupair.importing.subjects import with_subjects
from aupair.importing.tables import TextTable, read_text_table, split_header


def read_csv_labels(source: Path, options: CsvOptions, out: Path, notes: Notes) -> list[Recording]:
    """Read one table, or all tables of a folder; tables with different AUs of a video are merged.

    Raises:
        DataError: a table or a value is wrong, or labels have no video.
    """
    tables = [read_text_table(path) for path in list_tables(source, out, (options.subjects, options.coded), notes)]
    movies = Movies(options.videos or (source if source.is_dir() else source.parent), out)
    if options.threshold is not None:
        check_threshold(options.threshold)
    by_event = [table for table in tables if is_event_table(table)]
    by_frame = [table for table in tables if not is_event_table(table)]
    options.check_effects(by_frame, by_event)
    recordings = _read_frames(by_frame, movies, options, notes) if by_frame else []
    recordings += _read_events(by_event, movies, options, notes) if by_event else []
    notes.add("videos without labels, left out", *movies.unused())
    recordings = [replace(r, movie=movies.title(r.media.path)) for r in merge_recordings(recordings)]
    return with_subjects(recordings, options.subjects, movies, notes) if options.subjects else recordings


def _read_frames(tables: Sequence[TextTable], movies: Movies, options: CsvOptions, notes: Notes) -> list[Recording]:
    """Return the recordings of tables with a row for each frame."""
    labels = [
        part for table in tables for part in read_frame_labels(table, options.aus, options.missing, options.levels)
    ]
    _note_columns(tables, options.aus, notes)
    notes.add("tables without a row, left out", *(str(table.path) for table in tables if not len(table)))
    if not labels:
        raise DataError("no label", where=tables[0].path, expected="a row for each frame")
    first = resolve_first_frame(labels, options.first_frame)
    media = find_media([(part.video, part.path) for part in labels], movies, options.allow_missing, notes)
    videos = [(part, movies.video(part.video)) for part in labels]
    return [_frame_recording(part, v, media[v], first, options, notes) for part, v in videos if v in media]


def _read_events(tables: Sequence[TextTable], movies: Movies, options: CsvOptions, notes: Notes) -> list[Recording]:
    """Return the recordings of tables with a row for each event."""
    videos: list[VideoEvents] = []
    intensities = False
    notes.add("columns left out", *dict.fromkeys(name for table in tables for name in unknown_columns(table)))
    for table in tables:
        events, stated = read_events(table)
        videos, intensities = [*videos, *events], intensities or stated
    media = find_media([(video.video, video.path) for video in videos], movies, options.allow_missing, notes)
    videos = merge_tables([replace(video, video=movies.video(video.video)) for video in videos])
    coded = None
    if options.coded:
        coded = read_coded(options.coded, movies.video)
        others = [name for name in coded if name not in {video.video for video in videos}]
        media |= find_media([(name, options.coded) for name in others], movies, options.allow_missing, notes)
        videos += [VideoEvents(name, options.coded, "", []) for name in others]
    if not videos:
        notes.add("tables without a row, left out", *(str(table.path) for table in tables))
        return []
    times = coded_times(videos, coded, options.uncoded)
    if coded is None and options.uncoded == "absent":
        _note_absent([video for video in videos if video.video in media], notes)
    clock = Clock(options.unit, options.first_frame or 0, options.fps)
    return [
        label_frames(
            EventLabels(v.video, media[v.video], v.events, times[v.video], v.path, v.subject, intensities),
            clock,
            options.active_from,
            notes,
        )
        for v in videos
        if v.video in media
    ]


def _note_absent(videos: Sequence[VideoEvents], notes: Notes) -> None:
    """Note the AUs that have no event in some videos."""
    counts = Counter(au for video in videos for au in {event.au for event in video.events})
    notes.add(
        "AUs without an event in some videos, counted as inactive there (--uncoded missing: not labelled)",
        *(
            f"{au} ({len(videos) - counts[au]} of {len(videos)} videos)"
            for au in sorted(counts, key=natural_key)
            if counts[au] < len(videos)
        ),
    )


def list_tables(source: Path, out: Path, others: Sequence[Path | None], notes: Notes) -> list[Path]:
    """List the tables of a folder except `others`, or the one file; note the files and folders that are not read.

    Raises:
        DataError: the folder has no table.
    """
    if source.is_file():
        return [source]
    skip = {path.resolve() for path in others if path}
    paths = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in (".csv", ".tsv", ".txt")
        and not path.name.startswith(".")
        and skip.isdisjoint((path.resolve(), *path.resolve().parents))
        and not (out.resolve() != source.resolve() and out.resolve() in path.resolve().parents)
    ]
    top = [path for path in paths if path.parent == source]
    readable = [path for path in paths if path.suffix.lower() != ".txt" or _has_header(path)]
    tables = [path for path in readable if path.parent == source]
    below = [str(path) for path in readable if path.parent != source]
    if not tables:
        got = f"tables only in folders below, such as {below[0]}" if below else ""
        raise DataError("no tables", where=source, got=got, expected="<video>.csv")
    notes.add("text files without the header of a table, left out", *(str(p) for p in top if p not in tables))
    notes.add("tables in folders below that of the labels, left out", *below)
    return tables


def _has_header(path: Path) -> bool:
    """Return whether the first line of a file is the header of a table of frames or events."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = {name.lower() for name in split_header(file.readline(100_000))[0]}
    return "frame" in names or {"start", "end"} <= names


def find_media(
    labels: Sequence[tuple[str, Path]], movies: Movies, allow_missing: bool, notes: Notes
) -> dict[str, Media]:
    """Return the movie of each video, by the video's name in the data folder.

    Args:
        labels: pairs of a name and the file that uses it.
        allow_missing: whether to omit and note videos without a readable movie instead of raising an error.

    Raises:
        DataError: a name has no movie, or the movie cannot be opened, and `allow_missing` is not set.
    """
    result: dict[str, Media] = {}
    absent: dict[str, tuple[str, Path]] = {}
    for name, origin in labels:
        path = movies.find(name)
        media = movies.open(path) if path else None
        if media is None:
            absent[name] = ("the movie cannot be opened" if path else "labels without a video", origin)
        else:
            result[movies.video(name)] = media
    for name, (what, origin) in absent.items():
        if not allow_missing:
            others = len(absent) - 1
            more = f" (and {others} more)" if others else ""
            todo = "name the folder of the movies by --videos, or omit such labels by --allow-missing"
            raise DataError(
                what, where=origin, got=f"{name}{more}", expected=f"{movies.folder}/{video_name(name)}.mp4", todo=todo
            )
        notes.add(f"labelled videos left out: {what}", name)
    return result


def _frame_recording(
    part: FrameLabels, video: str, media: Media, first: int, options: CsvOptions, notes: Notes
) -> Recording:
    """Return the recording of the labels of one video."""
    _check_last_frame(part, media, options)
    rows = count_rows(part, first, media, notes)
    values = part.spread(first)
    values = np.pad(values, ((0, rows - len(values)), (0, 0)), constant_values=np.nan)
    if options.levels:
        intensity = intensity_of(values)
        occurrence = active_from(intensity, options.active_from)
    else:
        intensity, occurrence = None, occurrence_of(values)
    files = {part.path: rows}
    return Recording(video, media, part.aus, occurrence, intensity, part.path, part.subject, rows=files)


def _note_columns(tables: Sequence[TextTable], aus: Sequence[str], notes: Notes) -> None:
    """Note the columns that are not read: those that are not chosen, or known for other content than labels."""
    used = {"video", "frame", "subject", *(au.lower() for au in aus)}
    names = dict.fromkeys(name for table in tables for name in table.header if name.lower() not in used)
    notes.add("columns left out", *(name or "(unnamed)" for name in names if aus or is_left_out(name)))


def _check_last_frame(part: FrameLabels, media: Media, options: CsvOptions) -> None:
    """Raise a DataError if frames may be counted from 1 although `first_frame` is not given."""
    frames = media.header.frames
    if options.first_frame is None and int(part.frames[0]) > 0 and int(part.frames[-1]) == frames:
        where, got = f"{part.path} video {part.video}", f"frames {part.frames[0]} to {frames} of {frames}"
        raise DataError("are frames counted from 0 or from 1?", where=where, got=got, todo=ASK_FIRST)
