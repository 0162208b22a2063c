"""Crops become rows of faces at the frames of their labels; missing and damaged images have rows of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair import store
from aupair.data.layout import VideoJob
from aupair.faces.crops import _read_crop, iter_crops
from aupair.faces.decode import EmptyVideoError, VideoError
from aupair.faces.folder import VideoReport, preprocess
from aupair.params import PreprocessFaces

PARAMS = PreprocessFaces(size=48, workers=1)


def level(number: int) -> int:
    """Return the grey of image `number`, which identifies the image that a face came from."""
    return 20 * number


def crop(path: Path, number: int, side: int = 112) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((side, side, 3), level(number), np.uint8))
    return path


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Images 1, 2, 4, 6 of a video; the fourth is cut."""
    top = tmp_path / "cropped_aligned" / "v"
    for number in (1, 2, 4, 6):
        crop(top / f"{number:05d}.jpg", number)
    damaged = top / "00004.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return top


def read_rows(faces: Path) -> list[tuple[int, str, int | None]]:
    """Return frame, status, and the number of the image that each face came from."""
    rows = store.read_faces(faces).to_pylist()
    images = [store.decode_jpeg(row["jpeg"]) if row["jpeg"] else None for row in rows]
    numbers = [None if image is None else round(float(image.mean()) / 20) for image in images]
    return [(row["frame"], row["status"], number) for row, number in zip(rows, numbers)]


