"""`aupair import affwild2` on generated folders of Aff-Wild2's layout."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.data.corpus import read_corpus
from aupair.data.layout import read_layout
from aupair.data.splits import split_data
from conftest import Command, contents
from importing.folders import movie, notes, text, written

ROWS = 8
PARTS = {"t1": "Train_Set", "t2_left": "Train_Set", "t2_right": "Train_Set", "v1": "Validation_Set"}


def sheet(video: str, folder: str = "AU_Set") -> Path:
    return Path("AffWild2/annotations") / folder / PARTS[video] / f"{video}.txt"


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Labels, (8, 12) by video, of the folder AffWild2 in the current folder; two people in one movie, crops of v1."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    result = {}
    for video in PARTS:
        values = rng.integers(0, 2, (ROWS, len(AFFWILD2)))
        values[2, 5] = values[4] = -1
        result[video] = values
        text(sheet(video), ",".join(AFFWILD2), *(",".join(map(str, row)) for row in values))
    for name in ("t1", "t2", "unlabelled"):
        movie(Path("AffWild2/videos/batch1") / f"{name}.mp4", ROWS)
    crops = Path("AffWild2/cropped_aligned/v1")
    crops.mkdir(parents=True)
    for k in (1, 2, 6):
        cv2.imwrite(str(crops / f"{k:05}.jpg"), np.zeros((8, 8, 3), np.uint8))
    text(Path("AffWild2/subjects.csv"), "video,subject", "t1,Ann")
    return result


def test_rows_sets_and_people_are_kept(labels: dict[str, np.ndarray], aupair: Command) -> None:
    before = contents(Path("AffWild2"))
    outcome = aupair("import", "affwild2", "AffWild2")
    assert outcome.code == 0, outcome.err
    for video, values in labels.items():
        aus, result = written(Path("data"), f"{PARTS[video]}/{video}")
        assert aus == AFFWILD2
        np.testing.assert_array_equal(result, np.where((values < 0).any(axis=1, keepdims=True), -1, values))
    assert Path("data/subjects.csv").read_text() == "video,subject\nt1,Ann\n"
    reasons = notes(Path("data"))
    assert reasons["annotation files with rows that lack some AUs, not annotated there"] == [
        f"{video} (1)" for video in sorted(PARTS)
    ]
    assert reasons["videos without labels, left out"] == ["unlabelled"]
    assert contents(Path("AffWild2")) == before


def test_the_data_folder_is_read_as_the_source_is(labels: dict[str, np.ndarray], aupair: Command) -> None:
    assert aupair("import", "affwild2", "AffWild2").code == 0
    source, result = read_layout(Path("AffWild2")), read_layout(Path("data"))
    assert [a[:2] for a in result.annotations] == [a[:2] for a in source.annotations]
    assert {v: result.side(v) for v in PARTS} == {"t1": "", "t2_left": "left", "t2_right": "right", "v1": ""}
    split_data(Path("data"), 0.4)
    split_data(Path("AffWild2"), 0.4)
    assert Path("data/splits.csv").read_bytes() == Path("AffWild2/splits.csv").read_bytes()
    one, other = read_corpus(Path("AffWild2")), read_corpus(Path("data"))
    np.testing.assert_array_equal(other.labels.values, one.without_partial_rows().labels.values)
    assert one.headers == other.headers


def test_intensities_come_along(labels: dict[str, np.ndarray], aupair: Command) -> None:
    levels = np.random.default_rng(4).integers(0, 6, (ROWS, len(AFFWILD2)))
    for video, rows in (("t1", levels), ("v1", levels[:5])):
        text(sheet(video, "AU_Intensity_Set"), ",".join(AFFWILD2), *(",".join(map(str, row)) for row in rows))
    assert aupair("import", "affwild2", "AffWild2").code == 0
    np.testing.assert_array_equal(written(Path("data"), "Train_Set/t1", "intensity")[1], levels)
    assert (written(Path("data"), "Validation_Set/v1", "intensity")[1] == -1).all()
    assert notes(Path("data"))[
        "videos whose intensities differ in rows from their occurrences, without intensities"
    ] == ["v1 (5, 8)"]


def test_a_video_without_a_file_is_an_error_unless_allowed(labels: dict[str, np.ndarray], aupair: Command) -> None:
    Path("AffWild2/videos/batch1/t1.mp4").unlink()
    outcome = aupair("import", "affwild2", "AffWild2")
    assert outcome.line.startswith("labels without a video: in AffWild2/annotations/AU_Set/Train_Set/t1.txt, got t1")
    assert aupair("import", "affwild2", "AffWild2", "--allow-missing").code == 0
    assert len(read_layout(Path("data")).annotations) == 3


def test_the_source_is_never_replaced(labels: dict[str, np.ndarray], aupair: Command) -> None:
    before = contents(Path("AffWild2"))
    outcome = aupair("import", "affwild2", "AffWild2", "--out", "AffWild2", "--overwrite")
    assert outcome.line.startswith("the labels would be replaced by their import: in AffWild2/annotations/AU_Set")
    assert contents(Path("AffWild2")) == before


def test_another_layout_is_refused(labels: dict[str, np.ndarray], aupair: Command) -> None:
    assert aupair("import", "affwild2", "AffWild2").code == 0
    outcome = aupair("import", "affwild2", "data", "--out", "again")
    assert outcome.line.startswith("not Aff-Wild2's folders: in data/annotations/occurrence/Train_Set")
