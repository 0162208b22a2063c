"""The option `--subjects`: a table video,subject of the person in each video."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aupair.errors import DataError
from aupair.importing.movies import Movies, video_name
from aupair.importing.recordings import Notes, Recording
from aupair.importing.tables import TextTable, read_text_table


def with_subjects(recordings: Sequence[Recording], path: Path, movies: Movies, notes: Notes) -> list[Recording]:
    """Return recordings with the subjects of a table, which take precedence; note the rows that name no labelled video.

    The table may use a video's name in the data folder or any name of its movie, as labels may.

    Raises:
        DataError: the table cannot be read, or has two subjects for one video.
    """
    table = read_text_table(path)
    subjects: dict[str, str] = {}
    by_name = {r.video.lower(): r.video for r in recordings}
    by_movie = {r.media.path: r.video for r in recordings if r.movie in ("", r.video)}
    for row, (name, subject) in enumerate(zip(_names(table, "video"), _names(table, "subject"))):
        video = by_name.get(video_name(name).lower()) or by_movie.get(movies.find(name) or Path())
        if not video:
            notes.add("rows of --subjects that name no labelled video, without effect", name)
        elif subjects.setdefault(video, subject) != subject:
            got = f"{name}: {subject}"
            raise DataError("a video has two subjects", where=table.where(row), got=got, expected=subjects[video])
    return [replace(r, subject=subjects.get(r.video, r.subject)) for r in recordings]


def _names(table: TextTable, name: str) -> list[str]:
    """Return the cells of a column of names; raise a DataError if the table has no such column."""
    column = table.index(name)
    if column is None:
        where, got = f"{table.path} line 1", ",".join(table.header)[:200]
        raise DataError("wrong header", where=where, got=got, expected="video,subject")
    codes, names = table.texts(column)
    return [names[code] for code in codes.tolist()]
