"""A reader of all frames of a video, which does not rely on the number of frames in the header."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aupair.data.image_size import MAX_PIXELS
from aupair.data.layout import USUAL_FPS, read_movie_header
from aupair.errors import DataError

MAX_FAILED_GRABS = 1000
"""Number of consecutive failures that end a video; fewer failures may be a damaged part, after which frames follow."""

DECODED_SHARE = 0.95
"""Fraction of the header's number of frames below which a video may be truncated; headers are often slightly wrong."""


class VideoError(DataError):
    """A video that cannot be opened."""

    status = "unreadable"


class EmptyVideoError(VideoError):
    """A video that can be opened but has no frame."""

    status = "empty"


class LargeVideoError(VideoError):
    """A video whose frames have more than MAX_PIXELS."""

    status = "too_large"


class FailedVideoError(VideoError):
    """A video for which a library failed or the memory was not sufficient."""

    status = "crashed"


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    index: int
    """0-based; frames that could not be decoded count as well"""
    time: float
    """seconds from the start, strictly increasing"""
    image: np.ndarray | None
    """(H, W, 3) uint8, RGB; None if it could not be decoded"""


def read_frames(source: Path) -> Iterator[Frame]:
    """Yield every frame of a video, with one frame in memory at a time.

    Frames that cannot be decoded are yielded without an image if a later frame can be decoded; otherwise they are taken
    as the end of the video. In a video whose size changes, frames of more than MAX_PIXELS are not decoded.

    Raises:
        VideoError: the file is missing, or OpenCV cannot read it.
        EmptyVideoError: the video has no frame.
        LargeVideoError: the frames have more than MAX_PIXELS.
    """
    import cv2

    capture = _open(source)
    try:
        period = 1 / _plausible_fps(capture.get(cv2.CAP_PROP_FPS))
        time, index, failed = -period, 0, 0
        while failed < MAX_FAILED_GRABS:
            if not _grab(capture):
                failed += 1
                continue
            image = _retrieve(capture)
            now = _next_time(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, time, (failed + 1) * period)
            for k in range(1, failed + 1):
                yield Frame(index, time + (now - time) * k / (failed + 1), None)
                index += 1
            yield Frame(index, now, image)
            index, time, failed = index + 1, now, 0
    finally:
        capture.release()
    if index == 0:
        raise EmptyVideoError("no frame", where=source, todo="remove it or export it again")


def describe_missing_frames(source: Path, decoded: int) -> str:
    """Return a message if the header states clearly more frames than were decoded, else "".

    This is not an error, since the header may be wrong. A header without a plausible frame rate is ignored.
    """
    header = read_movie_header(source)
    if header is None or not header.fps or decoded >= DECODED_SHARE * header.frames:
        return ""
    return f"{decoded} of {header.frames} frames decoded, according to the header"


def _open(source: Path) -> Any:
    """Open a video with OpenCV: by FFmpeg on one thread, or if that fails by another of OpenCV's backends."""
    import cv2

    if not source.is_file():
        raise VideoError("no such video", where=source, todo="check the path")
    if source.stat().st_size == 0:
        raise EmptyVideoError("empty file", where=source, got="0 bytes", expected="a video", todo="copy it again")
    # FFmpeg and OpenCV must not write to stderr, since the errors below state the problem in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            capture = cv2.VideoCapture(str(source))
    finally:
        cv2.utils.logging.setLogLevel(level)
    if _pixels(capture) > MAX_PIXELS:
        got, expected = f"{_pixels(capture):,} pixels a frame", f"at most {MAX_PIXELS:,}"
        capture.release()
        raise LargeVideoError(
            "the frames are too large", where=source, got=got, expected=expected, todo="scale it down"
        )
    if not capture.isOpened():
        raise VideoError("OpenCV cannot read the video", where=source, todo="check that it plays, or export it again")
    return capture


def _grab(capture: Any) -> bool:
    """Grab the next frame and return whether there is one; OpenCV's AVI reader raises if the file is damaged."""
    import cv2

    try:
        return bool(capture.grab())
    except cv2.error:
        return False


def _retrieve(capture: Any) -> np.ndarray | None:
    """Return the grabbed frame as (H, W, 3) uint8 RGB; None if it cannot be decoded."""
    import cv2

    if _pixels(capture) > MAX_PIXELS:
        return None
    try:
        ok, image = capture.retrieve()
    except cv2.error:
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if ok and image is not None and image.size else None


def _pixels(capture: Any) -> int:
    """Return the number of pixels of the frame grabbed last, or before the first grab that of the header."""
    import cv2

    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT))


def _plausible_fps(fps: float) -> float:
    """Return `fps` if it is plausible, else USUAL_FPS."""
    return fps if 1 <= fps <= 1000 else USUAL_FPS


def _next_time(stated: float, last: float, step: float) -> float:
    """Return the stated time if it is later than `last`, else `last + step`; seconds."""
    return stated if math.isfinite(stated) and stated >= 0 and stated > last else last + step
