"""The files of a competition (`aupair submission`), from the tables of `aupair predict`: 0 or 1 for every frame and AU.

A missing decision (no face, a frame that cannot be decoded, or abstained) is replaced by the nearest decision of the video.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupair import store
from aupair.aus import AFFWILD2, compare_aus
from aupair.data.crops import frame_number
from aupair.errors import ArtifactError, DataError, ParamsError
from aupair.evaluation.nearest_face import fill_nearest
from aupair.inference.predictions import ABSTAIN, NO_DECISION
from aupair.inference.summary import SUMMARY, read_summary
from aupair.inference.videos import SUFFIXES
from aupair.log import SILENT, Log

_FORMS = ("files", "table")
"""files: `<video>.txt` for each; table: `predictions.txt` with a line `<video>/00001.jpg,0,1,...` for each frame."""

_MISSING = ("error", "zeros")
"""error: a video without predictions is an error; zeros: zeros are written for it."""

_TABLE = "predictions.txt"
_LOCATION = "image_location"
_HEADERS = ("video", "video_name", "name", "file", _LOCATION)
"""The first cells, in lower case, by which the header of a list is recognised."""


@dataclass(frozen=True)
class _SubmissionRow:
    """The result for one video.

    Attributes:
        video: its name in the submission.
        frames: the number of rows that were written.
        message: that there were fewer or more rows than expected, no decision, or no prediction; else empty.
    """

    video: str
    frames: int
    message: str = ""


def write_submission(
    predictions: Path,
    out: Path,
    expected: Path | None = None,
    *,
    form: str = "files",
    missing: str = "error",
    log: Log = SILENT,
) -> list[_SubmissionRow]:
    """Write the competition's files, after all predictions have been read.

    Args:
        predictions: the folder that predict wrote.
        out: the folder of the files; other files in it are not changed.
        expected: a list of the videos and their numbers of frames, see `_read_expected`; None: all predicted videos.
        form: one of _FORMS.
        missing: one of _MISSING.

    Raises:
        ParamsError: `form` or `missing` is unknown.
        DataError: the list cannot be read, or a video of it has no prediction.
        ArtifactError: a table was not written by predict, or has other AUs than the others.
    """
    for option, value, known in (("--form", form, _FORMS), ("--missing", missing, _MISSING)):
        if value not in known:
            raise ParamsError(f"{option} has an unknown value", got=value, expected=" | ".join(known))
    tables = _list_tables(predictions)
    frames_of = _predicted_videos(predictions, tables) if expected is None else _read_expected(expected)
    if missing == "error":
        _check_missing(frames_of, tables, predictions, expected)
    aus = _common_aus([tables[video] for video in frames_of if video in tables] or list(tables.values()))
    if difference := compare_aus(aus, AFFWILD2):
        log.line(f"not the AUs of Aff-Wild2's challenges: {difference}")
    rows, decisions = [], {}
    for video, frames in log.progress(frames_of.items(), len(frames_of), "videos"):
        row, decisions[video] = _fill_video(video, frames, tables.get(video), aus)
        rows.append(row)
        if row.message:
            log.line(f"{video}: {row.message}")
    (_write_files if form == "files" else _write_table)(out, aus, decisions)
    written = {_TABLE} if form == "table" else {f"{video}.txt" for video in decisions}
    others = {
        "predicted videos are not in the list": sorted(set(tables) - set(frames_of)),
        f"other files are in {out}": sorted({path.name for path in out.glob("*.txt")} - written),
    }
    for what, names in others.items():
        if names:
            log.line(f"{len(names)} {what}: {', '.join(names[:3])}")
    return rows


def _read_expected(path: Path) -> dict[str, int | None]:
    """Read the videos of a submission and the number of frames of each; None if the list does not contain it.

    The list has one of three forms: a text file, with or without a header, with a line `name,frames`, `name frames` or `name`
    for each video; the competition's template with a line `name/00001.jpg,...` for each frame; or a folder with a file
    `<video>.txt` for each video, whose rows below the header are counted.

    Raises:
        DataError: the list is missing or empty, or a line is malformed.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.txt")) if not file.name.startswith(".")]
        frames_of: dict[str, int | None] = {file.stem: max(len(_lines(file)) - 1, 0) or None for file in files}
    else:
        frames_of = {}
        for number, line in enumerate(_lines(path), start=1):
            video, frames = _parse_line(line, f"{path} line {number}", first=number == 1)
            if video in frames_of and "/" not in line:
                raise DataError(
                    "a video is listed twice", where=f"{path} line {number}", got=line, expected="one line a video"
                )
            if video:
                frames_of[video] = max(frames, frames_of.get(video) or 0) if frames else None
    if not frames_of:
        raise DataError("no video in the list", where=path, expected="lines such as video,frames")
    return frames_of


