"""A competition's files from the tables of predict: a row for every frame, with or without a decision."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, DataError, ParamsError
from aupair.inference.predict import predict_videos
from aupair.inference.submission import (
    _fill_decisions,
    _read_decisions,
    _read_expected,
    _SubmissionRow,
    write_submission,
)
from aupair.inference.videos import find_videos
from brightness import A, make_recognizer
from listener import Listener

HEADER = ",".join(AFFWILD2)


def table(folder: Path, video: str, rows: str, last: str = "") -> Path:
    """Write a table as predict does: a letter a frame, 0, 1, `-` no face, `a` abstain; `last`: other ones for AU26."""
    cell = {"0": "0", "1": "1", "-": "", "a": "abstain"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{video}.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        numbers = [f"{au}_confidence" for au in AFFWILD2]
        writer.writerow(["frame", "time_s", "status", *AFFWILD2, *numbers])
        for k, (letter, other) in enumerate(zip(rows, last or rows)):
            status = "no_face" if letter == "-" else "ok"
            writer.writerow([k, f"{k / 30:.6f}", status, *[cell[letter]] * (A - 1), cell[other], *["0.5"] * A])
    return path


def written(path: Path) -> str:
    """Return the decisions of the first AU in a file, after checking that all AUs but the last have the same."""
    header, *rows = path.read_text().splitlines()
    assert header == HEADER
    cells = [row.split(",") for row in rows]
    assert all(len(row) == A and len(set(row[:-1])) == 1 for row in cells)
    return "".join(row[0] for row in cells)


def naive(rows: str, frames: int) -> str:
    """Fill by a loop: the nearest digit, the earlier of two, 0 without any."""
    known = [k for k, letter in enumerate(rows) if letter in "01"]
    full = [rows[min(known, key=lambda j: (abs(j - k), j))] if known else "0" for k in range(len(rows))]
    full += [full[-1] if full else "0"] * (frames - len(full))
    return "".join(full[:frames])


@pytest.mark.parametrize("rows", ["0110", "--1--0-", "1a0a-a", "----", "aaaa", "", "1--00--1--"])
@pytest.mark.parametrize("frames", [None, 4, 12, 2])
def test_every_frame_has_a_row_with_the_nearest_decision(tmp_path: Path, rows: str, frames: int | None) -> None:
    table(tmp_path / "predictions", "v", rows)
    expected = tmp_path / "list.txt"
    expected.write_text("v" if frames is None else f"v,{frames}")
    (row,) = write_submission(tmp_path / "predictions", tmp_path / "out", expected)
    length = len(rows) if frames is None else frames
    assert written(tmp_path / "out" / "v.txt") == naive(rows, length)
    assert row.frames == length


def test_random_gaps_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        decisions = rng.choice([-1, 0, 1], (int(rng.integers(1, 30)), A), p=[0.6, 0.2, 0.2]).astype(np.int8)
        frames = int(rng.integers(1, 40))
        full = _fill_decisions(decisions, frames)
        assert full.shape == (frames, A)
        for au in range(A):
            letters = "".join("-01"[value + 1] for value in decisions[:, au])
            assert "".join(map(str, full[:, au])) == naive(letters, frames)


def test_an_au_that_abstains_takes_its_own_nearest_decision(tmp_path: Path) -> None:
    table(tmp_path / "predictions", "v", "0000", last="1aa0")
    (row,) = write_submission(tmp_path / "predictions", tmp_path / "out")
    lines = (tmp_path / "out" / "v.txt").read_text().splitlines()[1:]
    assert [line[-1] for line in lines] == list("1100")
    assert row == _SubmissionRow("v", 4)


def test_what_differs_from_a_complete_prediction_is_reported_for_each_video(tmp_path: Path) -> None:
    predictions, log = tmp_path / "predictions", Listener()
    for video, rows in {"short": "01", "long": "0110", "blind": "---", "fine": "101", "extra": "0"}.items():
        table(predictions, video, rows)
    table(predictions, "half", "000", last="aaa")
    expected = tmp_path / "list.csv"
    expected.write_text("video,frames\nshort,4\nlong,2\nblind,3\nfine,3\nhalf,3\ngone,2\n")
    rows = write_submission(predictions, tmp_path / "out", expected, missing="zeros", log=log)
    messages = {row.video: row.message for row in rows}
    assert messages == {
        "short": "2 rows predicted, 4 expected, the last is repeated",
        "long": "4 rows predicted, 2 expected, the rest is cut off",
        "blind": "no frame with a decision, zeros are written",
        "fine": "",
        "half": "no decision for AU26, zeros are written",
        "gone": "no prediction, zeros are written",
    }
    lines = [f"{video}: {message}" for video, message in messages.items() if message]
    assert log.lines == [*lines, "1 predicted videos are not in the list: extra"]
    contents = {path.name: written(path) for path in (tmp_path / "out").iterdir()}
    assert contents == {
        "short.txt": "0111", "long.txt": "01", "blind.txt": "000", "fine.txt": "101", "half.txt": "000", "gone.txt": "00",
    }  # fmt: skip
    log.lines.clear()
    write_submission(predictions, tmp_path / "out", log=log)
    assert log.lines[-1] == f"1 other files are in {tmp_path / 'out'}: gone.txt"


def test_a_video_without_a_prediction_is_named_before_anything_is_written(tmp_path: Path) -> None:
    table(tmp_path / "predictions", "v", "01")
    expected = tmp_path / "list.txt"
    expected.write_text("v 2\nw_left 3\nw_right 3\n")
    with pytest.raises(DataError) as caught:
        write_submission(tmp_path / "predictions", tmp_path / "out", expected)
    assert str(caught.value) == (
        f"a video without a prediction: in {expected}, got w_left, w_right, expected {tmp_path / 'predictions'}/w_left.csv; "
        "predict it, or write zeros by --missing zeros"
    )
    assert not (tmp_path / "out").exists()


def test_a_video_that_predict_could_not_read_is_missed_without_a_list(tmp_path: Path) -> None:
    table(tmp_path / "predictions", "v", "01")
    (tmp_path / "predictions" / "summary.csv").write_text(
        "video,status,frames,faces,message,output\nin/v.mp4,ok,2,2,,v\nin/broken.mp4,unreadable,0,0,no,\n"
    )
    with pytest.raises(DataError, match=r"^a video without a prediction: in \S*summary\.csv, got broken"):
        write_submission(tmp_path / "predictions", tmp_path / "out")
    with pytest.raises(DataError, match=r"in broken; zeros need its number of frames: name it in --expected$"):
        write_submission(tmp_path / "predictions", tmp_path / "out", missing="zeros")
    assert not (tmp_path / "out").exists()


def test_one_table_for_all_counts_images_from_1(tmp_path: Path) -> None:
    table(tmp_path / "predictions", "a_left", "01")
    table(tmp_path / "predictions", "b", "-1-")
    write_submission(tmp_path / "predictions", tmp_path / "out", form="table")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.txt"]
    header, *lines = (tmp_path / "out" / "predictions.txt").read_text().splitlines()
    assert header == f"image_location,{HEADER}"
    places, cells = zip(*(line.split(",", 1) for line in lines))
    assert places == ("a_left/00001.jpg", "a_left/00002.jpg", "b/00001.jpg", "b/00002.jpg", "b/00003.jpg")
    assert [line[0] for line in cells] == ["0", "1", "1", "1", "1"]
    assert {line.count(",") for line in cells} == {A - 1}


LISTS: dict[str, tuple[str, dict[str, int | None]]] = {
    "commas": ("v,3\nw_left,12\n", {"v": 3, "w_left": 12}),
    "spaces": ("v 3\nw_left\t12\n\n", {"v": 3, "w_left": 12}),
    "header": ("Video, Frames\nv, 3\n", {"v": 3}),
    "names": ("\ufeffv\nw_left\n", {"v": None, "w_left": None}),
    "suffixes": ("v.mp4,3\nw.txt\n5-60-1.5x.AVI 2\n", {"v": 3, "w": None, "5-60-1.5x": 2}),
    "spaces in a name": ("my video,3\n", {"my video": 3}),
    "template": ("image_location,AU1\nv/00001.jpg,\nv/00003.jpg,\nw/00002.jpg,\n", {"v": 3, "w": 2}),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_what_is_expected(tmp_path: Path, name: str) -> None:
    text, wanted = LISTS[name]
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    assert _read_expected(path) == wanted
    assert list(_read_expected(path)) == list(wanted), "in the list's order"


def test_a_folder_of_the_competitions_files_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text(f"{HEADER}\n")
    (tmp_path / "w.txt").write_text(f"{HEADER}\n0\n0\n")
    (tmp_path / "notes.md").write_text("no video")
    assert _read_expected(tmp_path) == {"v": None, "w": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no video in the list: in {}"),
        ("video,frames\n", "no video in the list: in {}"),
        ("v,3\nv,3\n", "a video is listed twice: in {} line 2, got v,3"),
        ("v\nv\n", "a video is listed twice: in {} line 2, got v"),
        ("v,three\n", "not a line of the list: in {} line 1, got v,three, expected video,frames"),
        ("v,0\n", "not a line of the list: in {} line 1"),
        ("v,1,2\n", "not a line of the list: in {} line 1"),
        (",3\n", "not a line of the list: in {} line 1"),
        ("v/face.jpg\n", "not the path of an image: in {} line 1, got v/face.jpg, expected video/00001.jpg"),
        ("v/00000.jpg\n", "not the path of an image: in {} line 1"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        _read_expected(path)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^not a readable list: in \S*none\.txt, got FileNotFoundError"):
        _read_expected(tmp_path / "none.txt")
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"^not a readable list"):
        _read_expected(tmp_path / "noise")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("AU26,", "AU27,"),
        ("\n1,", "\n2,"),
        ("ok,0", "ok,7"),
        ("\n0,", "\n4,5\n0,"),
        ("frame", "\ufeff"),
    ],
    ids=["no column AU26", "no frame 1", "another value", "a ragged row", "no column frame"],
)
def test_what_predict_did_not_write_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = table(tmp_path / "predictions", "v", "0011")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=r"^not a table of predictions: in \S*v\.csv, got ") as caught:
        write_submission(tmp_path / "predictions", tmp_path / "out")
    assert "\n" not in str(caught.value)
    path.write_text("")
    with pytest.raises(ArtifactError, match=r"^not a table of predictions: in \S*v\.csv, got "):
        write_submission(tmp_path / "predictions", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_summary_that_predict_did_not_write_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "predictions", "v", "0")
    for text in ("video\nv.mp4\n", "video,status,frames,faces,message,output\nv.mp4,ok,many,1,,v\n"):
        (tmp_path / "predictions" / "summary.csv").write_text(text)
        with pytest.raises(ArtifactError, match=r"^not a summary: in \S*summary\.csv, got .*; predict again$"):
            write_submission(tmp_path / "predictions", tmp_path / "out")


def test_wrong_choices_and_places_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no folder of predictions: in \S*predictions; run `aupair predict` first"):
        write_submission(tmp_path / "predictions", tmp_path / "out")
    (tmp_path / "predictions").mkdir()
    with pytest.raises(DataError, match=r"^no prediction: in "):
        write_submission(tmp_path / "predictions", tmp_path / "out")
    with pytest.raises(ParamsError, match=r"^--form has an unknown value, got csv, expected files \| table"):
        write_submission(tmp_path / "predictions", tmp_path / "out", form="csv")
    with pytest.raises(ParamsError, match=r"^--missing has an unknown value, got skip, expected error \| zeros"):
        write_submission(tmp_path / "predictions", tmp_path / "out", missing="skip")


def test_a_test_release_of_crops_is_predicted_and_submitted(tmp_path: Path) -> None:
    """Image k is row k - 1 of the submission; frames without an image take the nearest one's decision."""
    top = tmp_path / "cropped_aligned" / "batch1"
    shown = {"v.1_left": {2: 250, 3: 10, 7: 250}, "v.1_right": {1: 10, 2: 10, 4: 250}}
    for video, images in shown.items():
        (top / video).mkdir(parents=True)
        for number, grey in images.items():
            cv2.imwrite(str(top / video / f"{number:05d}.jpg"), np.full((112, 112, 3), grey, np.uint8))
    params = {"extract_features": {"batch": 4, "context_points": 0}, "preprocess_faces": {"size": 32}}
    done = predict_videos(
        find_videos([tmp_path / "cropped_aligned"]), make_recognizer(params, 255), tmp_path / "predictions"
    )
    assert [(row.output, row.status, row.frames, row.faces, row.message) for row in done] == [
        ("v.1_left", "ok", 7, 3, ""), ("v.1_right", "ok", 4, 3, ""),
    ]  # fmt: skip
    assert _read_decisions(tmp_path / "predictions" / "v.1_left.csv", AFFWILD2)[:, 0].tolist() == [
        -1,
        1,
        0,
        -1,
        -1,
        -1,
        1,
    ]
    expected = tmp_path / "test_set.txt"
    expected.write_text("v.1_left,9\nv.1_right,4\n")
    rows = write_submission(tmp_path / "predictions", tmp_path / "out", expected)
    assert written(tmp_path / "out" / "v.1_left.txt") == "110001111"
    assert written(tmp_path / "out" / "v.1_right.txt") == "0001"
    assert [row.message for row in rows] == ["7 rows predicted, 9 expected, the last is repeated", ""]


def test_crops_are_found_beside_movies_of_other_videos(tmp_path: Path) -> None:
    for place in ("videos/a.mp4", "cropped_aligned/a/00001.jpg", "cropped_aligned/c/00001.jpg", "frames/d/00001.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    crops = tmp_path / "cropped_aligned"
    assert find_videos([tmp_path]) == [tmp_path / "videos" / "a.mp4", crops / "c"]
    assert find_videos([crops]) == [crops / "a", crops / "c"]
    assert find_videos([crops / "a"]) == find_videos([crops / "a", crops / "a"]) == [crops / "a"]
    with pytest.raises(DataError, match=r"^no video"):
        find_videos([tmp_path / "frames"])
