"""The features of all frames, written and read as one .npy memory map (`aupair run extract-features`).

The folder holds features.npy, (N, A, F) float32; features.json with its columns, size and hash; and the statistics of
fit with which the features were scaled.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError
from aupair.faces.pool import ProcessDeath, count_cores, run_in_processes
from aupair.log import SILENT, Log
from aupair.mapping.extractor import Statistics, VideoFeatures, columns, pool_clips
from aupair.params import ExtractFeatures

CHUNK = 4096
"""frames read at once"""
FRAMES_PER_PROCESS = 100_000
"""number of frames from which on a separate process pays off"""
HASHED_BYTES = 2**30
"""size of the largest file whose hash is checked whenever it is opened, which takes about a second for this size"""
AGAIN = "run extract-features again"


class Features:
    """The features of N frames, which may be larger than memory: only requested rows are read.

    Args:
        matrix: (N, A, F) float32, NaN where there is no face; usually a memory map.
        plain: (F,) bool, the columns that need no uncertainty.
    """

    def __init__(self, matrix: np.ndarray, plain: np.ndarray) -> None:
        self._matrix, self.plain = np.asarray(matrix), plain

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def au_count(self) -> int:
        """Return the number of AUs."""
        return int(self._matrix.shape[1])

    def chunks(self, rows: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield the features of rows (n,), some at a time: (size, A, F)."""
        for start in range(0, len(rows), size):
            yield self._matrix[rows[start : start + size]]

    def of_each_au(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of each AU at rows of its own: (A, n) -> (A, n, F)."""
        aus = np.repeat(np.arange(len(rows)), rows.shape[1])
        order = np.argsort(rows, axis=None, kind="stable")  # a disk is read quickest in the order of the file
        out = np.empty((rows.size, len(self.plain)), np.float32)
        out[order] = self._matrix[rows.ravel()[order], aus[order]]
        return out.reshape(*rows.shape, -1)


def write_features(
    folder: Path, frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, params: ExtractFeatures, log: Log = SILENT
) -> None:
    """Compute the features of every video and write the folder.

    Args:
        y_hat, sigma: (N, A) float32, out of fold on fit, NaN where there is no face.

    Raises:
        ArtifactError: no frame of fit has a face.
        AupairError: the folder cannot be written, or a process died.
    """
    fit_faces = frames.of_split("fit") & frames.ok
    statistics = Statistics.from_fit_frames(y_hat[fit_faces], sigma[fit_faces])
    people: dict[int, list[_Clip]] = {}
    for k, (name, rows) in enumerate(zip(frames.videos, frames.slices())):
        person = int(frames.subject[rows.start]) if params.neutral == "person" and rows.stop > rows.start else ~k
        people.setdefault(person, []).append(_Clip(name, rows, y_hat[rows], sigma[rows], frames.time[rows]))
    tasks = sorted(
        people.values(), key=lambda clips: -sum(len(clip.time) for clip in clips)
    )  # the longest first, so that no process works on one alone at the end
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        statistics.save(temporary / "statistics.safetensors")
        path, shape = temporary / "features.npy", (*y_hat.shape, len(columns(params)))
        with store.writing(folder):
            _create_matrix(path, shape)
        work = partial(_write_person, path=path, statistics=statistics, params=params)
        with closing(_run(work, tasks, min(count_cores(), len(frames) // FRAMES_PER_PROCESS))) as results:
            for _ in log.progress(results, len(tasks), "extracting features"):
                pass
        about = {"columns": [{"name": name, "group": group} for name, group in columns(params)], "shape": shape}
        store.write_json(
            temporary / "features.json", about | {"bytes": path.stat().st_size, "sha256": store.sha256(path)}
        )


class _Clip(NamedTuple):
    """The n frames of one video.

    Attributes:
        name: the name of the video.
        rows: its rows in the matrix of features.
        y_hat, sigma: (n, A) float32, NaN where there is no face.
        time: (n,) float64, seconds.
    """

    name: str
    rows: slice
    y_hat: np.ndarray
    sigma: np.ndarray
    time: np.ndarray


def _create_matrix(path: Path, shape: tuple[int, ...]) -> None:
    """Create the .npy file and reserve its space, since writing to a memory map on a full disk would kill the process."""
    open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _run(
    work: Callable[[list[_Clip]], None], tasks: Sequence[list[_Clip]], workers: int
) -> Generator[None, None, None]:
    """Run all tasks: in this process, or in several if there is enough work."""
    if workers < 2:
        yield from map(work, tasks)
        return
    with closing(run_in_processes(work, tasks, workers)) as results:
        for task, result in results:
            if isinstance(result, ProcessDeath):
                got, todo = f"code {result.exit_code}", "give the machine more memory (-9 is a kill for want of it)"
                raise AupairError("a process died", where=f"video {task[0].name}", got=got, todo=todo)
            yield


def _write_person(clips: list[_Clip], path: Path, statistics: Statistics, params: ExtractFeatures) -> None:
    """Write the features of a person's clips, or of one video, into their rows of the matrix."""
    pool = pool_clips((clip.y_hat, clip.sigma) for clip in clips) if params.neutral == "person" else None
    matrix = np.asarray(open_memmap(path, mode="r+"))
    for clip in clips:
        video = VideoFeatures(clip.y_hat, clip.sigma, clip.time, statistics, params, pool)
        video.features(out=matrix[clip.rows])


def open_features(folder: Path, frames: Frames) -> Features:
    """Open the features of every frame as a memory map.

    Raises:
        ArtifactError: a file is missing or corrupt, or the features are those of other frames.
    """
    path, about = Path(folder) / "features.npy", store.read_json(Path(folder) / "features.json")
    plain = np.array([column["group"] == "plain" for column in about["columns"]])
    got, expected = tuple(about["shape"]), (*frames.labels.shape, len(plain))
    if got != expected:
        raise ArtifactError("features of other faces", where=path, got=got, expected=expected, todo=AGAIN)
    return Features(_open_matrix(path, about["bytes"], about["sha256"]), plain)


def _open_matrix(path: Path, size: int, sha256: str) -> np.ndarray:
    """Check the size of a .npy file, and its hash if the file is small, and map it into memory.

    Raises:
        ArtifactError: it is missing or corrupt.
    """
    try:
        if path.stat().st_size != size:
            got, expected = f"{path.stat().st_size} bytes", f"{size} bytes, as features.json has it"
            raise ArtifactError("the file has been cut or changed", where=path, got=got, expected=expected, todo=AGAIN)
        if size <= HASHED_BYTES and store.sha256(path) != sha256:
            raise ArtifactError(
                "the file has been changed", where=path, expected="the hash in features.json", todo=AGAIN
            )
        return open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise store.missing_file_error(path) from error
    except (ValueError, OSError) as error:
        raise ArtifactError("not a readable .npy file", where=path, got=error, todo=AGAIN) from error
