"""Aligned faces as arrays, decoded by several threads: once if all of them fit into memory, otherwise at each use."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.pool import count_cores

THREADS = 8
"""maximum number of decoding threads; sixteen were no faster, and slowed down training (docs/log, 2026-11-26)"""


class FaceImages:
    """The aligned face of each row of `frames`.

    Args:
        folder: the face files, one for each video.
        cache_bytes: if all decoded faces fit into this size, they are cached, and each is decoded once.
        threads: number of decoding threads (OpenCV releases the GIL); None: one per core, at most THREADS. Processes that
            torchrun started on this machine share the cores.

    Attributes:
        size: side of the faces, pixels.
    """

    def __init__(self, folder: Path, frames: Frames, cache_bytes: int = 4 << 30, threads: int | None = None) -> None:
        self._paths = [Path(folder) / f"{name}.arrow" for name in frames.videos]
        self._jpegs = [store.read_faces(path)["jpeg"] for path in self._paths]
        self._video, self._frame, self._ok = frames.video, frames.frame, frames.ok
        self._threads = threads or min(THREADS, count_cores())
        self._pool = ThreadPoolExecutor(self._threads)
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
        """Return the faces of some rows, which must all have a face: (B,) int -> (B, S, S, 3) uint8 RGB."""
        if self._cache is None:
            faces = np.empty((len(rows), self.size, self.size, 3), np.uint8)
            self._decode_into(faces, np.arange(len(rows)), rows)
            return faces
        new = np.unique(rows[~self._cached[rows]])
        self._decode_into(self._cache, new, new)
        self._cached[new] = True
        return self._cache[rows]

    def path(self, video: int) -> Path:
        """Return the path of a video's face file."""
        return self._paths[video]

    def _decode_into(self, faces: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
        """Decode the face of each row into its place, with one task per thread to limit the overhead of tasks."""

        def decode_part(start: int) -> None:
            for place, row in zip(places[start :: self._threads], rows[start :: self._threads]):
                face = self._decode(int(row))
                if face.shape != faces.shape[1:]:
                    raise ArtifactError(
                        "faces of different sizes", where=self._where(int(row)), got=face.shape[:2],
                        expected=faces.shape[1:3], todo="run preprocess-faces again",
                    )  # fmt: skip
                faces[place] = face

        list(self._pool.map(decode_part, range(min(self._threads, len(rows)))))

    def _decode(self, row: int) -> np.ndarray:
        video, frame = self._video[row], int(self._frame[row])
        return store.decode_jpeg(self._jpegs[video][frame].as_py(), self._where(row))

    def _where(self, row: int) -> str:
        return f"{self._paths[self._video[row]]} frame {self._frame[row]}"
