"""The features of all frames, written and read as .npy memory maps (`aupair run extract-features`).

The folder contains a matrix routes/NAME.npy, (N, A, F) float32, for each route; features.json with the columns, size and
hash of each matrix; the files of `Extractor.save`; and the smoothed values.
"""

import os
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from pydantic import Field

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError
from aupair.log import SILENT, Log
from aupair.mapping.columns import Scores, VideoFeatures, columns, pool_clips
from aupair.mapping.extractor_fit import fit_extractor
from aupair.mapping.statistics import Statistics
from aupair.params import ExtractFeatures
from aupair.pool import ProcessDeath, count_cores, run_in_processes

CHUNK = 4096
"""number of frames read at once"""
SMOOTHED = "smoothed.safetensors"
FRAMES_PER_PROCESS = 100_000
"""minimum number of frames for each process, below which starting a process takes longer than it saves"""
HASHED_BYTES = 2**30
"""maximum size of a file whose hash is checked when it is opened, which takes about a second for this size"""
AGAIN = "run extract-features again"


class Features:
    """The features of N frames on one route, which may be larger than memory, since only requested rows are read.

    Args:
        matrix: (N, A, F) float32, NaN for frames without a face; usually a memory map.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = np.asarray(matrix)

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def au_count(self) -> int:
        """Return the number of AUs."""
        return int(self._matrix.shape[1])

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return int(self._matrix.shape[2])

    def chunks(self, rows: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield the features of rows (n,) in chunks of at most `size` rows: (size, A, F)."""
        for start in range(0, len(rows), size):
            yield self._matrix[rows[start : start + size]]

    def of_each_au(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of AU a at each row drawn for a: rows (..., A, n) -> (..., A, n, F)."""
        aus = np.broadcast_to(np.arange(self.au_count)[:, None], rows.shape).ravel()
        order = np.argsort(rows, axis=None, kind="stable")  # a disk is read fastest in the order of the file
        out = np.empty((rows.size, self.width), np.float32)
        out[order] = self._matrix[rows.ravel()[order], aus[order]]
        return out.reshape(*rows.shape, -1)


def write_features(
    folder: Path, frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, quality: np.ndarray, params: ExtractFeatures,
    log: Log = SILENT,
) -> None:  # fmt: skip
    """Fit the extractor, compute the features of every video on every route, and write the folder.

    The routes are computed one after another, each into a memory map. For 2.6 million frames and 12 AUs with the
    settings of params/affwild2.yaml a route without columns of uncertainty takes 6.9 GB on disk, the route `columns` 15.5 GB
    (`benchmarks/features.py`), the smoothed values of a route .1 GB on disk and in memory.

    Args:
        y_hat, sigma: (N, A) float32, out of fold on fit, NaN for frames without a face.
        quality: (N, 3) float32, see `load_quality`.

    Raises:
        ArtifactError: no frame of fit has a face.
        AupairError: the folder cannot be written, or a process died.
    """
    fitted = fit_extractor(frames, y_hat, sigma, quality, params)
    with store.atomic(folder) as temporary:
        (temporary / "routes").mkdir(parents=True)
        fitted.extractor.save(temporary, fitted.evidence)
        store.write_arrays(temporary / SMOOTHED, fitted.smoothed())
        about = {}
        for route, statistics in fitted.extractor.statistics.items():
            scores = Scores(fitted.values[route], sigma if route == "columns" else None)
            path, named = temporary / "routes" / f"{route}.npy", columns(params, scores.sigma is not None)
            shape = (*y_hat.shape, len(named))
            with store.writing(folder, needed=4 * prod(shape)):
                _create_matrix(path, shape)
            work = partial(_write_person, path=path, statistics=statistics, params=params)
            _write_route(work, _people(frames, scores, params), len(frames), f"features of {route}", log)
            size = {"shape": shape, "bytes": path.stat().st_size, "sha256": store.sha256(path)}
            about[route] = size | {"columns": [{"name": name, "group": group} for name, group in named]}
        store.write_json(temporary / "features.json", {"deciding": fitted.extractor.deciding, "routes": about})


class _Clip(NamedTuple):
    """The n frames of one video.

    Attributes:
        name: the name of the video.
        rows: its rows in the matrix of features.
        scores: the values of the route, (n, A) float32 each, NaN for frames without a face.
        time: (n,) float64, seconds.
    """

    name: str
    rows: slice
    scores: Scores
    time: np.ndarray


def _people(frames: Frames, scores: Scores, params: ExtractFeatures) -> list[list[_Clip]]:
    """Return the videos, grouped by person with `neutral: person`, else each alone.

    The longest come first, so that all processes end at about the same time.
    """
    people: dict[int, list[_Clip]] = {}
    for k, (name, rows) in enumerate(zip(frames.videos, frames.slices())):
        person = int(frames.subject[rows.start]) if params.neutral == "person" and rows.stop > rows.start else ~k
        own = Scores(scores.y[rows], None if scores.sigma is None else scores.sigma[rows])
        people.setdefault(person, []).append(_Clip(name, rows, own, frames.time[rows]))
    return sorted(people.values(), key=lambda clips: -sum(len(clip.time) for clip in clips))


def _create_matrix(path: Path, shape: tuple[int, ...]) -> None:
    """Create a .npy file and reserve its space, since writing to a memory map on a full disk would kill the process."""
    open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_route(
    work: Callable[[list[_Clip]], None], tasks: Sequence[list[_Clip]], frames: int, what: str, log: Log
) -> None:
    """Compute all tasks of a route, in several processes if there is enough work."""
    with closing(_run(work, tasks, min(count_cores(), frames // FRAMES_PER_PROCESS))) as results:
        for _ in log.progress(results, len(tasks), what):
            pass


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
                what, todo = (
                    f"a process {result.describe()}",
                    "run the stage again, with more memory if that was exhausted",
                )
                raise AupairError(what, where=f"video {task[0].name}", todo=todo)
            yield


def _write_person(clips: list[_Clip], path: Path, statistics: Statistics, params: ExtractFeatures) -> None:
    """Write the features of a person's clips, or of one video, into their rows of the matrix."""
    pool = pool_clips(clip.scores for clip in clips) if params.neutral == "person" else None
    matrix = np.asarray(open_memmap(path, mode="r+"))
    for clip in clips:
        video = VideoFeatures(clip.scores, clip.time, statistics, params, pool)
        video.features(out=matrix[clip.rows])


def open_features(folder: Path, frames: Frames, routes: Collection[str] | None = None) -> dict[str, Features]:
    """Open the features of every frame as memory maps, by route.

    Args:
        routes: the routes to open; None: all.

    Raises:
        ArtifactError: a file is missing or corrupt, or the features belong to other frames.
    """
    about = read_about(folder)
    opened = {}
    for route, own in about.routes.items():
        if routes is not None and route not in routes:
            continue
        path = Path(folder) / "routes" / f"{route}.npy"
        expected = (*frames.labels.shape, len(own.columns))
        if own.shape != expected:
            raise ArtifactError("features of other faces", where=path, got=own.shape, expected=expected, todo=AGAIN)
        matrix = _open_matrix(path, own.bytes, own.sha256)
        opened[route] = Features(store.check_array(matrix, "the matrix", own.shape, "f", path))
    return opened


class _Route(store.Artifact):
    """The file of a route: its shape, size, hash and columns."""

    shape: tuple[int, int, int]
    bytes: int
    sha256: str
    columns: tuple[dict[str, str], ...]


class About(store.Artifact):
    """The content of features.json: the routes of the predictions, and the file of each route."""

    deciding: Annotated[tuple[str, ...], Field(min_length=1)]
    routes: dict[str, _Route]


def read_about(folder: Path) -> About:
    """Read features.json.

    Raises:
        ArtifactError: the file is missing or malformed, or of an earlier version without routes.
    """
    path = Path(folder) / "features.json"
    tree = store.read_json(path)
    if isinstance(tree, dict) and "routes" not in tree:
        raise ArtifactError("features of an earlier version", where=path, got="no routes", todo=AGAIN)
    return store.read_record(path, About)


def read_smoothed(folder: Path, frames: Frames) -> dict[str, np.ndarray]:
    """Read the smoothed values by route, and `NAME.spread`, the standard deviation on the deciding route.

    Returns:
        (N, A) float32 each, NaN for frames without a face; empty if no route is smoothed.

    Raises:
        ArtifactError: the file is missing or corrupt, or its values belong to other frames.
    """
    path = Path(folder) / SMOOTHED
    arrays = store.read_arrays(path)
    for name, values in arrays.items():
        if values.shape != frames.labels.shape:
            got, expected = f"{values.shape} in {name}", str(frames.labels.shape)
            raise ArtifactError("values of other faces", where=path, got=got, expected=expected, todo=AGAIN)
    return arrays


def _open_matrix(path: Path, size: int, sha256: str) -> np.ndarray:
    """Map a .npy file into memory after checking its size and, for at most HASHED_BYTES, its hash.

    Raises:
        ArtifactError: the file is missing or corrupt.
    """
    try:
        if path.stat().st_size != size:
            got, expected = f"{path.stat().st_size} bytes", f"{size} bytes, as in features.json"
            raise ArtifactError("the file is truncated or changed", where=path, got=got, expected=expected, todo=AGAIN)
        if size <= HASHED_BYTES and store.sha256(path) != sha256:
            raise ArtifactError(
                "the file has been changed", where=path, expected="the hash in features.json", todo=AGAIN
            )
        return open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise store.missing_file_error(path) from error
    except (ValueError, OSError) as error:
        raise ArtifactError("not a readable .npy file", where=path, got=error, todo=AGAIN) from error
