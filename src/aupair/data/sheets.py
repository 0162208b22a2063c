"""Annotation files: a header with the AUs, then one row for each frame; parsed by Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from aupair.aus import AUS, NOT_ANNOTATED
from aupair.data.layout import Annotation
from aupair.errors import DataError
from aupair.log import SILENT, Log

AUS_2020 = ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25")
"""The AUs of the release of 2020."""


@dataclass(frozen=True)
class Sheets:
    """The unchecked values of all annotation files, one below the other.

    Attributes:
        annotations: V files.
        edges: (V + 1,) int64, file v has the rows edges[v]:edges[v + 1].
        values: (N, A) int16 (occurrence) or float32 (intensity), unchecked.
    """

    annotations: tuple[Annotation, ...]
    edges: np.ndarray
    values: np.ndarray

    @property
    def video(self) -> np.ndarray:
        """Return for each row the index of its annotation file, (N,) int32."""
        return np.repeat(np.arange(len(self.annotations), dtype=np.int32), np.diff(self.edges))

    @property
    def frame(self) -> np.ndarray:
        """Return for each row the number of its frame in the video, (N,) int32: label row k, counted from 0, is frame k."""
        starts = np.repeat(self.edges[:-1], np.diff(self.edges))
        return (np.arange(len(self.values)) - starts).astype(np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of label rows of each file, (V,) int64."""
        return np.diff(self.edges)

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Add up per-row counts, (N,) or (N, K), within each file: (V,) or (V, K) int64."""
        sums = np.concatenate([np.zeros((1, *rows.shape[1:]), np.int64), np.cumsum(rows, axis=0, dtype=np.int64)])
        return sums[self.edges[1:]] - sums[self.edges[:-1]]


def read_sheets(annotations: Sequence[Annotation], dtype: type, log: Log = SILENT) -> Sheets:
    """Read annotation files without checking the values; errors are those of `_read_sheet`."""
    parts = [_read_sheet(a.path, dtype) for a in log.progress(annotations, len(annotations), "reading annotations")]
    edges = np.cumsum([0, *map(len, parts)])
    return Sheets(tuple(annotations), edges, np.concatenate(parts) if parts else np.empty((0, len(AUS)), dtype))


def _read_sheet(path: Path, dtype: type = np.int16) -> np.ndarray:
    """Read one annotation file as (rows, A) of `dtype`, without checking the values.

    Blank lines at the end are tolerated; anywhere else they would shift all later frames.

    Raises:
        DataError: a wrong header, a ragged row, or a cell that is not a number; the error names file and line.
    """
    try:
        header, _, body = path.read_bytes().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    except OSError as error:
        raise DataError("the annotation file cannot be read", where=path, got=error.strerror or error) from error
    _check_header(path, header.decode(errors="replace"))
    body = body.rstrip()
    if not body:
        return np.empty((0, len(AUS)), dtype)
    try:
        kind = pa.from_numpy_dtype(np.dtype(dtype))
        table = pa.csv.read_csv(
            pa.BufferReader(body),
            pa.csv.ReadOptions(use_threads=False, column_names=list(AUS)),
            pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(AUS, kind), null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _parse_error(path, body, dtype, error) from error
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def _check_header(path: Path, line: str) -> None:
    """Raise a DataError for a header with other AUs than the 12, or with the same in another order."""
    got = tuple(cell.strip() for cell in line.split(","))
    if got == AUS:
        return
    what, todo = "wrong header", "is this an AU annotation of Aff-Wild2?"
    if sorted(got) == sorted(AUS):
        what, todo = "AU columns in another order", "reorder the columns of the file"
    elif got == AUS_2020:
        what, todo = "the 8 AUs of the 2020 release", "use the annotations of 2021 or later"
    text = line.strip()
    # a line that is not plain text (of a binary file) is cut to 40 characters and escaped
    text = text[:200] if text.isascii() and text.isprintable() else ascii(text[:40])
    raise DataError(what, where=f"{path} line 1", got=text or "nothing", expected=",".join(AUS), todo=todo)


def annotated_rows(values: np.ndarray) -> np.ndarray:
    """Return which rows of (N, A) have no -1: (N,) bool."""
    return (values != NOT_ANNOTATED).all(axis=1)


def mask_partial_rows(values: np.ndarray) -> np.ndarray:
    """Return checked labels as (N, A) int8; a row with any -1 becomes -1 throughout."""
    result: np.ndarray = values.astype(np.int8)
    result[~annotated_rows(values)] = NOT_ANNOTATED
    return result


def _parse_error(path: Path, body: bytes, dtype: type, error: Exception) -> DataError:
    """Return the error for the first line that Arrow cannot parse.

    The file is read again line by line, which is slow, but happens only for a file with such a line.
    """
    kind, expected = (float, "-1 or 0 to 5") if np.issubdtype(dtype, np.floating) else (int, "-1, 0 or 1")
    for number, line in enumerate(body.decode(errors="replace").split("\n"), start=2):
        cells, where = line.strip().split(","), f"{path} line {number}"
        if len(cells) != len(AUS):
            got = f"{len(cells)} values" if line.strip() else "a blank line"
            return DataError("a ragged row", where=where, got=got, expected=f"{len(AUS)} values")
        for au, cell in zip(AUS, cells):
            try:
                np.array([kind(cell)], dtype)
            except (ValueError, OverflowError):
                return DataError("not a number", where=f"{where} column {au}", got=ascii(cell[:40]), expected=expected)
    return DataError("not a table of numbers", where=path, got=error)
