"""Videos that tests write."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, images: Iterable[np.ndarray], fps: float = 25) -> Path:
    """Write images, (H, W, 3) uint8 RGB each, as MPEG-4, or as motion JPEG where the file is an .avi."""
    frames = list(images)
    size = frames[0].shape[1::-1] if frames else (64, 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for image in frames:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_grey_video(path: Path, *greys: int, fps: float = 10) -> Path:
    """Write a video with a frame of each grey."""
    return write_video(path, (np.full((64, 64, 3), grey, np.uint8) for grey in greys), fps)
