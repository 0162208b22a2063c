"""Tests of annotation files: parsed values against a loop, one line for each bad file."""

from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.data.layout import Annotation
from aupair.data.sheets import Sheets, _read_sheet, read_sheets
from aupair.errors import DataError

HEADER = ",".join(AFFWILD2)
AUS_2020 = ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25")
ZEROS = ",".join(["0"] * 12)


def sheet(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def test_values_of_every_row(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1, 2, (500, 12))
    path = sheet(tmp_path / "a.txt", HEADER, *(",".join(map(str, row)) for row in values))
    aus, got = _read_sheet(path)
    assert aus == AFFWILD2
    assert got.dtype == np.int16
    assert got.tolist() == values.tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_at_the_end_line_ends_and_spaces(tmp_path: Path, end: str) -> None:
    one = ",".join(["1"] * 12)
    path = sheet(tmp_path / "a.txt", "\ufeff" + HEADER.replace(",", ", "), ZEROS, one, "", "  ", "", end=end)
    assert _read_sheet(path)[1].tolist() == [[0] * 12, [1] * 12]


def test_no_row_at_all_and_fractions_of_intensities(tmp_path: Path) -> None:
    assert _read_sheet(sheet(tmp_path / "a.txt", HEADER, ""))[1].shape == (0, 12)
    path = sheet(tmp_path / "a.txt", HEADER, ",".join(["2.5"] * 12), ",".join(["-1"] * 12))
    assert _read_sheet(path, np.float32)[1][:, 0].tolist() == [2.5, -1.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "not the name of an AU: in {} line 1, got nothing, expected a letter"),
        ([ZEROS], "not the name of an AU: in {} line 1, got 0, expected a letter"),
        (["frame," + HEADER, "0," + ZEROS], "a reserved word as the name of an AU: in {} line 1, got frame"),
        ([HEADER + ",au4", ZEROS + ",0"], "an AU is named twice: in {} line 1, got AU4 and au4"),
        ([HEADER, ZEROS, "0,0,0"], "a ragged row: in {} line 3, got 3 values, expected 12 values"),
        ([HEADER, ZEROS + ",0"], "a ragged row: in {} line 2, got 13 values"),
        ([HEADER, ZEROS, "", ZEROS], "a ragged row: in {} line 3, got a blank line"),
        ([HEADER, "", ZEROS], "a ragged row: in {} line 2, got a blank line"),
        ([HEADER, ZEROS, "0,x," + ZEROS[4:]], "not a number: in {} line 3 column AU2, got 'x', expected -1, 0 or 1"),
        ([HEADER, "-," + ZEROS[2:]], "not a number: in {} line 2 column AU1, got '-'"),
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
    with pytest.raises(DataError, match="not the name of an AU") as caught:
        _read_sheet(path)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert str(caught.value).count("[31m") == 6  # 40 characters of it


@pytest.mark.parametrize("missing", ["-1", "", "nan", "NaN"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_missing_label_is_missing_for_its_au_alone(tmp_path: Path, missing: str, dtype: type) -> None:
    path = sheet(tmp_path / "a.csv", "AU9,AU12L,smile", f"1,{missing},0", f"{missing},1,1", ",,")
    aus, values = _read_sheet(path, dtype)
    assert aus == ("AU9", "AU12L", "smile")
    assert values.tolist() == [[1, -1, 0], [-1, 1, 1], [-1, -1, -1]]
    assert values.dtype == dtype


@pytest.mark.parametrize("count", [1, 3, 8, 12, 20])
def test_any_number_of_aus_is_read(tmp_path: Path, count: int) -> None:
    aus = [*AUS_2020, *(f"AU{k}" for k in range(50, 62))][:count]
    values = np.random.default_rng(count).integers(-1, 2, (100, count))
    values[-1] = 1  # with one AU, a blank last line would not count as a row
    lines = [",".join("" if cell < 0 else str(cell) for cell in row) for row in values]
    got = _read_sheet(sheet(tmp_path / "a.csv", ",".join(aus), *lines))
    assert got[0] == tuple(aus)
    assert got[1].tolist() == values.tolist()


def test_rule_of_affwild2_voids_a_partly_annotated_row() -> None:
    values = np.random.default_rng(1).integers(-1, 2, (200, 12), np.int16)
    values[:50] = np.abs(values[:50])
    sheets = Sheets((), AFFWILD2, np.array([0, 200]), values)
    expected = [[-1] * 12 if -1 in row else row for row in values.tolist()]
    assert sheets.without_partial_rows().values.tolist() == expected
    assert sheets.annotated.tolist() == [set(row) != {-1} for row in values.tolist()]
    assert any(set(row) == {-1, 0, 1} for row in sheets.values.tolist()), "the input stays as it was"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("AU2,AU1", "AU columns in another order: in {} line 1, got AU2,AU1, expected AU1,AU2 as in "),
        ("AU1,AU9", "files that disagree on the AUs: in {} line 1, got AU1,AU9, expected AU1,AU2 as in "),
        ("AU1", "files that disagree on the AUs: in {} line 1, got AU1, expected AU1,AU2 as in "),
    ],
)
def test_files_that_disagree_on_the_aus(tmp_path: Path, header: str, message: str) -> None:
    first, second = sheet(tmp_path / "a.csv", "AU1,AU2", "0,1"), sheet(tmp_path / "b.csv", header)
    with pytest.raises(DataError) as caught:
        read_sheets([Annotation("a", "", first), Annotation("b", "", second)], np.int16)
    assert str(caught.value).startswith(message.format(second))


def test_some_aus_are_taken_in_the_order_of_the_files(tmp_path: Path) -> None:
    path = sheet(tmp_path / "a.csv", "AU1,AU2,AU9", "0,1,-1")
    sheets = read_sheets([Annotation("a", "", path)], np.int16)
    chosen = sheets.select(["AU9", "AU1"])
    assert (chosen.aus, chosen.values.tolist()) == (("AU1", "AU9"), [[0, -1]])
    with pytest.raises(DataError, match=r"an AU without annotations: in .*, got AU4,AU5, expected AU1,AU2,AU9"):
        sheets.select(["AU4", "AU1", "AU5"])


def test_places_and_totals_equal_loops(tmp_path: Path) -> None:
    rows = {"a": [ZEROS] * 3, "b": [",".join(["1"] * 12)] * 2}
    paths = {name: sheet(tmp_path / f"{name}.txt", HEADER, *lines) for name, lines in rows.items()}
    labels = read_sheets([Annotation(name, "train", path) for name, path in paths.items()], np.int16)
    assert labels.video.tolist() == [0, 0, 0, 1, 1]
    assert labels.frame.tolist() == [0, 1, 2, 0, 1]
    assert labels.lengths.tolist() == [3, 2]
    assert labels.totals(labels.values == 1).tolist() == [[0] * 12, [2] * 12]
    assert labels.totals(labels.values[:, 0] == 0).tolist() == [3, 0]
