"""From the folder of a release to the table of frames: every label is at the frame that it was made for."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair import store
from aupair.aus import AFFWILD2, SPLITS
from aupair.data.checks import check_data_folder
from aupair.data.frames import Frames, load_frames
from aupair.data.layout import Header, list_video_jobs, read_movie_header
from aupair.faces.folder import preprocess
from aupair.params import CheckData, PreprocessFaces
from videos import write_grey_video

FRAMES = 6
VIDEOS = {
    "a": ("train", "fit"),
    "b_left": ("train", "fit"),
    "b_right": ("train", "select"),
    "d": ("valid", "validation"),
}
RELEASES = {
    "2021": ("annotations/AU_Set", "Train_Set", "Validation_Set", "cropped_aligned"),
    "later": ("annotations/AU_Detection_Challenge", "Train_Set", "Validation_Set", "cropped_aligned"),
    "packed": ("annotations/ABAW Annotations/AU_Detection_Challenge", "Training_Set", "Valid_Set", "batch1/cropped_aligned"),
    "lower": ("annotations/au_set", "train_set", "validation_set", "Cropped_Aligned_Images/batch2"),
}  # fmt: skip


def truth(rows: int) -> np.ndarray:
    """Return labels that encode their frame: AU k is active in frame t if bit k of t + 1 is set, k < 3."""
    return ((np.arange(rows)[:, None] + 1) >> (np.arange(12) % 3)) & 1


def decode_frames(labels: np.ndarray) -> list[int]:
    """Return the frames that rows of `truth` encode; -1 for a row without a label."""
    return [-1 if row[0] < 0 else int(row[0] + 2 * row[1] + 4 * row[2] - 1) for row in labels]


def build(root: Path, release: str, rows: dict[str, int]) -> Path:
    annotations, train, validation, _ = RELEASES[release]
    for video, (official, _) in VIDEOS.items():
        path = root / annotations / (train if official == "train" else validation) / f"{video}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [",".join(map(str, row)) for row in truth(rows.get(video, FRAMES))]
        path.write_text("\n".join([",".join(AFFWILD2), *lines]) + "\n")
    lines = [f"{video},{video},{split}" for video, (_, split) in VIDEOS.items()]
    (root / "splits.csv").write_text("\n".join(["video,subject,split", *lines]) + "\n")
    return root


def write_images(folder: Path, numbers: list[int]) -> None:
    """Write images, of which `number` has the grey 20 x number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), np.full((112, 112, 3), 20 * number, np.uint8))


def flow(data: Path) -> tuple[Frames, list[str]]:
    """Run check-data and preprocess-faces; return the frames that later stages load, and the warnings."""
    out = data.parent / "out"
    labels, info, faces = out / "labels.parquet", out / "data.json", out / "faces"
    check_data_folder(data, labels=labels, info=info, docs=out / "docs", params=CheckData(few_positives=0))
    preprocess(list_video_jobs(data, labels), faces, PreprocessFaces(size=32, workers=1))
    return load_frames(labels, faces), store.read_json(info)["warnings"]


def rows_of(frames: Frames, video: str) -> np.ndarray:
    return np.flatnonzero(frames.video == frames.videos.index(video))


def frames_of_faces(faces: Path) -> list[int]:
    """Return the frame that each face shows, by its grey; -1 without a face."""
    rows = store.read_faces(faces)["jpeg"].to_pylist()
    return [round(float(store.decode_jpeg(jpeg).mean()) / 20) - 1 if jpeg else -1 for jpeg in rows]


@pytest.mark.parametrize("release", RELEASES)
def test_crops_meet_their_labels(tmp_path: Path, release: str) -> None:
    """More images than labels, fewer, gaps, and none after the middle: each face is at its own label."""
    data = build(tmp_path / "data", release, {"a": 4})
    top = data / RELEASES[release][3]
    write_images(top / "a", [1, 2, 3, 4, 5, 6])
    write_images(top / "b_left", [2, 3, 6])
    write_images(top / "b_right", [1, 2])
    write_images(top / "d", [1, 2, 3, 4, 5, 6])
    frames, warnings = flow(data)
    assert frames.videos == tuple(VIDEOS)
    expected = {
        "a": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, -1, -1]),
        "b_left": ([-1, 1, 2, -1, -1, 5], [0, 1, 2, 3, 4, 5]),
        "b_right": ([0, 1, -1, -1, -1, -1], [0, 1, 2, 3, 4, 5]),
        "d": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    }
    for video, (faces, labels) in expected.items():
        rows = rows_of(frames, video)
        assert frames_of_faces(tmp_path / "out" / "faces" / f"{video}.arrow") == faces, video
        assert frames.ok[rows].tolist() == [face >= 0 for face in faces], video
        assert decode_frames(frames.labels[rows]) == labels, video
        assert frames.frame[rows].tolist() == list(range(FRAMES))
        assert {SPLITS[k] for k in frames.split[rows]} == {VIDEOS[video][1]}
    assert len(warnings) == 2


def change_header(path: Path, frames: int) -> None:
    """Write another number of frames into an AVI's header, in the file's and in the stream's."""
    content = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        struct.pack_into("<I", content, content.index(chunk) + offset, frames)
    path.write_bytes(content)


@pytest.mark.parametrize("stated", [2, 400])
def test_a_wrong_number_of_frames_in_the_header_does_not_matter(tmp_path: Path, stated: int) -> None:
    data = build(tmp_path / "data", "2021", {"b_left": 4, "b_right": 9})
    for name in "abd":
        write_grey_video(data / "videos" / f"{name}.avi", *range(0, 20 * FRAMES, 20), fps=25)
    change_header(data / "videos" / "a.avi", stated)
    assert read_movie_header(data / "videos" / "a.avi") == Header(stated, 25.0)
    frames, warnings = flow(data)
    assert [len(rows_of(frames, video)) for video in VIDEOS] == [FRAMES] * 4
    assert decode_frames(frames.labels[rows_of(frames, "a")]) == list(range(FRAMES))
    assert decode_frames(frames.labels[rows_of(frames, "b_left")]) == [0, 1, 2, 3, -1, -1], "a frame without a label"
    assert len(rows_of(frames, "b_right")) == FRAMES, "labels without a frame are dropped"
    start = f"3 videos whose numbers of label rows and frames differ, according to the header: a (6 rows, {stated} frames), b_left"
    assert warnings[0].startswith(start)


@pytest.mark.parametrize("au", [0, 11])
def test_one_minus_one_masks_the_frame(tmp_path: Path, au: int) -> None:
    data = build(tmp_path / "data", "2021", {})
    for video in VIDEOS:
        write_images(data / "cropped_aligned" / video, list(range(1, FRAMES + 1)))
    path = data / "annotations" / "AU_Set" / "Train_Set" / "a.txt"
    values = truth(FRAMES)
    values[2, au] = -1
    values[4] = -1
    path.write_text("\n".join([",".join(AFFWILD2), *(",".join(map(str, row)) for row in values)]) + "\n")
    frames, warnings = flow(data)
    rows = rows_of(frames, "a")
    assert frames.labels[rows][[2, 4]].tolist() == [[-1] * 12] * 2
    assert decode_frames(frames.labels[rows]) == [0, 1, -1, 3, -1, 5]
    assert frames.usable[rows].tolist() == [True, True, False, True, False, True]
    assert warnings == [f"2 of {4 * FRAMES} label rows are not annotated"]
