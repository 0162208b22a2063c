"""Annotation files, parsed by Arrow: a header with the AUs, then one row for each frame."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from aupair.aus import NOT_ANNOTATED, check_au_names
from aupair.data.layout import Annotation
from aupair.errors import DataError
from aupair.log import SILENT, Log

_MISSING = ("", "nan", "NaN", "NAN")
"""Cells without a label, besides -1."""


@dataclass(frozen=True)
class Sheets:
    """The values of all annotation files, concatenated.

    Attributes:
        annotations: V files.
        aus: names of the A Action Units.
        edges: (V + 1,) int64; the rows of file v are edges[v]:edges[v + 1].
        values: (N, A) int16 (occurrence) or float32 (intensity), not checked; -1 if the AU is not annotated.
    """

    annotations: tuple[Annotation, ...]
    aus: tuple[str, ...]
    edges: np.ndarray
    values: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Return which AUs are annotated in each row, (N, A) bool."""
        return self.values != NOT_ANNOTATED

    @property
    def annotated(self) -> np.ndarray:
        """Return which rows have the label of at least one AU, (N,) bool."""
        return np.asarray(self.labelled.any(axis=1))

    @property
    def video(self) -> np.ndarray:
        """Return the index of each row's annotation file, (N,) int32."""
        return np.repeat(np.arange(len(self.annotations), dtype=np.int32), np.diff(self.edges))

    @property
    def frame(self) -> np.ndarray:
        """Return the frame number of each row, (N,) int32: row k of a file, counted from 0, is frame k of the video."""
        starts = np.repeat(self.edges[:-1], np.diff(self.edges))
        return (np.arange(len(self.values)) - starts).astype(np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of label rows of each file, (V,) int64."""
        return np.diff(self.edges)

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Return the sums of per-row counts, (N,) or (N, K), over each file: (V,) or (V, K) int64."""
        sums = np.concatenate([np.zeros((1, *rows.shape[1:]), np.int64), np.cumsum(rows, axis=0, dtype=np.int64)])
        return sums[self.edges[1:]] - sums[self.edges[:-1]]

    def take(self, files: np.ndarray) -> "Sheets":
        """Return the sheets of the files that a mask selects, (V,) bool."""
        if files.all():
            return self
        annotations = tuple(annotation for annotation, use in zip(self.annotations, files) if use)
        edges = np.cumsum([0, *self.lengths[files]])
        return replace(self, annotations=annotations, edges=edges, values=self.values[files[self.video]])

    def select(self, aus: Sequence[str]) -> "Sheets":
        """Return the columns of some AUs, in the order in which the files have them.

        Raises:
            DataError: the files lack an AU.
        """
        unknown = [au for au in aus if au not in self.aus]
        if unknown:
            where, expected = self.annotations[0].path.parent, ",".join(self.aus)
            raise DataError("an AU without annotations", where=where, got=",".join(unknown), expected=expected)
        if len(aus) == len(self.aus):
            return self
        columns = [k for k, au in enumerate(self.aus) if au in aus]
        return replace(self, aus=tuple(self.aus[k] for k in columns), values=self.values[:, columns])

    def without_partial_rows(self) -> "Sheets":
        """Return the labels by the rule of Aff-Wild2: a row with any -1 is -1 throughout."""
        values = self.values.copy()
        values[~self.labelled.all(axis=1)] = NOT_ANNOTATED
        return replace(self, values=values)


def read_sheets(annotations: Sequence[Annotation], dtype: type, log: Log = SILENT) -> Sheets:
    """Read annotation files, which must all have the same header, without checking the values.

    Raises:
        DataError: the AUs of two files differ; for other errors see `_read_sheet`.
    """
    sheets: list[tuple[tuple[str, ...], np.ndarray]] = []
    for annotation in log.progress(annotations, len(annotations), "reading annotations"):
        aus, values = _read_sheet(annotation.path, dtype)
        if sheets and aus != sheets[0][0]:
            raise _disagreement(annotation.path, aus, annotations[0].path, sheets[0][0])
        sheets.append((aus, values))
    edges = np.cumsum([0, *(len(values) for _, values in sheets)])
    return Sheets(tuple(annotations), sheets[0][0], edges, np.concatenate([values for _, values in sheets]))


def _read_sheet(path: Path, dtype: type = np.int16) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the AUs and the values, (rows, A) of `dtype`, of one annotation file, without checking the values.

    Blank lines at the end are ignored. Anywhere else a blank line would shift all later frames and is an error, except in
    a file with a single AU, where it is an empty cell.

    Raises:
        DataError: the header is not a list of AUs, a row is ragged, or a cell is not a number; it names file and line.
    """
    try:
        header, _, body = path.read_bytes().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    except OSError as error:
        raise DataError("the annotation file cannot be read", where=path, got=error.strerror or error) from error
    aus = tuple(cell.strip() for cell in header.decode(errors="replace").split(","))
    check_au_names(aus, f"{path} line 1")
    body = body.rstrip()
    if not body:
        return aus, np.empty((0, len(aus)), dtype)
    if len(aus) > 1 and re.search(rb"(\A|\n)[ \t\r]*\n", body):  # Arrow would read a blank line as a row of empty cells
        raise _parse_error(path, aus, body, dtype, "a blank line")
    try:
        kind = pa.from_numpy_dtype(np.dtype(dtype))
        table = pa.csv.read_csv(
            pa.BufferReader(body),
            pa.csv.ReadOptions(use_threads=False, column_names=list(aus)),
            pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(aus, kind), null_values=list(_MISSING)),
        )
    except pa.ArrowInvalid as error:
        raise _parse_error(path, aus, body, dtype, error) from error
    columns = [
        (column.fill_null(NOT_ANNOTATED) if column.null_count else column).to_numpy() for column in table.columns
    ]
    return aus, np.stack(columns, axis=1)


def _disagreement(path: Path, aus: tuple[str, ...], other: Path, expected: tuple[str, ...]) -> DataError:
    """Return the error for a file whose AUs, or their order, differ from those of another file."""
    what, todo = "files that disagree on the AUs", "use the same header, and empty cells where an AU is not coded"
    if sorted(aus) == sorted(expected):
        what, todo = "AU columns in another order", "reorder the columns of the file"
    return DataError(
        what, where=f"{path} line 1", got=",".join(aus), expected=f"{','.join(expected)} as in {other}", todo=todo
    )


def _parse_error(path: Path, aus: tuple[str, ...], body: bytes, dtype: type, error: object) -> DataError:
    """Return the error for the first line that Arrow cannot parse.

    The file is parsed again line by line, since Arrow's message does not name the line in every case.
    """
    kind, expected = (float, "-1 or 0 to 5") if np.issubdtype(dtype, np.floating) else (int, "-1, 0 or 1")
    for number, line in enumerate(body.decode(errors="replace").split("\n"), start=2):
        cells, where = line.strip().split(","), f"{path} line {number}"
        if len(cells) != len(aus):
            got = f"{len(cells)} values" if line.strip() else "a blank line"
            return DataError("a ragged row", where=where, got=got, expected=f"{len(aus)} values")
        for au, cell in zip(aus, cells):
            try:
                np.array([NOT_ANNOTATED if cell in _MISSING else kind(cell)], dtype)
            except (ValueError, OverflowError):
                return DataError("not a number", where=f"{where} column {au}", got=ascii(cell[:40]), expected=expected)
    return DataError("not a table of numbers", where=path, got=error)
