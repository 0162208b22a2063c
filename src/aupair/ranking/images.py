"""Aligned faces as arrays: decoded once and kept while they fit, else decoded by a few threads when asked for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.faces.pool import cores


class FaceImages:
    """The aligned face of each row of `frames`.

    Args:
        folder: the faces, one Arrow file a video.
        cache_bytes: decoded faces are kept up to this size, so that a small corpus is decoded once.
        threads: decoders (OpenCV lets go of the interpreter's lock); None: one a core, shared with the other
            processes that torchrun started here.

    Attributes:
        size: side of the faces, pixels.
    """

    def __init__(self, folder: Path, frames: Frames, cache_bytes: int = 4 << 30, threads: int | None = None) -> None:
        self._paths = [Path(folder) / f"{name}.arrow" for name in frames.videos]
        self._jpegs = [store.read_faces(path)["jpeg"] for path in self._paths]
        self._video, self._frame, self._ok = frames.video, frames.frame, frames.ok
        self._pool = ThreadPoolExecutor(threads or cores())
        first = np.flatnonzero(self._ok)
        if len(first) == 0:
            raise ArtifactError(
                "no face in any video", where=folder, todo="look at the statuses that preprocess-faces reported"
            )
        self.size = self._decode(int(first[0])).shape[0]
        self._cached = np.zeros(len(frames), bool)
        fits = len(frames) * self.size * self.size * 3 <= cache_bytes
        self._cache = np.empty((len(frames), self.size, self.size, 3), np.uint8) if fits else None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Give the faces of some rows, all with a face: (B,) int -> (B, S, S, 3) uint8 RGB."""
        if self._cache is None:
            return np.stack(list(self._pool.map(self._decode, map(int, rows))))
        new = np.unique(rows[~self._cached[rows]])
        for row, image in zip(new, self._pool.map(self._decode, map(int, new))):
            self._cache[row] = image
        self._cached[new] = True
        return self._cache[rows]

    def _decode(self, row: int) -> np.ndarray:
        video, frame = self._video[row], int(self._frame[row])
        return store.decode_jpeg(self._jpegs[video][frame].as_py(), f"{self._paths[video]} frame {frame}")
