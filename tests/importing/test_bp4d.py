"""`aupair import bp4d` on generated folders of BP4D's layout."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.data.layout import read_movie_header
from conftest import Command, contents
from importing.folders import movie, notes, text, written

AUS = (1, 2, 3, 6, 12)
"""AU3 is 9, not coded, everywhere."""
FRAMES, FIRST, LAST = 20, 5, 14
"""Frames 5 to 14, counted from 1, are coded."""


def occurrences(video: str) -> Path:
    return Path("BP4D/AUCoding/AU_OCC") / f"{video}.csv"


def intensities(video: str, au: int) -> Path:
    return Path("BP4D/AUCoding/AU_INT") / f"AU{au:02}" / f"{video}_AU{au:02}.csv"


def write_images(folder: Path, frames: int, first: int) -> None:
    folder.mkdir(parents=True)
    for k in range(frames):
        cv2.imwrite(str(folder / f"{k + first:03}.jpg"), np.full((48, 40, 3), 10 * k + 20, np.uint8))


def greys(path: Path) -> list[int]:
    """Return the mean of each frame of a movie."""
    capture, result = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        result.append(round(float(read[1].mean())))
    return result


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Occurrences, (10, 5) by video, of the folder BP4D in the current folder; images count from 1 and from 0."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    result = {}
    for video in ("F001_T1", "M002_T8"):
        values = rng.choice([0, 1, 9], (LAST - FIRST + 1, len(AUS)))
        values[:, 2] = 9
        result[video] = values
        rows = (f"{frame}," + ",".join(map(str, row)) for frame, row in zip(range(FIRST, LAST + 1), values))
        text(occurrences(video), "0," + ",".join(map(str, AUS)), *rows)
    text(
        intensities("F001_T1", 6), *(f"{frame},{(frame % 6) if frame != 9 else 9}" for frame in range(FIRST, LAST + 1))
    )
    write_images(Path("BP4D/Sequences/F001/T1"), FRAMES, first=1)
    write_images(Path("BP4D/Sequences/M002/T8"), FRAMES, first=0)
    write_images(Path("BP4D/Sequences/M002/T7"), 3, first=1)
    return result


def test_labels_are_those_of_their_frames(labels: dict[str, np.ndarray], aupair: Command) -> None:
    before = contents(Path("BP4D"))
    outcome = aupair("import", "bp4d", "BP4D")
    assert outcome.code == 0, outcome.err
    for video, values in labels.items():
        aus, result = written(Path("data"), video)
        assert aus == ("AU1", "AU2", "AU6", "AU12")
        expected = np.full((FRAMES, 4), -1)
        expected[FIRST - 1 : LAST] = np.where(values == 9, -1, values)[:, [0, 1, 3, 4]]
        np.testing.assert_array_equal(result, expected)
        assert greys(Path(f"data/videos/{video}.avi")) == pytest.approx([10 * k + 20 for k in range(FRAMES)], abs=3)
        assert read_movie_header(Path(f"data/videos/{video}.avi")) == (FRAMES, 25)
    aus, intensity = written(Path("data"), "F001_T1", "intensity")
    expected_levels = [-1 if not FIRST <= frame <= LAST or frame == 9 else frame % 6 for frame in range(1, FRAMES + 1)]
    assert aus == ("AU6",)
    assert intensity[:, 0].tolist() == expected_levels
    assert (written(Path("data"), "M002_T8", "intensity")[1] == -1).all()
    assert Path("data/subjects.csv").read_text() == "video,subject\nF001_T1,F001\nM002_T8,M002\n"
    reasons = notes(Path("data"))
    assert {reason: reasons[reason] for reason in reasons if "intensity" not in reason} == {
        "videos without labels, left out": ["M002_T7"],
        "AUs that are not coded in any video, left out": ["AU3"],
    }
    assert contents(Path("BP4D")) == before


def test_a_lacking_image_keeps_the_place_of_the_others(labels: dict[str, np.ndarray], aupair: Command) -> None:
    Path("BP4D/Sequences/F001/T1/003.jpg").unlink()
    Path("BP4D/Sequences/F001/T1/004.jpg").write_bytes(b"broken")
    assert aupair("import", "bp4d", "BP4D").code == 0
    assert greys(Path("data/videos/F001_T1.avi"))[1:5] == pytest.approx([30, 0, 0, 60], abs=3)
    assert notes(Path("data"))["folders that lack images, a black picture takes their place"] == [
        "BP4D/Sequences/F001/T1 (1)"
    ]


def test_an_interrupted_import_continues(labels: dict[str, np.ndarray], aupair: Command) -> None:
    assert aupair("import", "bp4d", "BP4D", "--fps", 29.97).code == 0
    shutil.rmtree("data/annotations")
    done = Path("data/videos/F001_T1.avi").stat()
    Path("data/videos/M002_T8.avi").unlink()
    assert aupair("import", "bp4d", "BP4D", "--fps", 29.97).code == 0
    assert Path("data/videos/F001_T1.avi").stat() == done
    assert len(greys(Path("data/videos/M002_T8.avi"))) == FRAMES


def test_movies_are_used_as_they_are(labels: dict[str, np.ndarray], aupair: Command) -> None:
    shutil.rmtree("BP4D/Sequences")
    for video in labels:
        movie(Path("BP4D/2D") / f"{video.lower()}.avi", FRAMES)
    assert aupair("import", "bp4d", "BP4D").code == 0
    assert Path("data/videos/M002_T8.avi").samefile("BP4D/2D/m002_t8.avi")


def test_labels_without_pictures_are_an_error_unless_allowed(labels: dict[str, np.ndarray], aupair: Command) -> None:
    shutil.rmtree("BP4D/Sequences/F001")
    outcome = aupair("import", "bp4d", "BP4D")
    assert outcome.code == 3
    assert outcome.line.startswith(
        "labels without a video: in BP4D/AUCoding/AU_OCC/F001_T1.csv, got F001_T1, expected F001_T1.avi, or images F001/T1/0001.jpg"
    )
    assert not Path("data").exists()
    assert aupair("import", "bp4d", "BP4D", "--allow-missing").code == 0
    assert notes(Path("data"))["labelled videos left out: labels without a video"] == ["F001_T1"]


BAD_FILES = {
    "a value": (occurrences("F001_T1"), ["0,1,2", "5,0,2"], "a label out of range: in BP4D/AUCoding/AU_OCC/F001_T1.csv line 2 column AU2, got 2, expected 0 or 1"),
    "an AU twice": (occurrences("F001_T1"), ["0,1,1", "5,0,1"], "an AU is named twice: in BP4D/AUCoding/AU_OCC/F001_T1.csv line 1, got AU1"),
    "another header": (occurrences("F001_T1"), ["frame,AU1", "5,0"], "not a header of BP4D: in BP4D/AUCoding/AU_OCC/F001_T1.csv line 1, got frame,AU1"),
    "frame 0": (occurrences("F001_T1"), ["0,1,2", "0,0,1"], "a frame before the first: in BP4D/AUCoding/AU_OCC/F001_T1.csv"),
    "after the end": (occurrences("F001_T1"), ["0,1,6", "5,0,1", "40,0,1"], "labelled at another frame rate (50 instead of 25)?: in BP4D/AUCoding/AU_OCC/F001_T1.csv, got 40 label rows for the 20 frames"),
    "an intensity": (intensities("F001_T1", 6), ["5,6"], "an intensity out of range: in BP4D/AUCoding/AU_INT/AU06/F001_T1_AU06.csv line 1 column AU6, got 6, expected 0 to 5"),
    "another AU": (intensities("F001_T1", 17), ["5,1"], "intensities of an AU without occurrences: in BP4D/AUCoding/AU_INT/AU17/F001_T1_AU17.csv, got AU17"),
    "an image of another size": (Path("BP4D/Sequences/F001/T1/007.jpg"), [], "images of different sizes: in BP4D/Sequences/F001/T1/007.jpg, got 20 x 30, expected 40 x 48"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_line(labels: dict[str, np.ndarray], aupair: Command, name: str) -> None:
    path, lines, message = BAD_FILES[name]
    if path.suffix == ".jpg":
        cv2.imwrite(str(path), np.zeros((30, 20, 3), np.uint8))
    else:
        text(path, *lines)
    outcome = aupair("import", "bp4d", "BP4D")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert not Path("data/annotations").exists()


def test_contradictions_of_occurrence_and_intensity_are_reported(
    labels: dict[str, np.ndarray], aupair: Command
) -> None:
    text(occurrences("F001_T1"), "0,6,12", "5,1,0", "6,1,1", "7,9,1", "8,0,1", "9,0,0")
    text(intensities("F001_T1", 6), "5,0", "6,0", "7,3", "8,2", "9,0")
    assert aupair("import", "bp4d", "BP4D").code == 0
    reasons = notes(Path("data"))
    assert reasons["AUs of videos with occurrence 1 and intensity 0 in a frame"] == [
        "F001_T1 AU6 (2 frames, the first is 5)"
    ]
    assert reasons["AUs of videos with occurrence 0 and an intensity above 0 in a frame"] == [
        "F001_T1 AU6 (1 frames, the first is 8)"
    ]
    assert reasons["AUs of videos with an intensity in a frame without occurrence"] == [
        "F001_T1 AU6 (1 frames, the first is 7)"
    ]
