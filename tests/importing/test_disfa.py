"""`aupair import disfa` on generated folders of DISFA's layout."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Command
from importing.folders import movie, notes, text, written

AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
NAMES = tuple(f"AU{au}" for au in AUS)
FRAMES = 12


def label_file(root: Path, subject: str, au: int) -> Path:
    return root / "ActionUnit_Labels" / subject / f"{subject}_au{au}.txt"


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Intensities, (12, 12) by subject, of the folder DISFA in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng, root = np.random.default_rng(1), tmp_path / "DISFA"
    result = {subject: rng.integers(0, 6, (FRAMES, len(AUS))) for subject in ("SN001", "SN016")}
    for subject, values in result.items():
        for k, au in enumerate(AUS):
            text(label_file(root, subject, au), *(f"{row + 1},{value}" for row, value in enumerate(values[:, k])))
    movie(root / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi", FRAMES, fps=20)
    movie(root / "Videos_LeftCamera" / "leftVideoSN016_Comp.avi", FRAMES - 1, fps=20)
    movie(root / "Videos_RightCamera" / "RightVideoSN001_comp.avi", FRAMES, fps=20)
    movie(root / "Videos_RightCamera" / "RightVideoSN002_comp.avi", FRAMES, fps=20)
    return result


def test_every_frame_of_every_au_arrives(labels: dict[str, np.ndarray], aupair: Command) -> None:
    outcome = aupair("import", "disfa", "DISFA")
    assert outcome.code == 0, outcome.err
    for subject, values in labels.items():
        length = FRAMES if subject == "SN001" else FRAMES - 1
        aus, intensity = written(Path("data"), subject, "intensity")
        assert aus == NAMES
        np.testing.assert_array_equal(intensity, values[:length])
        np.testing.assert_array_equal(written(Path("data"), subject)[1], values[:length] >= 2)
    assert Path("data/subjects.csv").read_text() == "video,subject\nSN001,SN001\nSN016,SN016\n"
    assert Path("data/videos/SN016.avi").samefile("DISFA/Videos_LeftCamera/leftVideoSN016_Comp.avi")
    reasons = notes(Path("data"))
    assert reasons["videos with label rows after their last frame, these rows are left out"] == [
        "SN016 (12 rows, 11 frames)"
    ]
    assert len(reasons["movies of the other camera or of another name, left out"]) == 2


def test_camera_and_threshold_can_be_chosen(labels: dict[str, np.ndarray], aupair: Command) -> None:
    outcome = aupair("import", "disfa", "DISFA", "--camera", "right", "--threshold", 3)
    assert outcome.line.startswith("labels without a video: in DISFA, got SN016, expected RightVideoSN016_comp.avi")
    command = ("import", "disfa", "DISFA", "--camera", "right", "--threshold", 3, "--allow-missing")
    assert aupair(*command).code == 0
    np.testing.assert_array_equal(written(Path("data"), "SN001")[1], labels["SN001"] >= 3)
    assert Path("data/videos/SN001.avi").samefile("DISFA/Videos_RightCamera/RightVideoSN001_comp.avi")
    assert notes(Path("data"))["labelled videos left out: labels without a video"] == ["SN016"]
    assert notes(Path("data"))["videos without labels, left out"] == ["RightVideoSN002_comp"]


def test_a_person_who_lacks_an_au_is_an_error_unless_allowed(labels: dict[str, np.ndarray], aupair: Command) -> None:
    label_file(Path("DISFA"), "SN016", 9).unlink()
    outcome = aupair("import", "disfa", "DISFA")
    assert outcome.code == 3
    assert outcome.line.startswith(
        "a person lacks an AU: in DISFA/ActionUnit_Labels/SN016, got no AU9 of SN016, expected SN016_au9.txt"
    )
    assert aupair("import", "disfa", "DISFA", "--allow-missing").code == 0
    aus, values = written(Path("data"), "SN016")
    assert aus == NAMES
    assert (values[:, NAMES.index("AU9")] == -1).all()
    assert (np.delete(values, NAMES.index("AU9"), axis=1) >= 0).all()


BAD_FILES = {
    "a code": (["1,0", "2,9"], "an intensity out of range: in DISFA/ActionUnit_Labels/SN001/SN001_au4.txt line 2 column AU4, got 9, expected 0 to 5"),
    "from zero": (["0,1", "1,2"], "a frame before the first: in DISFA/ActionUnit_Labels/SN001/SN001_au4.txt"),
    "twice": (["1,0", "2,1", "2,1"], "a frame is listed twice: in DISFA/ActionUnit_Labels/SN001/SN001_au4.txt line 3, got 2, expected once, as in line 2"),
    "a word": (["1,0", "2,x"], "not a number: in DISFA/ActionUnit_Labels/SN001/SN001_au4.txt line 2 column AU4, got 'x'"),
    "empty": ([], "an empty file: in DISFA/ActionUnit_Labels/SN001/SN001_au4.txt"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_line(labels: dict[str, np.ndarray], aupair: Command, name: str) -> None:
    lines, message = BAD_FILES[name]
    text(label_file(Path("DISFA"), "SN001", 4), *lines)
    outcome = aupair("import", "disfa", "DISFA")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert not Path("data").exists()


def test_missing_frames_and_codes_are_not_labelled(labels: dict[str, np.ndarray], aupair: Command) -> None:
    path = label_file(Path("DISFA"), "SN001", 4)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["1,3", "2,", "4,-1", "5,2", "", ""]).encode())
    assert aupair("import", "disfa", "DISFA").code == 0
    values = written(Path("data"), "SN001", "intensity")[1][:, NAMES.index("AU4")]
    assert values.tolist() == [3, -1, -1, -1, 2, *[-1] * (FRAMES - 5)]
    reason = "videos with frames that their table does not list, these are not labelled"
    assert notes(Path("data"))[reason] == [f"SN001_au4 ({FRAMES - 4})"]


def test_files_of_different_lengths_are_reported(labels: dict[str, np.ndarray], aupair: Command) -> None:
    for au in (4, 26):
        path = label_file(Path("DISFA"), "SN001", au)
        text(path, *path.read_text().splitlines()[:6])
    assert aupair("import", "disfa", "DISFA").code == 0
    assert notes(Path("data"))["videos with frames after their last label row, these are not labelled"] == [
        "SN001 (6 rows in SN001_au4.txt, SN001_au26.txt, 12 frames)"
    ]


def test_no_disfa_is_one_line(tmp_path: Path, aupair: Command) -> None:
    assert aupair("import", "disfa", tmp_path).line.startswith(f"no labels of DISFA: in {tmp_path}")
