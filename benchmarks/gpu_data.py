"""Generated faces and pairs for gpu.py, in the files that the stages read."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from aupair import store
from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.ranking.images import FaceImages
from aupair.ranking.pairs import draw_pairs
from aupair.ranking.samples import TrainingSet

VIDEOS = 8
DIFFERENT = 256
"""faces; the frames repeat them, each with a JPEG of its own row"""
QUALITY = 95
RATE = 0.2
"""share of the faces that show an AU: a bright patch in its place"""


def training_set(folder: Path, size: int, count: int, each: int) -> TrainingSet:
    """Write `count` faces of `size` pixels and draw `each` pairs for each AU; no face is kept once decoded."""
    rng = np.random.default_rng(0)
    shows = (rng.random((min(DIFFERENT, count), len(AUS))) < RATE).astype(np.int8)
    jpegs = [store.encode_jpeg(face(size, levels, rng), QUALITY) for levels in shows]
    length = count // VIDEOS
    video = np.repeat(np.arange(VIDEOS, dtype=np.int32), length)
    frame = np.tile(np.arange(length, dtype=np.int32), VIDEOS)
    which = rng.integers(len(jpegs), size=len(video))
    for v in range(VIDEOS):
        write_video(folder / f"v{v}.arrow", [jpegs[k] for k in which[video == v]])
    names, ok = tuple(f"v{v}" for v in range(VIDEOS)), np.ones(len(video), bool)
    split = np.zeros(len(video), np.int8)
    frames = Frames(names, names, video, video, split, frame, frame / 30.0, ok, shows[which])
    pairs = {"fit": draw_pairs(frames, "fit", each, (0,))}
    return TrainingSet(frames, FaceImages(folder, frames, cache_bytes=0), None, pairs, np.full(VIDEOS, -1, np.int8))


def face(size: int, shows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw something that takes about the bytes of a face, (S, S, 3) uint8; patches say which AUs it shows."""
    coarse = rng.integers(40, 180, (size // 8, size // 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 3, (size, size, 3))
    cell = size // 4
    for a in np.flatnonzero(shows):
        row, column = divmod(int(a), 4)
        image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] += 60
    return image.clip(0, 255).astype(np.uint8)


def write_video(path: Path, jpegs: list[bytes]) -> None:
    """Write a video's faces as preprocess-faces does."""
    n = len(jpegs)

    def fixed(length: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * length, np.float32)), length)

    columns = {
        "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 30.0, "status": ["ok"] * n, "jpeg": jpegs,
        "landmarks": fixed(136), "transform": fixed(6), "tracked": np.zeros(n, bool),
        **dict.fromkeys(("detector_score", "pass_disagreement", "procrustes_residual"), np.zeros(n, np.float32)),
    }  # fmt: skip
    store.write_faces(path, [{name: columns[name] for name in store.FACES_SCHEMA.names}], {"source": "generated"})
