"""Tests of finding annotations and movies, in the folder names of several releases."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from aupair import store
from aupair.aus import AFFWILD2
from aupair.data.layout import (
    Header,
    list_video_jobs,
    read_csv,
    read_layout,
    read_movie_header,
    read_subjects,
)
from aupair.errors import DataError
from data.folders import write_movie, write_text

SHEET = ",".join(AFFWILD2) + "\n" + ",".join("0" * len(AFFWILD2)) + "\n"


def plain(root: Path, folder: str = "AU_Set", train: str = "Train_Set", validation: str = "Validation_Set") -> Path:
    write_text(root / "annotations" / folder / train / "a.txt", SHEET)
    write_text(root / "annotations" / folder / train / "b_left.txt", SHEET)
    write_text(root / "annotations" / folder / validation / "c.txt", SHEET)
    for name in ("a.mp4", "b.avi", "c.MP4"):
        write_text(root / "videos" / name)
    return root


@pytest.mark.parametrize(
    ("folder", "train", "validation"),
    [
        ("AU_Set", "Train_Set", "Validation_Set"),
        ("AU_Detection_Challenge", "Training_Set", "Validation_Set"),
        ("au_set", "TRAIN_SET", "validation_SET"),
        ("5th ABAW Annotations/AU_Detection_Challenge", "Train_Set", "Validation_Set"),
    ],
)
def test_folder_names_of_releases(tmp_path: Path, folder: str, train: str, validation: str) -> None:
    layout = read_layout(plain(tmp_path, folder, train, validation))
    expected = {"a": "train", "b_left": "train", "c": "validation"}
    assert [(a.video, a.official) for a in layout.annotations] == list(expected.items())


def test_videos_named_left_and_right_read_the_movie_without_that_suffix(tmp_path: Path) -> None:
    root = plain(tmp_path)
    write_text(root / "videos" / "batch2" / "d_right.mov")
    layout = read_layout(root)
    assert layout.source("b_left") == layout.source("b_right") == root / "videos" / "b.avi"
    sides = {"b_left": "left", "b_right": "right", "b": "", "a": "", "d_right": "", "d_left": ""}
    assert {video: layout.side(video) for video in sides} == sides
    assert layout.source("d_right") == root / "videos" / "batch2" / "d_right.mov"
    assert layout.source("d_left") is None
    write_text(root / "videos" / "b_left.mkv")
    layout = read_layout(root)
    assert layout.source("b_left") == root / "videos" / "b_left.mkv"
    assert layout.side("b_left") == ""
    assert layout.side("b_right") == "right"


def test_left_and_right_are_two_persons_unless_subjects_csv_names_them(tmp_path: Path) -> None:
    root = plain(tmp_path)
    layout = read_layout(root)
    assert (layout.subject("b_left"), layout.subject("b_right")) == ("b_left", "b_right")
    write_text(root / "subjects.csv", "subject,video\nanna,a\nanna,b_left\n")
    assert read_subjects(root / "subjects.csv") == {"a": "anna", "b_left": "anna"}
    assert read_layout(root).subject("c") == "c"


def test_hidden_files_and_other_files_are_no_annotations(tmp_path: Path) -> None:
    root = plain(tmp_path)
    write_text(root / "annotations" / "AU_Set" / "Train_Set" / "._a.txt")
    write_text(root / "annotations" / "AU_Set" / "Train_Set" / "readme.md")
    write_text(root / "annotations" / "AU_Set" / "Test_Set" / "t.txt")
    write_text(root / "videos" / "._a.mp4")
    assert [a.video for a in read_layout(root).annotations] == ["a", "b_left", "c"]


def test_missing_parts_are_errors(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with pytest.raises(DataError, match=r"^no data folder: in .*data; get the demo corpus by `dvc pull"):
        read_layout(root)
    root.mkdir()
    with pytest.raises(DataError, match=r"^an empty data folder"):
        read_layout(root)
    write_text(root / "videos" / "a.mp4")
    with pytest.raises(DataError, match=r"^no annotations: in "):
        read_layout(root)
    (root / "annotations" / "VA_Set").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"^no AU annotations: .*expected occurrence/<video>.csv, or those of Aff-Wild2: AU_Set/"
    ):
        read_layout(root)
    (root / "annotations" / "AU_Set" / "Train_Set").mkdir(parents=True)
    with pytest.raises(DataError, match=r"^no annotation files"):
        read_layout(root)
    write_text(root / "annotations" / "AU_Set" / "Train_Set" / "a.txt")
    (root / "videos" / "a.mp4").unlink()
    with pytest.raises(DataError, match=r"^no videos"):
        read_layout(root)


def test_ambiguous_files_are_errors(tmp_path: Path) -> None:
    root = plain(tmp_path)
    write_text(root / "videos" / "other" / "a.avi")
    with pytest.raises(DataError, match=r"^two files for one video: in .*a\.mp4, got .*a\.avi"):
        read_layout(root).source("a")
    twice = write_text(root / "annotations" / "AU_Set" / "Validation_Set" / "a.txt", SHEET)
    with pytest.raises(DataError, match=rf"^a video is annotated twice: in {twice}"):
        read_layout(root)
    write_text(root / "annotations" / "AU_Detection_Challenge" / "Train_Set" / "a.txt", SHEET)
    with pytest.raises(DataError, match=r"^two folders of annotations"):
        read_layout(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wrong header: in {} line 1, got nothing"),
        ("clip,subject\na,b\n", "wrong header: in {} line 1, got clip,subject, expected video,subject"),
        ("video,subject\na,b\nc\n", "a ragged row: in {} line 3, got c, expected video,subject"),
        ("video,subject\na,\n", "a ragged row: in {} line 2"),
        ("video,subject\n\na,b\n", "a ragged row: in {} line 2, got nothing"),
        ("video,subject\na,b\na,c\n", "a video has two subjects: in {} line 3, got a: c, expected b"),
    ],
)
def test_bad_subjects_file(tmp_path: Path, text: str, message: str) -> None:
    path = write_text(tmp_path / "subjects.csv", text)
    with pytest.raises(DataError) as caught:
        read_subjects(tmp_path / "subjects.csv")
    assert str(caught.value).startswith(message.format(path))


def test_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match=r"^not a readable table"):
        read_csv(path, ("video",))
    path.write_text("\ufeffvideo , split\n a , fit \n\n", encoding="utf-8")
    assert read_csv(path, ("split", "video")) == [("fit", "a")]


def test_the_header_of_a_movie_and_of_files_that_are_none(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", 6)
    assert read_movie_header(path) == Header(6, 25.0)
    assert read_movie_header(write_text(tmp_path / "c.avi")) is None
    assert read_movie_header(tmp_path / "absent.mp4") is None
    broken = write_text(tmp_path / "b.mp4", "not a movie")
    code = "import sys; from aupair.data.layout import *; assert read_movie_header(Path(sys.argv[1])) is None"
    outcome = subprocess.run([sys.executable, "-c", code, broken], capture_output=True, text=True, check=True)
    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_jobs_resolve_the_labels_videos(tmp_path: Path) -> None:
    root = plain(tmp_path / "data")
    labels = tmp_path / "labels.parquet"
    store.write_table(labels, pa.table({"video": ["b_left", "a", "a"], "frame": [0, 0, 1]}))
    assert list_video_jobs(root, labels) == [
        ("a", root / "videos" / "a.mp4", "", 2),
        ("b_left", root / "videos" / "b.avi", "left", 1),
    ]
    (root / "videos" / "b.avi").unlink()
    with pytest.raises(DataError, match=r"^a labelled video has no file: in .*videos, got b_left"):
        list_video_jobs(root, labels)