EXPECTED = [
    (0, "ok", 1), (1, "ok", 2), (2, "no_face", None), (3, "unreadable", None), (4, "no_face", None), (5, "ok", 6),
]  # fmt: skip


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("labels", "more"), [(0, 0), (3, 0), (6, 0), (8, 2)])
def test_image_k_is_row_k_minus_1_and_every_label_row_has_a_row(
    crops: Path, tmp_path: Path, labels: int, more: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (report,) = preprocess([VideoJob("v", crops, "", labels)], tmp_path / "faces", PARAMS)
    assert read_rows(tmp_path / "faces" / "v.arrow") == EXPECTED + [(6 + k, "no_face", None) for k in range(more)]
    assert report == VideoReport("v", "ok", 6 + more, 3, "1 of 4 images are damaged")
    assert capfd.readouterr().err == "", "decoders would print an error too"


@pytest.mark.usefixtures("in_process")
def test_rows_of_crops_have_neither_landmarks_nor_scores(crops: Path, tmp_path: Path) -> None:
    preprocess([VideoJob("v", crops)], tmp_path, PARAMS)
    table = store.read_faces(tmp_path / "v.arrow")
    assert table["time"].to_pylist() == [k / 30 for k in range(6)]
    for name in ("landmarks", "transform", "detector_score", "pass_disagreement", "procrustes_residual"):
        assert np.isnan(np.array(table[name].to_pylist())).all(), name
    assert not any(table["tracked"].to_pylist())
    assert store.decode_jpeg(table["jpeg"][0].as_py()).shape == (48, 48, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [48, 112, 224])
def test_a_crop_is_resized_and_stays_rgb(tmp_path: Path, suffix: str, size: int) -> None:
    ramp = np.zeros((112, 112, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 240, 112)[None].astype(np.uint8)  # red grows to the right
    path = tmp_path / f"00001{suffix}"
    cv2.imwrite(str(path), cv2.cvtColor(ramp, cv2.COLOR_RGB2BGR))
    image = _read_crop(path, size)
    assert image is not None
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    expected = np.interp((np.arange(size) + 0.5) / size * 112 - 0.5, np.arange(112), ramp[0, :, 0])
    np.testing.assert_allclose(image[size // 2, :, 0], expected, atol=8)
    assert image[..., 1:].max() < 12


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xd9", b"\x89PNG IEND"])
def test_a_damaged_image_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "00001.jpg"
    path.write_bytes(content)
    assert _read_crop(path, 48) is None
    path.unlink()
    path.mkdir()
    assert _read_crop(path, 48) is None


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with pytest.raises(EmptyVideoError, match=r"^no image: in \S*v, expected 00001\.jpg"):
        next(iter_crops(tmp_path / "v", 48))
    crop(tmp_path / "v" / "00000.jpg", 1)
    with pytest.raises(VideoError, match=r"^an image with the number 0: in \S*v"):
        next(iter_crops(tmp_path / "v", 48))


@pytest.mark.usefixtures("in_process")
def test_one_bad_folder_does_not_affect_the_others(crops: Path, tmp_path: Path) -> None:
    bad, empty, blind = (crops.parent / name for name in ("bad", "empty", "blind"))
    crop(bad / "00000.jpg", 1)
    crop(bad / "00001.jpg", 1)
    for path in (empty, blind):
        path.mkdir()
    sources = [(bad, 2), (empty, 0), (blind, 4), (crops, 6)]
    jobs = [VideoJob(path.name, path, "", frames) for path, frames in sources]
    reports = preprocess(jobs, tmp_path / "faces", PARAMS)
    assert [(r.name, r.status, r.frames, r.faces) for r in reports] == [
        ("bad", "unreadable", 0, 0), ("empty", "empty", 0, 0), ("blind", "no_face", 4, 0), ("v", "ok", 6, 3),
    ]  # fmt: skip
    assert "number 0" in reports[0].message
    assert reports[2].message == "no face in any frame"
    assert preprocess(jobs, tmp_path / "faces", PARAMS) == reports, "the second time from the files"


@pytest.mark.usefixtures("in_process")
def test_a_file_is_used_until_a_crop_or_an_option_changes(crops: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces" / "v.arrow"

    def made_again(frames: int = 6, **change: object) -> bool:
        before = (path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None
        preprocess([VideoJob("v", crops, "", frames)], path.parent, PARAMS.model_copy(update=change))
        return before != (path.stat().st_mtime_ns, path.stat().st_ino)

    assert made_again()
    assert not made_again()
    os.utime(crops / "00001.jpg", (0, 0))
    (crops / "notes.txt").touch()
    assert not made_again(), "dates and other files do not matter"
    assert not made_again(detector="reference", min_face=30), "no face is searched for"
    assert made_again(size=40)
    assert made_again(quality=80)
    assert made_again(frames=9)
    assert made_again(), "back again"
    crop(crops / "00002.jpg", 9)
    assert made_again()
    (crops / "00006.jpg").rename(crops / "00005.jpg")
    assert made_again()
    path.write_bytes(path.read_bytes()[:99])
    assert made_again()


KILLED = """
import sys
from pathlib import Path
from aupair.data.layout import VideoJob
from aupair.faces import folder
from aupair.params import PreprocessFaces

if __name__ == "__main__":
    top, faces = Path(sys.argv[1]), Path(sys.argv[2])
    jobs = [VideoJob(path.name, path) for path in sorted(top.iterdir())]
    folder.preprocess(jobs, faces, PreprocessFaces(size=48, workers=1))
"""


def test_after_a_kill_the_next_run_goes_on_with_the_unfinished_videos(tmp_path: Path) -> None:
    top, faces, in_progress = tmp_path / "cropped_aligned", tmp_path / "faces", tmp_path / ".faces-in-progress"
    for name in "abcdef":
        for number in range(1, 201):
            crop(top / name / f"{number:05d}.jpg", number % 12)
    (tmp_path / "work.py").write_text(KILLED)
    process = subprocess.Popen([sys.executable, tmp_path / "work.py", top, faces], start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(in_progress.glob("*.arrow"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = {path.name: path.stat().st_mtime_ns for path in in_progress.glob("*.arrow")}
    assert 2 <= len(first) < 6
    assert not faces.exists()
    reports = preprocess([VideoJob(path.name, path) for path in sorted(top.iterdir())], faces, PARAMS)
    assert [(r.status, r.frames, r.faces) for r in reports] == [("ok", 200, 200)] * 6
    after = {path.name: path.stat().st_mtime_ns for path in faces.glob("*.arrow")}
    assert {name: after[name] for name in first} == first
    assert sorted(path.name for path in faces.iterdir()) == [f"{name}.arrow" for name in "abcdef"]