def _common_aus(tables: Sequence[Path]) -> tuple[str, ...]:
    """Return the AUs that all tables of predict have.

    Raises:
        ArtifactError: a table was not written by predict, or has other AUs than the first.
    """
    first = _read_aus(tables[0])
    for path in tables[1:]:
        if difference := compare_aus(_read_aus(path), first):
            expected = f"{', '.join(first)}, as in {tables[0].name}"
            todo = "predict all videos with the same model and --aus"
            raise ArtifactError("a table with other AUs", where=path, got=difference, expected=expected, todo=todo)
    return first


def _read_aus(path: Path) -> tuple[str, ...]:
    """Return the AUs of a table of predict, from its columns of confidences.

    Raises:
        ArtifactError: the table has no such column.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error) as error:
        raise _not_a_table(path, error) from error
    ending = "_confidence"
    if aus := tuple(name.removesuffix(ending) for name in header if name.endswith(ending)):
        return aus
    raise _not_a_table(path, "no AU")


def _read_decisions(path: Path, aus: Sequence[str]) -> np.ndarray:
    """Read the decisions of a table of predict: (n, A) int8, 1 active, 0 not, -1 no face or abstained.

    Raises:
        ArtifactError: a column or a frame is missing, or a cell has another value.
    """
    columns = ["frame", *aus]
    options = pa.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
    try:
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _not_a_table(path, error) from error
    if table["frame"].to_pylist() != [str(k) for k in range(len(table))]:
        raise _not_a_table(path, "frames that are not 0, 1, 2 ...")
    meanings = {"0": 0, "1": 1, "": NO_DECISION, ABSTAIN: NO_DECISION}
    decisions = np.empty((len(table), len(aus)), np.int8)
    for k, au in enumerate(aus):
        cells = pc.index_in(table[au], pa.array(meanings))
        if cells.null_count:
            raise _not_a_table(path, f"another value in the column {au}")
        decisions[:, k] = np.array(list(meanings.values()))[cells.to_numpy()]
    return decisions


def _fill_decisions(decisions: np.ndarray, frames: int | None) -> np.ndarray:
    """Fill missing decisions: (n, A) int8 with -1 where there is none -> (frames, A) int8, 0 or 1.

    Each AU takes its nearest decision (the earlier of two equally near ones), or 0 if it has none. `frames` None: n.
    """
    frames = len(decisions) if frames is None else frames
    missing = np.full((max(frames - len(decisions), 0), decisions.shape[1]), NO_DECISION, np.int8)
    rows = np.concatenate([decisions, missing])
    same_video = np.zeros(len(rows), np.int64)
    columns = [fill_nearest(column, column != NO_DECISION, same_video, empty=0) for column in rows.T]
    return np.stack(columns, axis=1)[:frames]


def _fill_video(
    video: str, frames: int | None, table: Path | None, aus: Sequence[str]
) -> tuple[_SubmissionRow, np.ndarray]:
    """Read the decisions of a video and fill the missing ones."""
    if table is None and frames is None:
        todo = "zeros need its number of frames: name it in --expected"
        raise DataError("a video without a prediction", where=video, todo=todo)
    decisions = np.empty((0, len(aus)), np.int8) if table is None else _read_decisions(table, aus)
    full = _fill_decisions(decisions, frames)
    message = "no prediction, zeros are written" if table is None else _message(decisions, frames, aus)
    return _SubmissionRow(video, len(full), message), full


def _message(decisions: np.ndarray, frames: int | None, aus: Sequence[str]) -> str:
    """Return what is missing in the predictions of a video as text; empty if they are complete."""
    decided = (decisions != NO_DECISION).any(axis=0)
    undecided = [au for au, some in zip(aus, decided) if not some]
    parts = []
    if not decided.any():
        parts.append("no frame with a decision, zeros are written")
    elif undecided:
        parts.append(f"no decision for {', '.join(undecided)}, zeros are written")
    if frames is not None and len(decisions) != frames:
        how = "the last is repeated" if len(decisions) < frames else "the rest is cut off"
        parts.append(f"{len(decisions)} rows predicted, {frames} expected, {how}")
    return "; ".join(parts)


def _list_tables(predictions: Path) -> dict[str, Path]:
    """Return the tables of a folder that predict wrote, by video."""
    if not predictions.is_dir():
        raise DataError("no folder of predictions", where=predictions, todo="run `aupair predict` first")
    tables = {path.stem: path for path in sorted(predictions.glob("*.csv")) if path.stem != SUMMARY}
    if not tables:
        raise DataError("no prediction", where=predictions, expected="<video>.csv", todo="run `aupair predict` first")
    return tables


def _predicted_videos(predictions: Path, tables: Mapping[str, Path]) -> dict[str, int | None]:
    """Return the videos of a folder of predictions, beginning with unreadable ones, which only the summary contains."""
    path = predictions / f"{SUMMARY}.csv"
    rows = read_summary(path) if path.exists() else []
    return dict.fromkeys([*(_name(Path(row.video).name) for row in rows if not row.output), *tables])


def _check_missing(videos: Iterable[str], tables: Mapping[str, Path], predictions: Path, expected: Path | None) -> None:
    """Check that every video has a prediction."""
    missing = [video for video in videos if video not in tables]
    if missing:
        raise DataError(
            "a video without a prediction",
            where=expected or predictions / f"{SUMMARY}.csv",
            got=", ".join(missing[:3]) + (f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""),
            expected=predictions / f"{missing[0]}.csv",
            todo="predict it, or write zeros by --missing zeros",
        )


def _lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("not a readable list", where=path, got=type(error).__name__, expected="a text file") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parse_line(line: str, where: str, first: bool) -> tuple[str, int | None]:
    """Return the video of a line and its number of frames, or None if it is not given; the video of a header is empty."""
    cells = [cell.strip() for cell in line.split(",")] if "," in line else line.split()
    video, slash, image = cells[0].partition("/")
    if slash:
        frame = frame_number(image)
        if frame is None or frame < 0:
            raise DataError("not the path of an image", where=where, got=cells[0], expected="video/00001.jpg")
        return video, frame + 1
    if first and cells[0].lower() in _HEADERS:
        return "", None
    if not cells[0] or len(cells) > 2 or (len(cells) == 2 and not (cells[1].isdecimal() and int(cells[1]))):
        raise DataError("not a line of the list", where=where, got=line, expected="video,frames")
    return _name(cells[0]), int(cells[1]) if len(cells) == 2 else None


def _name(text: str) -> str:
    """Return a video's name without a suffix such as .mp4 or .txt."""
    stem, dot, suffix = text.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in (*SUFFIXES, ".txt") else text


def _not_a_table(path: Path, got: object) -> ArtifactError:
    """Return the error for a file that is not a table of predict."""
    expected = "frame,status,AU1 ..."
    return ArtifactError("not a table of predictions", where=path, got=got, expected=expected, todo="predict again")


def _write_files(out: Path, aus: Sequence[str], decisions: Mapping[str, np.ndarray]) -> None:
    """Write a file for each video."""
    for video, rows in decisions.items():
        store.write_text(out / f"{video}.txt", "\n".join([",".join(aus), *_cells(rows)]) + "\n")


def _write_table(out: Path, aus: Sequence[str], decisions: Mapping[str, np.ndarray]) -> None:
    """Write one file for all videos, with a line for each image; images are counted from 1."""
    with store.atomic(out / _TABLE) as temporary, open(temporary, "w") as file:
        file.write(",".join([_LOCATION, *aus]) + "\n")
        for video, rows in decisions.items():
            file.writelines(f"{video}/{k:05d}.jpg,{cells}\n" for k, cells in enumerate(_cells(rows), start=1))


def _cells(rows: np.ndarray) -> Iterator[str]:
    """Yield each row as comma-separated digits."""
    return (",".join(map(str, row)) for row in rows.tolist())
