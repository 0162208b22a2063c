"""Tests of crops that the releasers made: the frame of an image, where the folders lie, warnings."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.crops import Crops, count_crops, find_crops, frame_number, image_names
from aupair.data.layout import VideoJob, list_video_jobs, read_layout
from aupair.data.splits import split_data
from aupair.errors import DataError
from data.folders import run_check, write_movie, write_sheet, write_text

ROWS = 6
SETS = {"a": "Train_Set", "b_left": "Train_Set", "b_right": "Train_Set", "d": "Validation_Set"}
SPLITS = "video,subject,split\na,a,fit\nb_left,b_left,fit\nb_right,b_right,select\nd,d,validation\n"


def crops(folder: Path, numbers: Iterable[int], suffix: str = ".jpg") -> Path:
    """Write files named like images; only their names are read here."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:05d}{suffix}").write_text("no image")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A release with crops and no movies: every frame has an image."""
    root = tmp_path / "data"
    for video, official in SETS.items():
        half = np.arange(ROWS)[:, None] % 2 == np.arange(12) % 2
        write_sheet(root / "annotations" / "AU_Set" / official / f"{video}.txt", half.astype(int))
        crops(root / "cropped_aligned" / video, range(1, ROWS + 1))
    (root / "splits.csv").write_text(SPLITS)
    return root


def run(data: Path, max_missing_videos: int = 0) -> tuple[Path, list[str]]:
    labels, info, _ = run_check(data, max_missing_videos=max_missing_videos)
    return labels, store.read_json(info)["warnings"]


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("00001.jpg", 0), ("00002.JPG", 1), ("1.png", 0), ("00120.jpeg", 119), ("00000.jpg", -1),
        ("a.jpg", None), ("00001_flipped.jpg", None), ("00001.txt", None), ("._00001.jpg", None), ("20210704.jpg", None),
    ],
)  # fmt: skip
def test_image_k_shows_frame_k_minus_1(name: str, frame: int | None) -> None:
    assert frame_number(name) == frame


def test_images_are_counted_by_their_names(tmp_path: Path) -> None:
    folder = crops(tmp_path / "v", (2, 3, 7))
    (folder / "Thumbs.db").touch()
    crops(folder, (3,), ".png")
    assert count_crops(folder) == Crops(images=3, frames=7)
    assert image_names(folder) == {1: "00002.jpg", 2: "00003.jpg", 6: "00007.jpg"}
    assert count_crops(crops(tmp_path / "w", ())) is None


def test_images_that_count_from_0_are_an_error(tmp_path: Path) -> None:
    folder = crops(tmp_path / "v", range(3))
    for read in (count_crops, image_names):
        with pytest.raises(DataError, match=r"^an image with the number 0: in \S*v, expected 00001\.jpg"):
            read(folder)


@pytest.mark.parametrize(
    "names",
    [
        ("cropped_aligned/{}",), ("cropped_aligned_images/{}",), ("Cropped_Aligned_Images/batch1/{}",),
        ("batch2/CROPPED_ALIGNED/{}",), ("cropped_aligned/{}", "cropped_aligned_new_50_vids/batch/{}"),
    ],
)  # fmt: skip
def test_where_releases_put_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    expected = [crops(tmp_path / name.format(f"v{k}"), (4, 5)) for k, name in enumerate(names)]
    crops(tmp_path / "frames" / "v", (1, 2))
    for name in names:
        crops(tmp_path / name.format("__MACOSX"), (1,))
        crops(tmp_path / name.format(".cache"), (1,))
    assert find_crops(tmp_path) == sorted(expected)


def test_a_video_without_a_face_has_an_empty_folder(tmp_path: Path) -> None:
    top = tmp_path / "cropped_aligned"
    expected = [crops(top / "batch" / "blind", ()), crops(top / "batch" / "visible", (1,))]
    assert find_crops(tmp_path) == expected
    (top / "again").symlink_to(tmp_path)
    assert find_crops(tmp_path) == expected, "a folder that links to itself is walked once"
    shutil.rmtree(top)
    top.mkdir()
    assert find_crops(tmp_path) == []


def test_a_movie_goes_first_and_left_and_right_have_crops_of_their_own(data: Path) -> None:
    layout = read_layout(data)
    top = data / "cropped_aligned"
    assert [layout.source(video) for video in SETS] == [top / video for video in SETS]
    assert layout.source("b") is None, "crops of one person are not those of the other"
    assert {layout.side(video) for video in SETS} == {""}
    (data / "videos").mkdir()
    (data / "videos" / "b.mp4").touch()
    layout = read_layout(data)
    assert layout.source("b_left") == data / "videos" / "b.mp4"
    assert layout.side("b_left") == "left"
    assert layout.source("a") == top / "a"


def test_two_folders_of_one_video_are_an_error(data: Path) -> None:
    crops(data / "cropped_aligned_new" / "a", (1,))
    with pytest.raises(DataError, match=r"^two folders of crops for one video: in \S*, got \S*new/a, expected one"):
        read_layout(data).source("a")


def test_a_release_without_movies(data: Path) -> None:
    labels, warnings = run(data)
    assert warnings == []
    table = store.read_table(labels)
    assert table["time"].to_pylist() == [k / 30 for _ in SETS for k in range(ROWS)]
    assert list_video_jobs(data, labels) == [
        VideoJob(video, data / "cropped_aligned" / video, "", ROWS) for video in sorted(SETS)
    ]
    assert split_data(data, select=0.5, overwrite=True).written


def test_what_does_not_fit_the_labels_is_counted(data: Path) -> None:
    top = data / "cropped_aligned"
    (top / "a" / "00002.jpg").unlink()
    crops(top / "b_left", (ROWS + 1, ROWS + 3))
    crops(top / "z", (1,))
    labels, warnings = run(data)
    assert warnings == [
        f"1 videos with crops beyond their last label row: b_left ({ROWS} rows, {ROWS + 3} frames)",
        f"1 videos with fewer crops than label rows, the other rows count as frames without a face: a ({ROWS} rows, {ROWS - 1} images)",
        "1 folders of crops without an annotation: z",
    ]
    assert len(store.read_table(labels)) == ROWS * len(SETS)


def test_movies_and_crops_side_by_side_are_a_warning(data: Path) -> None:
    write_movie(data / "videos" / "a.mp4", ROWS)
    _, warnings = run(data)
    assert warnings == [
        "3 videos read from crops while others are read from movies, so that faces are aligned in two ways: b_left, b_right, d",
        "1 videos whose crops are not read, since they have a movie: a",
    ]


def test_a_folder_without_an_image_counts_as_missing(data: Path) -> None:
    shutil.rmtree(data / "cropped_aligned" / "a")
    crops(data / "cropped_aligned" / "a", ()).joinpath("face.jpg").touch()
    with pytest.raises(DataError, match=r"^a labelled video cannot be opened: in \S*a, got no readable movie, no"):
        run(data)
    labels, warnings = run(data, max_missing_videos=1)
    assert warnings == ["1 labelled videos without a readable file, left out: a"]
    assert sorted(set(store.read_table(labels)["video"].to_pylist())) == ["b_left", "b_right", "d"]


@pytest.mark.parametrize("folder", ["", "annotations/AU_Set/Test_Set"])
@pytest.mark.parametrize("file", ["videos/t.mp4", "cropped_aligned/t/00001.jpg"])
def test_the_error_for_a_test_release_names_the_commands(tmp_path: Path, folder: str, file: str) -> None:
    root = tmp_path / "data"
    write_text(root / file)
    (root / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError) as caught:
        run(root)
    assert str(caught.value).startswith("no ")
    assert str(caught.value).endswith("; for a test release run `aupair predict`, then `aupair submission`")
