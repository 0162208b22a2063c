"""A submission to the competition: what predict wrote, as its files, with a row of 0 and 1 for every frame.

    aupair submission predictions --out submission --expected test_set.txt

A frame without a face, that cannot be decoded, or that abstains takes the nearest decision of its video.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupair import store
from aupair.aus import AUS
from aupair.data.crops import frame_number
from aupair.errors import ArtifactError, DataError, ParamsError
from aupair.evaluation.nearest_face import fill_nearest
from aupair.inference.predict import SUFFIXES, SUMMARY
from aupair.inference.predictions import ABSTAIN
from aupair.log import SILENT, Log

FORMS = ("files", "table")
"""files: `<video>.txt` for each; table: `predictions.txt` with a line `<video>/00001.jpg,0,1,...` for each frame."""

MISSING = ("error", "zeros")
"""What is done about a video of the list without a prediction."""

TABLE = "predictions.txt"
LOCATION = "image_location"
HEADERS = ("video", "video_name", "name", "file", LOCATION)
"""What the first cell of a list's header may be, in any case."""

OPEN = -1
"""In an array of decisions: none yet."""


@dataclass(frozen=True)
class SubmissionRow:
    """What became of one video.

    Attributes:
        video: its name in the submission.
        predicted: rows of its table; 0 where there is none.
        frames: rows that were written.
        filled: rows with a decision that is another row's, or a zero for want of any.
        message: what is odd: fewer or more rows than expected, no face at all, no prediction.
    """

    video: str
    predicted: int
    frames: int
    filled: int
    message: str = ""


def write_submission(
    predictions: Path,
    out: Path,
    expected: Path | None = None,
    *,
    form: str = "files",
    missing: str = "error",
    log: Log = SILENT,
) -> list[SubmissionRow]:
    """Write the competition's files; nothing is written before all is read.

    Args:
        predictions: the folder that predict wrote.
        out: a folder; files of other names in it stay.
        expected: the videos and how many frames each has, see `read_expected`; None: what is predicted, as it is.
        form: one of FORMS.
        missing: one of MISSING.

    Raises:
        ParamsError: an unknown form or way.
        DataError: the list cannot be read, or a video of it has no prediction.
        ArtifactError: a table is not one of predict's.
    """
    for option, value, known in (("--form", form, FORMS), ("--missing", missing, MISSING)):
        if value not in known:
            raise ParamsError(option, got=value, expected=" | ".join(known))
    tables = _tables(predictions)
    wanted = _failed(predictions) | dict.fromkeys(tables) if expected is None else read_expected(expected)
    if missing == "error":
        _check_missing(wanted, tables, predictions, expected)
    rows, decisions = [], {}
    for video, frames in log.progress(wanted.items(), len(wanted), "videos"):
        row, decisions[video] = _complete(video, frames, tables.get(video))
        rows.append(row)
        if row.message:
            log.line(f"{video}: {row.message}")
    (_write_files if form == "files" else _write_table)(out, decisions)
    written = {TABLE} if form == "table" else {f"{video}.txt" for video in decisions}
    others = {
        "predicted videos are not in the list": sorted(set(tables) - set(wanted)),
        f"other files lie in {out}": sorted({path.name for path in out.glob("*.txt")} - written),
    }
    for what, names in others.items():
        if names:
            log.line(f"{len(names)} {what}: {', '.join(names[:3])}")
    return rows


