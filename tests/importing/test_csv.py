"""`aupair import csv` of tables with a row for each frame."""

from pathlib import Path

import numpy as np
import pytest

from aupair.importing.tables import read_text_table
from conftest import Command, contents
from importing.folders import frame_table, movie, notes, text, written

AUS = ("AU43", "AU12L", "nod")
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two movies of ten and six frames, in the current folder."""
    monkeypatch.chdir(tmp_path)
    movie(tmp_path / "movies" / "a.mp4", 10)
    movie(tmp_path / "movies" / "deep" / "b.avi", 6)
    return tmp_path


@pytest.fixture
def labels() -> dict[str, np.ndarray]:
    return {"a": RNG.integers(-1, 2, (10, 3)), "b": RNG.integers(-1, 2, (6, 3))}


def test_labels_videos_and_counts_arrive(folder: Path, aupair: Command, labels: dict[str, np.ndarray]) -> None:
    frame_table(folder / "labels.csv", labels, AUS)
    before = contents(folder)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.code == 0, outcome.err
    for video, values in labels.items():
        aus, result = written(folder / "data", video)
        assert aus == AUS
        np.testing.assert_array_equal(result, values)
    both = np.concatenate(list(labels.values()))
    for k, au in enumerate(AUS):
        row = next(line for line in outcome.out.splitlines() if f" {au} " in line)
        assert [int(cell) for cell in row.replace("│", " ").split()[1:4]] == [
            2,
            (both[:, k] >= 0).sum(),
            (both[:, k] == 1).sum(),
        ]
    assert (folder / "data/videos/a.mp4").samefile(folder / "movies/a.mp4")
    assert (folder / "data/videos/b.avi").samefile(folder / "movies/deep/b.avi")
    assert "2 videos without a subject, each counts as a different person: a, b" in outcome.out
    after = contents(folder)
    assert {name: content for name, content in after.items() if not name.startswith("data/")} == before


def test_spreadsheets_and_editors_leave_marks(folder: Path, aupair: Command, labels: dict[str, np.ndarray]) -> None:
    rows = [f"A.MP4 ; {k};{';'.join(map(str, row))}" for k, row in enumerate(labels["a"])]
    content = "\r\n".join(["Video;Frame; AU43;AU12L;nod", *rows]) + "\r\n\r\n\n"
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert aupair("import", "csv", "labels.csv", "--videos", "movies").code == 0
    aus, result = written(folder / "data", "A")
    assert aus == AUS
    np.testing.assert_array_equal(result, labels["a"])
    assert notes(folder / "data")["videos without labels, left out"] == ["b"]


def test_every_way_to_leave_a_label_out_is_a_missing_label(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1,AU2", "a,0,,1", "a,1,NaN,0", "a,2,-1,1", "a,3,9,0", "a,7,1, NA ")
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--missing", "9").code == 0
    _, result = written(folder / "data", "a")
    assert result.tolist() == [[-1, 1], [-1, 0], [-1, 1], [-1, 0], *[[-1, -1]] * 3, [1, -1], *[[-1, -1]] * 2]
    assert notes(folder / "data")["videos with frames that their table does not list, these are not labelled"] == [
        "a (5)"
    ]


def test_a_folder_has_a_table_for_each_video_and_may_code_other_aus(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "a.csv", "frame,AU12,AU2", "0,1,0", "1,0,1")
    text(folder / "labels" / "b.csv", "frame,AU4,AU2", "0,1,0", "1,1,1")
    text(folder / "labels" / "subjects.csv", "video,subject", "a.mp4,Ann", "b,Ben")
    outcome = aupair("import", "csv", "labels", "--videos", "movies", "--subjects", "labels/subjects.csv")
    assert outcome.code == 0, outcome.err
    assert written(folder / "data", "a")[0] == ("AU2", "AU4", "AU12")
    assert written(folder / "data", "a")[1].tolist() == [[0, -1, 1], [1, -1, 0]]
    assert written(folder / "data", "b")[1].tolist() == [[0, 1, -1], [1, 1, -1]]
    assert (folder / "data/subjects.csv").read_text() == "video,subject\na,Ann\nb,Ben\n"


def test_names_with_folders_tell_movies_of_one_name_apart(folder: Path, aupair: Command) -> None:
    movie(folder / "movies" / "ann" / "clip.mp4", 3)
    movie(folder / "movies" / "ben" / "clip.mp4", 3)
    text(folder / "labels.csv", "video,frame,AU1", "ann/clip.mp4,0,1", "Ben\\clip,0,0")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.code == 0, outcome.err
    assert written(folder / "data", "ann_clip")[1].tolist() == [[1]]
    assert (folder / "data/videos/Ben_clip.mp4").samefile(folder / "movies/ben/clip.mp4")
    text(folder / "labels.csv", "video,frame,AU1", "clip,0,1")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--out", "other")
    assert outcome.line.startswith("two movies for one video: in movies/ann/clip.mp4, got movies/ben/clip.mp4")


def test_columns_can_be_chosen(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,time,AU2,AU1", "a,0,0.0,1,0", "a,1,0.04,0,1")
    line = aupair("import", "csv", "labels.csv", "--videos", "movies").line
    assert "got time" in line
    assert "--aus names the columns that are AUs" in line
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--aus", "AU1").code == 0
    assert written(folder / "data", "a")[1].tolist() == [[0], [1]]
    assert notes(folder / "data")["columns left out"] == ["time", "AU2"]
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--aus", "AU9", "--overwrite")
    assert outcome.line.startswith("no column for an AU: in labels.csv line 1, got time,AU2,AU1, expected AU9")


def test_frames_counted_from_one(folder: Path, aupair: Command, labels: dict[str, np.ndarray]) -> None:
    frame_table(folder / "labels.csv", labels, AUS, first=1)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("are frames counted from 0 or from 1?: in labels.csv")
    assert not (folder / "data").exists()
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--first-frame", 1).code == 0
    np.testing.assert_array_equal(written(folder / "data", "a")[1], labels["a"])


def test_intensities(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1,AU2", "a,0,0,1", "a,1,1.5,", "a,2,5,2")
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--levels", "--threshold", 2).code == 0
    assert written(folder / "data", "a", "intensity")[1].tolist() == [[0, 1], [1.5, -1], [5, 2]]
    assert written(folder / "data", "a")[1].tolist() == [[0, 0], [0, -1], [1, 1]]


BAD_TABLES = {
    "an AU named twice": (["video,frame,AU1,au1", "a,0,1,1"], "an AU is named twice: in labels.csv line 1"),
    "a reserved name": (["video,frame,AU1,split", "a,0,1,1"], "a reserved word as the name of an AU: in labels.csv line 1, got split"),
    "no AU": (["video,frame", "a,0"], "no AU: in labels.csv line 1"),
    "no frame": (["video,AU1", "a,0"], "no column for the frame: in labels.csv line 1, got video,AU1"),
    "no video": (["video,frame,AU1", "a,0,1", "c,0,1", "d,0,1"], "labels without a video: in labels.csv, got c (and 1 more), expected movies/c.mp4"),
    "no number": (["video,frame,AU1", "a,0,1", "a,1,yes"], "not a number: in labels.csv line 3 column AU1, got 'yes', expected a label"),
    "infinity": (["video,frame,AU1", "a,0,inf"], "not a number: in labels.csv line 2 column AU1"),
    "no video named": (["video,frame,AU1", "a,0,1", ",1,1"], "an empty cell: in labels.csv line 3 column video"),
    "an intensity": (["video,frame,AU1", "a,0,3"], "a label out of range: in labels.csv line 2 column AU1, got 3, expected 0 or 1"),
    "a frame twice": (["video,frame,AU1", "a,0,1", "a,1,0", "a,1,1"], "a frame is listed twice: in labels.csv line 4, got 1, expected once, as in line 3"),
    "half a frame": (["video,frame,AU1", "a,0.5,1"], "not the number of a frame: in labels.csv line 2 column frame, got 0.5"),
    "a ragged row": (["video,frame,AU1", "a,0,1", "a,1"], "a ragged row: in labels.csv line 3, got 2 cells, expected 3 cells"),
    "a blank line": (["video,frame,AU1", "a,0,1", "", "a,1,1"], "not a number: in labels.csv line 3 column frame, got '', expected the number of a frame"),
    "two subjects": (["video,frame,subject,AU1", "a,0,Ann,1", "a,1,Ben,1"], "a video has two subjects: in labels.csv line 3, got a: Ben, expected Ann"),
    "nothing labelled": (["video,frame,AU1", "a,0,", "a,1,"], "no labelled frame: in labels.csv"),
    "no row": (["video,frame,AU1"], "no label: in labels.csv"),
    "another frame rate": (["video,frame,AU1", *(f"a,{k},1" for k in range(20))], "labelled at another frame rate (50 instead of 25)?: in labels.csv, got 20 label rows for the 10 frames of movies/a.mp4"),
    "too many rows": (["video,frame,AU1", *(f"a,{k},1" for k in range(90))], "more label rows than frames: in labels.csv, got 90 label rows for the 10 frames"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_one_line(folder: Path, aupair: Command, name: str) -> None:
    lines, message = BAD_TABLES[name]
    text(folder / "labels.csv", *lines)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert not (folder / "data").exists()


def test_movies_may_be_in_the_data_folder_already(folder: Path, aupair: Command) -> None:
    movie(folder / "data" / "videos" / "batch1" / "c.mp4", 5)
    before = contents(folder / "data")
    text(folder / "labels.csv", "video,frame,AU1", "c,0,1", "a,0,1")
    outcome = aupair("import", "csv", "labels.csv")
    assert outcome.code == 0, outcome.err
    assert before.items() <= contents(folder / "data").items()
    assert not (folder / "data/videos/c.mp4").exists()
    assert (folder / "data/videos/a.mp4").samefile(folder / "movies/a.mp4")


def test_no_source_is_one_line(folder: Path, aupair: Command) -> None:
    for kind in ("csv", "disfa", "bp4d", "elan", "affwild2"):
        assert aupair("import", kind, "nowhere").line == "no such file or folder: in nowhere"


def test_labels_without_a_video_are_left_out_if_asked(folder: Path, aupair: Command) -> None:
    (folder / "movies" / "broken.mp4").write_bytes(b"no movie")
    text(folder / "labels.csv", "video,frame,AU1", "a,0,1", "c,0,1", "broken,0,1")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--allow-missing")
    assert outcome.code == 0, outcome.err
    assert "1 labelled videos left out: labels without a video: c" in outcome.out
    assert "1 labelled videos left out: the movie cannot be opened: broken" in outcome.out


def test_annotations_are_replaced_only_if_asked(folder: Path, aupair: Command, labels: dict[str, np.ndarray]) -> None:
    frame_table(folder / "labels.csv", labels, AUS)
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--transfer", "copy").code == 0
    text(folder / "labels.csv", "video,frame,AU1", "a,0,1")
    before = contents(folder / "data")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("the data folder has annotations already: in data/annotations")
    assert contents(folder / "data") == before
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--overwrite").code == 0
    assert written(folder / "data", "a")[0] == ("AU1",)


def test_people_of_the_data_folder_are_replaced_only_if_asked(folder: Path, aupair: Command) -> None:
    subjects = text(folder / "data" / "subjects.csv", "video,subject", "a,Ann", "b,Ann")
    before = subjects.read_text()
    text(folder / "labels.csv", "video,frame,AU1", "a,0,1")
    assert aupair("import", "csv", "labels.csv", "--videos", "movies").code == 0
    assert subjects.read_text() == before
    assert notes(folder / "data")["file not changed, since the source has no subjects"] == ["data/subjects.csv"]
    text(folder / "labels.csv", "video,frame,subject,AU1", "a,0,Eve,1")
    (folder / "data" / "annotations").rename(folder / "before")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("the data folder has other subjects already: in data/subjects.csv")
    assert subjects.read_text() == before
    assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--overwrite").code == 0
    assert subjects.read_text() == "video,subject\na,Eve\n"


def test_a_video_of_another_content_is_not_replaced(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1", "a,0,1")
    movie(folder / "data/videos/a.mp4", 4)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("another file has the name of a video: in data/videos/a.mp4, got also movies/a.mp4")
    assert not (folder / "data/annotations").exists()


@pytest.mark.parametrize(("rate", "rows"), [(30, 144), (24, 115), (25, 120)])
def test_labels_of_another_frame_rate_are_refused(folder: Path, aupair: Command, rate: int, rows: int) -> None:
    movie(folder / "movies" / "long.mp4", 120, fps=25)
    text(folder / "labels.csv", "video,frame,AU1", *(f"long,{k},{k % 2}" for k in range(rows)))
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert (outcome.code == 0) == (rate == 25)
    if rate != 25:
        assert outcome.line.startswith(
            f"labelled at another frame rate ({rate} instead of 25)?: in labels.csv, got {rows} "
        )
        assert aupair("import", "csv", "labels.csv", "--videos", "movies", "--any-length").code == 0
        assert len(written(folder / "data", "long")[1]) == min(rows, 120)


def test_lengths_that_differ_by_a_frame_are_noted(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1", *(f"a,{k},1" for k in range(11)), *(f"b,{k},0" for k in range(5)))
    assert aupair("import", "csv", "labels.csv", "--videos", "movies").code == 0
    assert len(written(folder / "data", "a")[1]) == 10
    assert notes(folder / "data")["videos with label rows after their last frame, these rows are left out"] == [
        "a (11 rows, 10 frames)"
    ]
    assert notes(folder / "data")["videos with frames after their last label row, these are not labelled"] == [
        "b (5 rows, 6 frames)"
    ]


@pytest.mark.parametrize("empty", [slice(5, 6), slice(0, 3), slice(98, 100)])
def test_empty_cells_do_not_hide_another_frame_rate(folder: Path, aupair: Command, empty: slice) -> None:
    movie(folder / "movies" / "long.mp4", 120, fps=30)
    cells = np.full(100, "1")
    cells[empty] = ""
    text(folder / "labels.csv", "video,frame,AU1", *(f"long,{k},{cell}" for k, cell in enumerate(cells)))
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("labelled at another frame rate (25 instead of 30)?: in labels.csv, got 100 ")


def test_every_table_of_a_video_is_compared_with_its_frames(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "whole.csv", "video,frame,AU1", *(f"a,{k},1" for k in range(10)))
    text(folder / "labels" / "part.csv", "video,frame,AU2", *(f"a,{k},{k % 2 or ''}" for k in range(7)))
    assert aupair("import", "csv", "labels", "--videos", "movies").code == 0
    assert notes(folder / "data")["videos with frames after their last label row, these are not labelled"] == [
        "a (7 rows in part.csv, 10 frames)"
    ]
    movie(folder / "movies" / "long.mp4", 120, fps=30)
    text(folder / "labels" / "whole.csv", "video,frame,AU1", *(f"long,{k},1" for k in range(120)))
    text(folder / "labels" / "part.csv", "video,frame,AU2", *(f"long,{k},1" for k in range(100)))
    outcome = aupair("import", "csv", "labels", "--videos", "movies", "--overwrite")
    assert outcome.line.startswith("labelled at another frame rate (25 instead of 30)?: in labels/part.csv, got 100 ")


def test_names_of_one_movie_are_one_video(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "one.csv", "video,frame,AU1", "movies/a.mp4,0,1")
    text(folder / "labels" / "two.csv", "video,frame,AU2", "a,0,1")
    text(folder / "labels" / "events.csv", "video,start,end,au", "A.MP4,0,0.04,AU3", "a,0.04,0.08,AU4")
    assert aupair("import", "csv", "labels", "--videos", "movies").code == 0
    assert written(folder / "data", "movies_a")[1][0].tolist() == [1, 1, 1, 0]
    assert sorted(path.name for path in (folder / "data" / "videos").iterdir()) == ["movies_a.mp4"]
    text(folder / "labels" / "two.csv", "video,frame,AU1", "a,1,1")
    outcome = aupair("import", "csv", "labels", "--videos", "movies", "--overwrite")
    assert outcome.line.startswith("a video is labelled twice, got movies_a: ")


def test_a_movie_that_is_in_the_data_folder_is_not_placed_again(folder: Path, aupair: Command) -> None:
    movie(folder / "data" / "videos" / "batch" / "c.mp4", 5)
    text(folder / "labels.csv", "video,frame,AU1", "batch/C.mp4,0,1")
    assert aupair("import", "csv", "labels.csv", "--videos", "data/videos").code == 0
    assert [path.name for path in (folder / "data" / "videos").rglob("*.mp4")] == ["c.mp4"]
    assert written(folder / "data", "c")[1].tolist() == [[1]]


def test_two_movies_cannot_have_one_name_in_the_data_folder(folder: Path, aupair: Command) -> None:
    movie(folder / "movies" / "p1" / "c.mp4", 3)
    movie(folder / "movies" / "p1_c.mp4", 3)
    text(folder / "labels.csv", "video,frame,AU1", "p1/c,0,1", "p1_c,0,1")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("two movies for one video: in movies/p1_c.mp4, got ")


@pytest.mark.parametrize("separator", ",;\t")
def test_people_are_matched_by_every_name_of_a_movie(folder: Path, aupair: Command, separator: str) -> None:
    text(folder / "labels.csv", "video,frame,AU1", "A.mp4,0,1", "deep/b,0,1")
    rows = ("Video,Subject", "a,P1", "movies/a.mp4,P1", "B.avi,p1", "c,P3", "movies/d,P4")
    text(folder / "people.csv", *(row.replace(",", separator) for row in rows))
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--subjects", "people.csv")
    assert outcome.code == 0, outcome.err
    assert (folder / "data/subjects.csv").read_text() == "video,subject\nA,P1\ndeep_b,p1\n"
    reasons = notes(folder / "data")
    assert reasons["rows of --subjects that name no labelled video, without effect"] == ["c", "movies/d"]
    assert reasons["pairs of people whose names differ only in case, two people each"] == ["P1 and p1"]
    text(folder / "people.csv", "video,subject", "a,P1", "movies/a.mp4,P2")
    command = ("import", "csv", "labels.csv", "--videos", "movies", "--subjects", "people.csv", "--overwrite")
    assert aupair(*command).line.startswith("a video has two subjects: in people.csv line 3, got movies/a.mp4: P2")


def test_two_persons_of_one_movie_have_labels_of_their_own(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1", "a_left,0,1", "movies/a_right.mp4,0,0")
    text(folder / "people.csv", "video,subject", "a_left,P1", "a_right,P2")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--subjects", "people.csv")
    assert outcome.code == 0, outcome.err
    assert written(folder / "data", "a_left")[1].tolist() == [[1]]
    assert written(folder / "data", "a_right")[1].tolist() == [[0]]
    assert [path.name for path in (folder / "data" / "videos").iterdir()] == ["a.mp4"]
    assert (folder / "data/subjects.csv").read_text() == "video,subject\na_left,P1\na_right,P2\n"


def test_two_files_of_one_name_are_one_line(folder: Path, aupair: Command) -> None:
    movie(folder / "movies" / "a.avi", 10)
    text(folder / "labels.csv", "video,frame,AU1", "a,0,1")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("two movies for one video: in movies/a.avi, got movies/a.mp4")
    assert outcome.line.endswith("remove or rename one")


def test_umlauts_may_be_one_character_or_two(folder: Path, aupair: Command) -> None:
    movie(folder / "movies" / "Bj\u00f6rn.mp4", 3)
    text(folder / "labels.csv", "video,frame,AU1", "Bjo\u0308rn,0,1")
    assert aupair("import", "csv", "labels.csv", "--videos", "movies").code == 0
    assert written(folder / "data", "Bj\u00f6rn")[1].tolist() == [[1]]


def test_what_is_not_read_of_a_folder_is_reported(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "deep" / "b.csv", "frame,AU1", "0,1")
    outcome = aupair("import", "csv", "labels", "--videos", "movies")
    assert outcome.line.startswith("no tables: in labels, got tables only in folders below, such as labels/deep/b.csv")
    text(folder / "labels" / "a.txt", "Frame\tAU1", "0\t1")
    text(folder / "labels" / "readme.txt", "Our labels, of May", "by Eve")
    assert aupair("import", "csv", "labels", "--videos", "movies", "--out", "labels/data").code == 0
    reasons = notes(folder / "labels" / "data")
    assert reasons["text files without the header of a table, left out"] == ["labels/readme.txt"]
    assert reasons["tables in folders below that of the labels, left out"] == ["labels/deep/b.csv"]
    assert written(folder / "labels" / "data", "a")[1].tolist() == [[1]]


def test_a_last_frame_after_the_end_may_be_counted_from_one(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU1", "b,0,1", "a,3,1", "a,10,1")
    command = ("import", "csv", "labels.csv", "--videos", "movies", "--first-frame")
    outcome = aupair(*command[:-1])
    assert outcome.line.startswith(
        "are frames counted from 0 or from 1?: in labels.csv video a, got frames 3 to 10 of 10; add --first-frame 1 if"
    )
    outcome = aupair(*command, 1)
    assert outcome.line.startswith("a frame before the first: in labels.csv video b, got 0, expected 1; if other ")
    assert aupair(*command, 0).code == 0


def test_columns_that_tools_add_are_left_out(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", ",Unnamed: 0,video,frame,Timestamp,confidence,AU1,Notes", "0,0,a,0,0.0,0.9,1,unsure")
    command = ("import", "csv", "labels.csv", "--videos", "movies", "--overwrite")
    assert aupair(*command).code == 0
    assert written(folder / "data", "a")[0] == ("AU1",)
    assert notes(folder / "data")["columns left out"] == ["(unnamed)", "Unnamed: 0", "Timestamp", "confidence", "Notes"]
    text(folder / "labels.csv", "video,frame,confidence", "a,0,1")
    assert aupair(*command, "--aus", "confidence").code == 0
    assert written(folder / "data", "a")[0] == ("confidence",)


def test_zeros_before_a_number_do_not_make_another_au(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video,frame,AU9,AU09", "a,0,1,0")
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies")
    assert outcome.line.startswith("two spellings of an AU's name: in labels.csv, got AU9 and AU09")


FRAME_TABLE = ["video,frame,AU1", "a,0,1"]
EVENT_TABLE = ["video,start,end,au", "a,0,0.04,AU1"]
OPTIONS_WITHOUT_EFFECT = [
    (FRAME_TABLE, ["--threshold", 2]),
    (FRAME_TABLE, ["--fps", 30]),
    (FRAME_TABLE, ["--unit", "frames"]),
    (FRAME_TABLE, ["--coded", "labels.csv"]),
    (FRAME_TABLE, ["--uncoded", "missing"]),
    (EVENT_TABLE, ["--levels"]),
    (EVENT_TABLE, ["--threshold", 2]),
    (EVENT_TABLE, ["--first-frame", 1]),
    (EVENT_TABLE, ["--aus", "AU1"]),
    (EVENT_TABLE, ["--missing", "9"]),
    (EVENT_TABLE, ["--fps", 30, "--unit", "frames"]),
    (EVENT_TABLE, ["--uncoded", "missing", "--coded", "labels.csv"]),
]


@pytest.mark.parametrize(("lines", "options"), OPTIONS_WITHOUT_EFFECT)
def test_options_without_effect_are_refused(
    folder: Path, aupair: Command, lines: list[str], options: list[object]
) -> None:
    text(folder / "labels.csv", *lines)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", *options)
    assert outcome.code == 3
    assert outcome.line.startswith(f"an option without effect: in {options[0]}")


@pytest.mark.parametrize("threshold", [0, -1, 5.5])
def test_a_threshold_is_an_intensity(folder: Path, aupair: Command, threshold: float) -> None:
    text(folder / "labels.csv", *FRAME_TABLE)
    outcome = aupair("import", "csv", "labels.csv", "--videos", "movies", "--levels", "--threshold", threshold)
    assert outcome.line == (
        f"not a threshold of intensities: in --threshold, got {threshold}, expected more than 0, at most 5"
    )


def test_codes_for_no_label_are_numbers_in_any_form(folder: Path, aupair: Command) -> None:
    text(folder / "labels.csv", "video;frame;AU1;AU2", "a;0;9;9,0", "a;1;8.00;x", "a;2;1;0,0", "a;3;-1,0;1")
    command = ("import", "csv", "labels.csv", "--videos", "movies", "--missing", "9, 8", "--missing", "x")
    assert aupair(*command).code == 0
    assert written(folder / "data", "a")[1].tolist() == [[-1, -1], [-1, -1], [1, 0], [-1, 1]]
    text(folder / "labels.csv", "video;frame;AU1", "a;0;0,5", "a;1;4")
    assert aupair(*command, "--overwrite", "--levels").code == 0
    assert written(folder / "data", "a", "intensity")[1].tolist() == [[0.5], [4]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(end.join(["video,frame,AU1", "a,0,1", "a,1,0", ""]).encode())
    table = read_text_table(path)
    assert (table.header, len(table)) == (("video", "frame", "AU1"), 2)
    assert table.numbers(2).tolist() == [1, 0]


@pytest.mark.parametrize("fps", ["nan", "inf", "0"])
def test_a_frame_rate_is_a_finite_number(tmp_path: Path, aupair: Command, fps: str) -> None:
    outcome = aupair("import", "csv", tmp_path / "events.csv", "--fps", fps)
    assert outcome.code == 2
    assert "--fps" in outcome.line
