"""Tests of check-data with intensity as the target: levels in the labels table, errors and warnings."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.aus import AFFWILD2
from aupair.data.sheets import _read_sheet
from aupair.errors import DataError
from data.folders import run_check, write_sheet

INTENSITY, OCCURRENCE = "AU_Intensity_Set", "AU_Set"


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "data"))


def path_of(data: Path, kind: str, video: str) -> Path:
    """Return the annotation file of a video."""
    (path,) = (data / "annotations" / kind).glob(f"*/{video}.txt")
    return path


def run(data: Path, target: str = "intensity") -> tuple[Path, Path]:
    return run_check(data, target=target)[:2]


def table_of(labels: Path, video: str) -> np.ndarray:
    """Return the levels of a video in the labels table: (n, A)."""
    table = store.read_table(labels).to_pandas()
    return table[table["video"] == video].sort_values("frame")[list(AFFWILD2)].to_numpy()


def test_the_labels_are_floors_and_a_gap_masks_its_row(data: Path) -> None:
    intensities = path_of(data, INTENSITY, "s000c0")
    values = _read_sheet(intensities, np.float32)[1] + 0.0
    fractions = np.minimum(values + 0.9, 5)
    fractions[4, 7] = -1
    write_sheet(intensities, fractions)
    labels, info = run(data)
    levels = table_of(labels, "s000c0")
    assert levels.dtype == np.int8
    expected = values.astype(int)
    expected[4] = -1
    np.testing.assert_array_equal(levels, expected)
    assert levels.max() > 1
    every = store.read_table(labels).to_pandas()[list(AFFWILD2)].to_numpy()
    assert set(np.unique(every)) == {-1, 0, 1, 2, 3, 4, 5}
    record = store.read_json(info)
    occurrences, _ = run(data, "occurrence")
    fit = store.read_table(occurrences).to_pandas().query("split == 'fit'")
    masked = every[(store.read_table(labels).to_pandas()["split"] == "fit").to_numpy()][:, 0] < 0
    active = (fit[list(AFFWILD2)].to_numpy() == 1)[~masked].sum(0)
    assert list(record["counts"]["fit"]["positives"].values()) == active.tolist(), "active is every level from 1 on"
    assert [line for line in record["warnings"] if "levels" not in line] == [
        "1 of 240 label rows are not annotated",
        "1 of 240 label rows have only an occurrence or only an intensity for some AU, intensity counts",
    ]


def test_occurrence_as_target_does_not_depend_on_intensities(data: Path) -> None:
    first = table_of(run(data, "occurrence")[0], "s001c0")
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(first, table_of(run(data)[0], "s001c0") >= 1)
    shutil.rmtree(data / "annotations" / INTENSITY)
    np.testing.assert_array_equal(table_of(run(data, "occurrence")[0], "s001c0"), first)


def test_disagreements_and_levels_that_cannot_be_learned_are_warnings(data: Path) -> None:
    for path in (data / "annotations" / INTENSITY).glob("*/*.txt"):
        values = _read_sheet(path)[1]
        values[:, 7] = np.minimum(values[:, 7], 3)
        write_sheet(path, values)
    path = path_of(data, OCCURRENCE, "s001c0")
    values = _read_sheet(path)[1]
    values[2, 6], values[5, 1] = 1 - values[2, 6], 1 - values[5, 1]
    write_sheet(path, values)
    labels, info = run(data)
    level = table_of(labels, "s001c0")
    np.testing.assert_array_equal(level, _read_sheet(path_of(data, INTENSITY, "s001c0"))[1])
    disagree, missing = store.read_json(info)["warnings"]
    assert disagree == (
        "occurrence and intensity disagree in 2 of 2,880 cells, the level counts; "
        f"AU12 in frame 2 of s001c0: {values[2, 6]} but level {level[2, 6]}"
    )
    assert missing.startswith("levels without a frame in fit")
    assert "AU15 (4 5)" in missing


def without_set(data: Path) -> None:
    shutil.rmtree(data / "annotations" / INTENSITY)


def without_two(data: Path) -> None:
    for video in ("s001c0", "s004c0"):
        path_of(data, INTENSITY, video).unlink()


def shorter(data: Path) -> None:
    path = path_of(data, INTENSITY, "s002c0")
    write_sheet(path, _read_sheet(path)[1][:-1])


def never_graded(data: Path) -> None:
    for path in (data / "annotations" / INTENSITY).glob("*/*.txt"):
        write_sheet(path, np.full_like(_read_sheet(path)[1], -1))


def never_active(data: Path) -> None:
    for path in (data / "annotations" / INTENSITY).glob("*/*.txt"):
        values = _read_sheet(path)[1]
        values[:, 3] = 0
        write_sheet(path, values)


BREACHES: dict[Callable[[Path], None], str] = {
    without_set: "no intensities: in {}/annotations, expected intensity/<video>.csv, or those of Aff-Wild2: AU_Intensity_Set/Train_Set/<video>.txt; "
    "put them there, or set target: occurrence",
    without_two: "a labelled video has no intensities: in {}/annotations/AU_Set/Train_Set/s001c0.txt, "
    "got no intensities of s001c0 (and 1 more); add them, or set target: occurrence",
    shorter: "the intensity and occurrence files differ in length: in {0}/annotations/AU_Intensity_Set/Train_Set/s002c0.txt, "
    "got 29 rows, expected 30, as in {0}/annotations/AU_Set/Train_Set/s002c0.txt; "
    "correct one of them, or set target: occurrence",
    never_graded: "no annotated frame: in {}/annotations/AU_Intensity_Set, got 240 label rows, none annotated",
    never_active: "an AU without a positive: in {}/splits.csv, got AU6: 0 of 120 annotated frames of fit, "
    "expected at least 1; move a subject who shows it to fit, or name the other AUs in `aus`",
}


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.__name__)
def test_a_breach_stops_and_leaves_no_labels(data: Path, breach: Callable[[Path], None]) -> None:
    breach(data)
    with pytest.raises(DataError) as caught:
        run(data)
    assert str(caught.value) == BREACHES[breach].format(data)
    assert not (data.parent / "out" / "labels.parquet").exists()
    run(data, "occurrence")