def read_expected(path: Path) -> dict[str, int | None]:
    """Read which videos a submission has, and how many frames each; None where the list does not say.

    A text file with a line a video, `name,frames` or `name frames` or `name`, a header or none; or the competition's
    template, `name/00001.jpg,...` with a line for each frame; or a folder with a `<video>.txt` for each, whose rows
    below the header are counted.

    Raises:
        DataError: it is missing, empty, or a line is of neither kind.
    """
    if path.is_dir():
        found = {file.stem: _lines(file) for file in sorted(path.glob("*.txt")) if not file.name.startswith(".")}
        wanted: dict[str, int | None] = {name: max(len(lines) - 1, 0) or None for name, lines in found.items()}
    else:
        wanted = {}
        for number, line in enumerate(_lines(path), start=1):
            video, frames = _expected(line, f"{path} line {number}", first=number == 1)
            if video in wanted and "/" not in line:
                raise DataError("a video twice", where=f"{path} line {number}", got=line, expected="one line a video")
            if video:
                wanted[video] = max(frames, wanted.get(video) or 0) if frames else None
    if not wanted:
        raise DataError("no video in the list", where=path, expected="lines such as video,frames")
    return wanted


def read_decisions(path: Path) -> np.ndarray:
    """Read a table of predict: (n, A) int8, 1 active, 0 not, -1 without a face or abstained.

    Raises:
        ArtifactError: a column is missing, a frame is left out, or a cell is something else.
    """
    columns = ["frame", *AUS]
    options = pa.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
    try:
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _no_table(path, error) from error
    if table["frame"].to_pylist() != [str(k) for k in range(len(table))]:
        raise _no_table(path, "frames that are not 0, 1, 2 ...")
    codes = pa.array(["0", "1", "", ABSTAIN])
    index = [pc.index_in(table[au], codes) for au in AUS]
    unknown = next((au for au, column in zip(AUS, index) if column.null_count), None)
    if unknown:
        raise _no_table(path, f"another value in the column {unknown}")
    kinds = np.stack([column.to_numpy() for column in index], axis=1) if len(table) else np.zeros((0, len(AUS)), int)
    return np.array([0, 1, OPEN, OPEN], np.int8)[kinds]


def fill(decisions: np.ndarray, frames: int | None) -> np.ndarray:
    """Give every frame a decision: (n, A) int8 with -1 where there is none -> (frames, A) int8, 0 or 1.

    Each AU takes the nearest decision of its own, the earlier of two; 0 where it has none at all. Rows after the last
    are like the last, rows beyond `frames` are cut off. `frames` None: as many as there are.
    """
    same_video = np.zeros(len(decisions), np.int64)
    columns = [fill_nearest(column, column >= 0, same_video, empty=0) for column in decisions.T]
    full = np.stack(columns, axis=1)
    if frames is None:
        return full
    last = full[-1:] if len(full) else np.zeros((1, full.shape[1]), np.int8)
    return np.concatenate([full, np.repeat(last, max(frames - len(full), 0), axis=0)])[:frames]


def _complete(video: str, frames: int | None, table: Path | None) -> tuple[SubmissionRow, np.ndarray]:
    """Read a video's decisions and fill them up."""
    if table is None and frames is None:
        raise DataError(
            "a video without a prediction", where=video, todo="zeros need its number of frames: name it in --expected"
        )
    decisions = np.zeros((0, len(AUS)), np.int8) if table is None else read_decisions(table)
    full = fill(decisions, frames)
    known = (decisions[: len(full)] != OPEN).all(axis=1).sum()
    row = SubmissionRow(video, len(decisions), len(full), len(full) - int(known), _message(decisions, frames, table))
    return row, full


def _message(decisions: np.ndarray, frames: int | None, table: Path | None) -> str:
    """Say what is odd."""
    if table is None:
        return "no prediction, zeros are written"
    decided = (decisions != OPEN).any(axis=0)
    never = [au for au, some in zip(AUS, decided) if not some]
    found = []
    if not decided.any():
        found.append("no frame with a decision, zeros are written")
    elif never:
        found.append(f"no decision for {', '.join(never)}, zeros are written")
    if frames is not None and len(decisions) != frames:
        how = "the last is repeated" if len(decisions) < frames else "the rest is cut off"
        found.append(f"{len(decisions)} rows predicted, {frames} expected, {how}")
    return "; ".join(found)


