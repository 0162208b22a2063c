"""Frames and images of 16000 x 16000: a status, not gigabytes of memory."""

import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.data.image_size import MAX_PIXELS, choose_reduction, count_pixels
from aupair.faces.crops import iter_crops
from aupair.faces.decode import LargeVideoError, read_frames

MEMORY = 300 << 20
"""Bytes that a frame which is too large may take beyond those of the imports."""

PEAK = """
import resource, sys
from pathlib import Path
from aupair.faces.crops import iter_crops
from aupair.faces.decode import VideoError, read_frames
import cv2

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before, source, status = peak(), Path(sys.argv[1]), []
try:
    status = [row.status for row in iter_crops(source, 96)] if source.is_dir() else [0 for _ in read_frames(source)]
except VideoError as error:
    status = [error.status]
print(peak() - before, *status)
"""


def encode(suffix: str, width: int, height: int, *options: int) -> bytes:
    """Return a grey image."""
    return cv2.imencode(suffix, np.full((height, width, 3), 99, np.uint8), options)[1].tobytes()


def pretend(data: bytes, width: int, height: int) -> bytes:
    """Return an image of 8 x 8 with another size in its header."""
    for old, new in ((">HH", ">HH"), (">II", ">II"), ("<ii", "<ii")):
        data = data.replace(
            struct.pack(old, 8, 8), struct.pack(new, *((height, width) if old == ">HH" else (width, height))), 1
        )
    return data


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_the_size_is_that_of_the_header(suffix: str) -> None:
    assert count_pixels(encode(suffix, 40, 30)) == 1200
    assert count_pixels(encode(suffix, 40, 30)[:9]) == 0
    assert count_pixels(b"") == count_pixels(b"text") == 0


def test_a_thumbnail_and_stray_bytes_are_skipped() -> None:
    plain = encode(".jpg", 40, 30)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(encode(".jpg", 8, 8))) + encode(".jpg", 8, 8)
    assert count_pixels(plain[:2] + thumbnail + b"\x00\x11" + plain[2:]) == 1200


@pytest.mark.parametrize(
    ("side", "options", "reduction"),
    [
        (6000, (), 1),
        (6001, (), 2),
        (16000, (), 4),
        (40000, (), 8),
        (65000, (), None),
        (6001, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), None),
    ],
)
def test_a_jpeg_is_decoded_smaller_if_it_can_be(side: int, options: tuple[int, ...], reduction: int | None) -> None:
    assert choose_reduction(pretend(encode(".jpg", 8, 8, *options), side, side)) == reduction
    assert choose_reduction(pretend(encode(".png", 8, 8), side, side)) == (1 if side**2 <= MAX_PIXELS else None)


def test_a_large_crop_is_that_image_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.tile(np.linspace(0, 255, 400, dtype=np.uint8)[:, None, None], (1, 400, 3))
    cv2.imwrite(str(tmp_path / "00001.jpg"), ramp)
    (whole,) = iter_crops(tmp_path, 96)
    monkeypatch.setattr("aupair.data.image_size.MAX_PIXELS", 100 * 100)
    (reduced,) = iter_crops(tmp_path, 96)
    assert whole.image is not None
    assert reduced.image is not None
    assert 0 < np.abs(whole.image.astype(int) - reduced.image).max() < 8


def test_a_movie_with_too_large_frames_has_a_status_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert len(list(read_frames(path))) == 1
    monkeypatch.setattr("aupair.faces.decode.MAX_PIXELS", 3071)
    with pytest.raises(
        LargeVideoError, match=r"^the frames are too large: in .*, got 3,072 pixels a frame, expected at most 3,071;"
    ):
        next(iter(read_frames(path)))
    assert LargeVideoError.status == "too_large"


@pytest.mark.slow
def test_the_memory_is_bounded_at_16000_by_16000(tmp_path: Path) -> None:
    image, movie = np.zeros((16000, 16000, 3), np.uint8), tmp_path / "a.avi"
    for name in ("jpg", "png"):
        (tmp_path / name).mkdir()
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    (tmp_path / "jpg" / "00001.jpg").write_bytes(jpeg)
    (tmp_path / "png" / "00001.png").write_bytes(pretend(encode(".png", 8, 8), 16000, 16000))
    writer = cv2.VideoWriter(str(movie), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (16000, 16000))
    writer.write(image)
    writer.release()
    for source, status in ((movie, "too_large"), (tmp_path / "jpg", "ok"), (tmp_path / "png", "unreadable")):
        done = subprocess.run([sys.executable, "-c", PEAK, str(source)], capture_output=True, text=True, check=True)
        taken, *rest = done.stdout.split()
        assert rest == [status], done.stdout
        assert int(taken) < MEMORY, f"{source.name}: {int(taken) >> 20} MiB"
