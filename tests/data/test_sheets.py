"""Tests of annotation files: parsed values against a loop, one line for each bad file."""

from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AUS
from aupair.data.layout import Annotation
from aupair.data.sheets import AUS_2020, _read_sheet, annotated_rows, mask_partial_rows, read_sheets
from aupair.errors import DataError

HEADER = ",".join(AUS)
ZEROS = ",".join(["0"] * 12)


def sheet(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def test_values_of_every_row(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1, 2, (500, 12))
    path = sheet(tmp_path / "a.txt", HEADER, *(",".join(map(str, row)) for row in values))
    got = _read_sheet(path)
    assert got.dtype == np.int16
    assert got.tolist() == values.tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_at_the_end_line_ends_and_spaces(tmp_path: Path, end: str) -> None:
    one = ",".join(["1"] * 12)
    path = sheet(tmp_path / "a.txt", "\ufeff" + HEADER.replace(",", ", "), ZEROS, one, "", "  ", "", end=end)
    assert _read_sheet(path).tolist() == [[0] * 12, [1] * 12]


def test_no_row_at_all_and_fractions_of_intensities(tmp_path: Path) -> None:
    assert _read_sheet(sheet(tmp_path / "a.txt", HEADER, "")).shape == (0, 12)
    path = sheet(tmp_path / "a.txt", HEADER, ",".join(["2.5"] * 12), ",".join(["-1"] * 12))
    assert _read_sheet(path, np.float32)[:, 0].tolist() == [2.5, -1.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "wrong header: in {} line 1, got nothing, expected AU1,AU2"),
        ([ZEROS], "wrong header: in {} line 1, got 0,0,"),
        ([",".join(reversed(AUS)), ZEROS], "AU columns in another order: in {} line 1, got AU26,AU25,"),
        ([",".join(AUS_2020), "0,0,0,0,0,0,0,0"], "the 8 AUs of the 2020 release: in {} line 1"),
        ([HEADER + ",AU45", ZEROS + ",0"], "wrong header: in {} line 1"),
        ([HEADER, ZEROS, "0,0,0"], "a ragged row: in {} line 3, got 3 values, expected 12 values"),
        ([HEADER, ZEROS + ",0"], "a ragged row: in {} line 2, got 13 values"),
        ([HEADER, ZEROS, "", ZEROS], "a ragged row: in {} line 3, got a blank line"),
        ([HEADER, "", ZEROS], "a ragged row: in {} line 2, got a blank line"),
        ([HEADER, ZEROS, "0,x," + ZEROS[4:]], "not a number: in {} line 3 column AU2, got 'x', expected -1, 0 or 1"),
        ([HEADER, "," + ZEROS[2:]], "not a number: in {} line 2 column AU1, got ''"),
        ([HEADER, "0.5," + ZEROS[2:]], "not a number: in {} line 2 column AU1, got '0.5'"),
        ([HEADER, "99999," + ZEROS[2:]], "not a number: in {} line 2 column AU1, got '99999'"),
    ],
)
def test_bad_file_gets_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = sheet(tmp_path / "a.txt", *lines)
    with pytest.raises(DataError) as caught:
        _read_sheet(path)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_not_echoed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x1b[31m\xff\x00" * 50)
    with pytest.raises(DataError, match="wrong header") as caught:
        _read_sheet(path)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert str(caught.value).count("[31m") == 6  # 40 characters of it


def test_any_minus_one_leaves_the_whole_frame_unannotated() -> None:
    values = np.random.default_rng(1).integers(-1, 2, (200, 12), np.int16)
    values[:50] = np.abs(values[:50])
    expected = [[-1] * 12 if -1 in row else row for row in values.tolist()]
    assert mask_partial_rows(values).tolist() == expected
    assert mask_partial_rows(values).dtype == np.int8
    assert annotated_rows(values).tolist() == [-1 not in row for row in values.tolist()]
    assert any(set(row) == {-1, 0, 1} for row in values.tolist()), "the input stays as it was"


def test_places_and_totals_equal_loops(tmp_path: Path) -> None:
    rows = {"a": [ZEROS] * 3, "b": [",".join(["1"] * 12)] * 2}
    paths = {name: sheet(tmp_path / f"{name}.txt", HEADER, *lines) for name, lines in rows.items()}
    labels = read_sheets([Annotation(name, "train", path) for name, path in paths.items()], np.int16)
    assert labels.video.tolist() == [0, 0, 0, 1, 1]
    assert labels.frame.tolist() == [0, 1, 2, 0, 1]
    assert labels.lengths.tolist() == [3, 2]
    assert labels.totals(labels.values == 1).tolist() == [[0] * 12, [2] * 12]
    assert labels.totals(labels.values[:, 0] == 0).tolist() == [3, 0]
