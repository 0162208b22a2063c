"""A tolerant reader of label tables: comma, semicolon or tab, quotes, a byte order mark, blank lines at the end."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupair.errors import DataError

MISSING = ("", "NaN", "nan", "NA", "-1", "-1.0")
"""Cells that mean "not labelled" in every table."""


@dataclass(frozen=True)
class TextTable:
    """The cells of a table as text, without surrounding spaces.

    Attributes:
        path: the file.
        header: the names of the columns, in their original case.
        columns: the columns as arrays of strings.
        first_line: the line number of the first row in the file.
        decimal_comma: whether numbers may have a decimal comma instead of a point.
    """

    path: Path
    header: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    first_line: int = 2
    decimal_comma: bool = False

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def where(self, row: int, column: int | None = None) -> str:
        """Return the location of a row or a cell, for an error."""
        place = f"{self.path} line {row + self.first_line}"
        return place if column is None else f"{place} column {self.header[column]}"

    def index(self, name: str) -> int | None:
        """Return the index of the column with a lower-case name, ignoring the case of the header; None without it.

        Raises:
            DataError: two columns have the name.
        """
        at = [k for k, column in enumerate(self.header) if column.lower() == name]
        if len(at) > 1:
            raise DataError("a column is named twice", where=f"{self.path} line 1", got=name, expected="one")
        return at[0] if at else None

    def numbers(
        self, column: int, missing: Sequence[str] = (), expected: str = "a number", todo: str = ""
    ) -> np.ndarray:
        """Return a column as (N,) float64, NaN for the cells in `missing`.

        Raises:
            DataError: a cell is neither a number nor in `missing`; the error names the first one.
        """
        cells = self.columns[column]
        blank = pc.is_in(cells, value_set=pa.array(missing, pa.string()))
        if self.decimal_comma:
            cells = pc.replace_substring(cells, ",", ".")
        try:
            values = pc.cast(pc.if_else(blank, None, cells), pa.float64())
        except pa.ArrowInvalid:
            values = None
        result = np.full(len(self), np.nan)
        if values is not None:
            result = values.to_numpy(zero_copy_only=False)
            if not (~np.isfinite(result) & ~blank.to_numpy(zero_copy_only=False)).any():
                return result
        raise self._number_error(column, set(missing), expected, todo)

    def texts(self, column: int) -> tuple[np.ndarray, list[str]]:
        """Return a column of names as codes, (N,) int, and the names by code.

        Raises:
            DataError: a cell is empty.
        """
        coded = pc.dictionary_encode(self.columns[column])
        names = coded.dictionary.to_pylist()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        if "" in names:
            row = int(np.argmax(codes == names.index("")))
            raise DataError("an empty cell", where=self.where(row, column), expected=f"a {self.header[column].lower()}")
        return codes, names

    def _number_error(self, column: int, missing: set[str], expected: str, todo: str) -> DataError:
        for row, cell in enumerate(self.columns[column].to_pylist()):
            try:
                number = 0.0 if cell in missing else float(cell.replace(",", ".") if self.decimal_comma else cell)
            except ValueError:
                number = np.nan
            if not np.isfinite(number):
                where, got = self.where(row, column), ascii(cell[:40])
                return DataError("not a number", where=where, got=got, expected=expected, todo=todo)
        return DataError("not a table of numbers", where=self.path)


def read_text_table(path: Path, header: Sequence[str] = ()) -> TextTable:
    """Read a table.

    Args:
        header: the names of the columns, for a file without a header.

    Raises:
        DataError: the file cannot be read, is not text, or a row has more or fewer cells than the first line.
    """
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()
        data.decode()
    except OSError as error:
        raise DataError("the label file cannot be read", where=path, got=error.strerror or error) from error
    except UnicodeDecodeError as error:
        todo = "save it as CSV with the encoding UTF-8"
        raise DataError("not a text file", where=path, got=error.reason, expected="a table", todo=todo) from error
    line, _, body = data.partition(b"\n")
    first = line.decode().strip()
    try:
        names, delimiter = split_header(first)
    except csv.Error as error:
        raise DataError("not a table", where=f"{path} line 1", got=error) from error
    if header:
        body, names = data, list(header)
    if not names:
        raise DataError("an empty file", where=path, expected="a table with a header")
    first_line = 1 if header else 2
    if not body.strip():
        return TextTable(path, tuple(names), tuple(pa.array([], pa.string()) for _ in names), first_line)
    keys = [str(k) for k in range(len(names))]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(body),
            pa.csv.ReadOptions(
                use_threads=False, column_names=keys, block_size=max(1 << 20, min(len(body) + 1, 1 << 26))
            ),
            pa.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _ragged_error(path, body.decode(), delimiter, len(names), first_line) from error
    cells = tuple(pc.utf8_trim_whitespace(column.combine_chunks()) for column in table.columns)
    return TextTable(path, tuple(names), cells, first_line, decimal_comma=delimiter != ",")


def split_header(line: str) -> tuple[list[str], str]:
    """Return the names in the first line of a table and the delimiter."""
    delimiter = next((mark for mark in ",;\t" if mark in line), ",")
    return [cell.strip() for cell in next(csv.reader([line.strip()], delimiter=delimiter), [])], delimiter


def _ragged_error(path: Path, body: str, delimiter: str, columns: int, first_line: int) -> DataError:
    """Return the error for the first row with another number of cells."""
    try:
        for number, row in enumerate(csv.reader(body.splitlines(), delimiter=delimiter), start=first_line):
            if len(row) != columns:
                got = f"{len(row)} cells" if row else "a blank line"
                return DataError("a ragged row", where=f"{path} line {number}", got=got, expected=f"{columns} cells")
    except csv.Error as error:
        return DataError("not a table", where=path, got=error)
    return DataError("not a table", where=path)
