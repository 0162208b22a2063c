"""Videos of unusual kinds, which Debian's ffmpeg makes: rotated, 10-bit, with alpha, of a variable rate, without pictures."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aupair.data.layout import read_movie_header
from aupair.faces.decode import VideoError, describe_missing_frames, read_frames
from videos import write_video

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg makes the videos: apt-get install ffmpeg")

FRAMES = 12
ODD: dict[str, tuple[str, ...]] = {
    "ten bits.mp4": ("-pix_fmt", "yuv420p10le", "-c:v", "libx264", "-crf", "4"),
    "full chroma.mp4": ("-pix_fmt", "yuv444p", "-c:v", "libx264", "-crf", "4"),
    "alpha.webm": ("-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0"),
    "alpha ProRes.mov": ("-pix_fmt", "yuva444p10le", "-c:v", "prores_ks", "-profile:v", "4444"),
    "sixteen bits.mov": ("-pix_fmt", "rgb48le", "-c:v", "png"),
    "grey.mkv": ("-pix_fmt", "gray", "-c:v", "ffv1"),
    "with sound.mp4": ("-f", "lavfi", "-i", "sine=d=1", "-c:v", "copy", "-c:a", "aac"),
}
"""The options by which ffmpeg makes each of the same pictures."""

TURNED = {"transpose=1": 90, "hflip,vflip": 180, "transpose=2": 270}
"""Filters that turn pictures, and the turn that a player makes so that they are upright again, as for those of a phone."""


def convert(*arguments: object) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-threads", "1", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, 96 x 64, of a square that moves over a slope of grey."""
    images = np.tile(np.linspace(20, 120, 96, dtype=np.uint8)[None, None, :, None], (FRAMES, 64, 1, 3)).copy()
    for k, image in enumerate(images):
        image[8:24, 4 * k : 4 * k + 16] = 230
    return write_video(tmp_path_factory.mktemp("plain") / "plain.avi", images, fps=10)


@pytest.mark.parametrize("name", ODD)
def test_the_pictures_are_those_of_the_plain_video(name: str, plain: Path, tmp_path: Path) -> None:
    """In eight bits, without alpha, every frame at its time."""
    convert("-i", plain, *ODD[name], tmp_path / name)
    check_equal(plain, tmp_path / name)


@pytest.mark.parametrize("turn", TURNED)
def test_a_turned_video_is_upright(turn: str, plain: Path, tmp_path: Path) -> None:
    convert("-i", plain, "-vf", turn, "-c:v", "libx264", "-crf", "4", tmp_path / "lying.mp4")
    convert("-i", tmp_path / "lying.mp4", "-c", "copy", "-metadata:s:v", f"rotate={TURNED[turn]}", tmp_path / "up.mp4")
    check_equal(plain, tmp_path / "up.mp4")


def check_equal(plain: Path, video: Path) -> None:
    """Check that the frames of a video are nearly those of the plain one, and at the same times."""
    expected, decoded = list(read_frames(plain)), list(read_frames(video))
    assert len(decoded) == FRAMES
    for frame, plain_frame in zip(decoded, expected):
        assert frame.image is not None
        assert plain_frame.image is not None
        assert frame.image.shape == (64, 96, 3)
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - plain_frame.image).mean() < 8
        assert frame.time == pytest.approx(plain_frame.time, abs=0.02)
    assert not describe_missing_frames(video, FRAMES)


def test_a_variable_rate_keeps_the_time_of_each_frame(plain: Path, tmp_path: Path) -> None:
    slower = "settb=1/1000,setpts='if(lt(N,6),N*0.1,0.6+(N-6)*0.4)/TB'"
    convert("-i", plain, "-vf", slower, "-vsync", "vfr", "-c:v", "libx264", tmp_path / "slower.mp4")
    times = [frame.time for frame in read_frames(tmp_path / "slower.mp4")]
    assert times == pytest.approx([*np.arange(6) * 0.1, *(0.6 + np.arange(6) * 0.4)], abs=0.02)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sound.mp4", ("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac")),
        ("no frame of sound.mp4", ("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", "-t", "0")),
        ("sound.avi", ("-f", "lavfi", "-i", "sine=d=1")),
    ],
)
def test_sound_alone_is_no_video(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    convert(*options, tmp_path / name)
    assert read_movie_header(tmp_path / name) is None
    with pytest.raises(VideoError, match="OpenCV cannot read the video") as caught:
        list(read_frames(tmp_path / name))
    assert "\n" not in str(caught.value)
