"""Every frame is read, whatever the header, damaged parts or the stated times are."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from aupair.data.layout import USUAL_FPS, Header
from aupair.errors import DataError
from aupair.faces import decode
from aupair.faces.decode import (
    EmptyVideoError,
    VideoError,
    _next_time,
    _plausible_fps,
    describe_missing_frames,
    read_frames,
)
from videos import write_video


def write(path: Path, frames: int, fps: float = 25) -> Path:
    """Write noise beside a red that is brighter with every frame."""
    rng, images = np.random.default_rng([0, frames]), []
    for k in range(frames):
        image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        image[:, :32] = (0, 0, 10 * k)
        images.append(np.ascontiguousarray(image[:, :, ::-1]))
    return write_video(path, images, fps)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_every_frame_in_order_with_its_time(tmp_path: Path, name: str) -> None:
    frames = list(read_frames(write(tmp_path / name, 20, fps=30)))
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 30, atol=1e-3)
    for frame in frames:
        red, green, blue = frame.image[:, 4:28].mean((0, 1))
        assert abs(red - 10 * frame.index) < 12
        assert max(green, blue) < 12


def test_damaged_frames_have_no_image_and_keep_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 20)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 12000] = bytes(12000)
    path.write_bytes(data)
    frames = list(read_frames(path))
    broken = [frame.index for frame in frames if frame.image is None]
    assert len(frames) == 20
    assert broken
    assert frames[-1].image is not None
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 25, atol=1e-3)
    # The frames after the damage have not moved to other rows.
    for frame in frames[broken[-1] + 2 :]:
        assert abs(frame.image[:, 4:28, 0].mean() - 10 * frame.index) < 25


def test_a_cut_avi_ends_where_it_was_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = len(list(read_frames(path)))
    assert 5 <= frames < 15
    assert describe_missing_frames(path, frames) == f"{frames} of 20 frames decoded, according to the header"


def test_only_many_missing_frames_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", 20)
    assert [describe_missing_frames(path, frames) for frames in (19, 20, 25)] == [""] * 3
    assert describe_missing_frames(path, 18) == "18 of 20 frames decoded, according to the header"
    for header in (None, Header(0, 25.0), Header(1000, 0.0)):
        monkeypatch.setattr(decode, "read_movie_header", lambda _, header=header: header)
        assert describe_missing_frames(path, 18) == "", header


@pytest.mark.parametrize(
    ("name", "content", "error", "what"),
    [
        ("none.mp4", None, VideoError, "no such video"),
        ("empty.mp4", b"", EmptyVideoError, "empty file"),
        ("text001.mp4", b"not a video\n" * 50, VideoError, "OpenCV cannot read the video"),
        ("noise.avi", bytes(range(256)) * 20, VideoError, "OpenCV cannot read the video"),
    ],
)
def test_a_file_that_is_not_a_video_gets_one_line(
    tmp_path: Path, name: str, content: bytes | None, error: type[VideoError], what: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=what) as caught:
        next(read_frames(path))
    assert type(caught.value) is error
    assert isinstance(caught.value, DataError)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ffmpeg_prints_nothing(tmp_path: Path) -> None:
    """In a fresh process, since FFmpeg reads its log level when it is first used."""
    path = tmp_path / "text.mp4"
    path.write_bytes(b"not a video\n" * 50)
    code = f"""
from pathlib import Path
from typing import Any
from aupair.errors import AupairError
from aupair.faces.decode import read_frames
try:
    list(read_frames(Path({str(path)!r})))
except AupairError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_frames_at_which_opencv_raises_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's own reader of AVI, which opens what FFmpeg does not, raises where a file is damaged."""

    class Damaged:
        """The capture of a video whose third frame can be reached but not decoded, and whose end cannot be reached."""

        def __init__(self, capture: Any) -> None:
            self.capture, self.count = capture, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.capture, name)

        def grab(self) -> bool:
            self.count += 1
            if self.count > 5:
                raise cv2.error("(-215:Assertion failed) chunk.m_size <= 67108864")
            return bool(self.capture.grab())

        def retrieve(self) -> Any:
            if self.count == 3:
                raise cv2.error("(-215:Assertion failed) chunk.m_size <= 67108864")
            return self.capture.retrieve()

    path, whole = write(tmp_path / "clip.avi", 8), decode._open
    monkeypatch.setattr(decode, "_open", lambda source: Damaged(whole(source)))
    assert [frame.image is not None for frame in read_frames(path)] == [True, True, False, True, True]


def test_a_video_without_frames_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyVideoError, match="no frame"):
        list(read_frames(write(tmp_path / "zero.avi", 0)))


@pytest.mark.parametrize("fps", [0, -1, 90000, math.nan, math.inf])
def test_an_implausible_rate_becomes_the_usual_one(fps: float) -> None:
    assert _plausible_fps(fps) == USUAL_FPS
    assert _plausible_fps(29.97) == 29.97


def test_times_increase_whatever_the_stated_ones_are() -> None:
    times = [-0.04]
    for stated in (0, 0.04, 0.04, 0, math.nan, -3, 0.5):
        times.append(_next_time(stated, times[-1], 0.04))
    np.testing.assert_allclose(times[1:], [0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.5])