def _tables(predictions: Path) -> dict[str, Path]:
    """List the tables of a folder that predict wrote, by video."""
    if not predictions.is_dir():
        raise DataError("no folder of predictions", where=predictions, todo="run `aupair predict` first")
    found = {path.stem: path for path in sorted(predictions.glob("*.csv")) if path.stem != SUMMARY}
    if not found:
        raise DataError("no prediction", where=predictions, expected="<video>.csv", todo="run `aupair predict` first")
    return found


def _failed(predictions: Path) -> dict[str, None]:
    """Name the videos that predict could not read: they have a row in the summary, and no table."""
    path = predictions / f"{SUMMARY}.csv"
    if not path.exists():
        return {}
    kinds = pa.csv.ConvertOptions(column_types={"video": pa.string(), "output": pa.string()})
    try:
        rows = pa.csv.read_csv(path, convert_options=kinds).select(["video", "output"]).to_pylist()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise _no_table(path, error) from error
    return {_name(Path(row["video"]).name): None for row in rows if not row["output"]}


def _check_missing(
    wanted: Mapping[str, int | None], tables: Mapping[str, Path], predictions: Path, expected: Path | None
) -> None:
    """Refuse videos without a prediction."""
    lost = [video for video in wanted if video not in tables]
    if lost:
        raise DataError(
            "a video without a prediction",
            where=expected or predictions / f"{SUMMARY}.csv",
            got=", ".join(lost[:3]) + (f" (and {len(lost) - 3} more)" if len(lost) > 3 else ""),
            expected=predictions / f"{lost[0]}.csv",
            todo="predict it, or write zeros by --missing zeros",
        )


def _lines(path: Path) -> list[str]:
    """Read the lines of a text file, without blank ones."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("not a readable list", where=path, got=type(error).__name__, expected="a text file") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _expected(line: str, where: str, first: bool) -> tuple[str, int | None]:
    """Read a line of the list: a video, and a number of frames if it tells one; no video from a header."""
    cells = [cell.strip() for cell in line.split(",")] if "," in line else line.split()
    video, slash, image = cells[0].partition("/")
    if slash:
        frame = frame_number(image)
        if frame is None or frame < 0:
            raise DataError("not an image's place", where=where, got=cells[0], expected="video/00001.jpg")
        return video, frame + 1
    if first and cells[0].lower() in HEADERS:
        return "", None
    if not cells[0] or len(cells) > 2 or (len(cells) == 2 and not (cells[1].isdecimal() and int(cells[1]))):
        raise DataError("not a line of the list", where=where, got=line, expected="video,frames")
    return _name(cells[0]), int(cells[1]) if len(cells) == 2 else None


def _name(text: str) -> str:
    """Give a video's name, without the suffix of a movie or of a list."""
    stem, dot, suffix = text.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in (*SUFFIXES, ".txt") else text


def _no_table(path: Path, got: object) -> ArtifactError:
    """The error for a table that predict did not write so."""
    return ArtifactError(
        "not a table of predictions", where=path, got=got, expected="frame,status,AU1 ...", todo="predict again"
    )


def _write_files(out: Path, decisions: Mapping[str, np.ndarray]) -> None:
    """Write a file for each video."""
    for video, rows in decisions.items():
        store.write_text(out / f"{video}.txt", "\n".join([",".join(AUS), *_cells(rows)]) + "\n")


def _write_table(out: Path, decisions: Mapping[str, np.ndarray]) -> None:
    """Write one file for all videos, a line for each image: image k is row k - 1."""
    with store.atomic(out / TABLE) as temporary, open(temporary, "w") as file:
        file.write(",".join([LOCATION, *AUS]) + "\n")
        for video, rows in decisions.items():
            file.writelines(f"{video}/{k:05d}.jpg,{cells}\n" for k, cells in enumerate(_cells(rows), start=1))


def _cells(rows: Sequence[Sequence[int]] | np.ndarray) -> Iterator[str]:
    """Give each row as comma-separated digits."""
    return (",".join(map(str, row)) for row in np.asarray(rows).tolist())
