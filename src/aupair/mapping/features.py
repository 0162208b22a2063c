"""G for every video, as files: videos/<video>.safetensors, the statistics of fit, and the names of the columns."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError
from aupair.faces.pool import ProcessDeath, count_cores, run_in_processes
from aupair.log import SILENT, Log
from aupair.mapping.extractor import PIECE, Course, Statistics, columns
from aupair.params import ExtractFeatures

CHUNK = 4096
"""frames read at once"""
SHARE = 100_000
"""frames that are worth a process"""


class Features:
    """G of N frames, read when asked for: there may be more of it than memory.

    Args:
        slices: the rows of each video.
        plain: (F,) bool, the columns that need no uncertainty.
        read: the features of a video by its index, (n, A, F) float32, NaN where there is no face; mapped, not loaded.
    """

    def __init__(self, slices: list[slice], plain: np.ndarray, read: Callable[[int], np.ndarray]) -> None:
        self.plain = plain
        self._edges = np.array([0, *(rows.stop for rows in slices)])
        self._read = read

    def __len__(self) -> int:
        return int(self._edges[-1])

    def chunks(self, rows: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Give the features of rows (n,), some at a time: (size, A, F)."""
        for start in range(0, len(rows), size):
            yield self._take(rows[start : start + size], slice(None), (len(AUS), len(self.plain)))

    def drawn(self, rows: np.ndarray) -> np.ndarray:
        """Give those of each AU's own rows: (A, n) -> (A, n, F)."""
        aus = np.repeat(np.arange(len(rows)), rows.shape[1])
        return self._take(rows.ravel(), aus, (len(self.plain),)).reshape(*rows.shape, -1)

    def _take(self, rows: np.ndarray, aus: np.ndarray | slice, shape: tuple[int, ...]) -> np.ndarray:
        """Gather video by video: of all AUs, or of one for each row."""
        out = np.empty((len(rows), *shape), np.float32)
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self._edges)
        for video in np.flatnonzero(np.diff(bounds)):
            at = order[bounds[video] : bounds[video + 1]]
            which = aus if isinstance(aus, slice) else aus[at]
            out[at] = self._read(int(video))[rows[at] - self._edges[video], which]
        return out


def write_features(
    folder: Path, frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, params: ExtractFeatures, log: Log = SILENT
) -> None:
    """Apply G to every video and write the folder: `videos/<video>.safetensors` with `features` (n, A, F) float32.

    Args:
        y_hat, sigma: (N, A) float32, out of fold on fit, NaN where there is no face.
    """
    seen = frames.of_split("fit") & frames.ok
    statistics = Statistics.of(y_hat[seen], sigma[seen])
    people: dict[int, list[_Clip]] = {}
    for k, (name, rows) in enumerate(zip(frames.videos, frames.slices())):
        person = int(frames.subject[rows.start]) if params.neutral == "person" and rows.stop > rows.start else ~k
        people.setdefault(person, []).append(_Clip(name, y_hat[rows], sigma[rows], frames.time[rows]))
    tasks = sorted(people.values(), key=lambda clips: -sum(len(clip.time) for clip in clips))  # the longest first
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        statistics.save(temporary / "statistics.safetensors")
        store.write_json(
            temporary / "columns.json", [{"name": name, "group": group} for name, group in columns(params)]
        )
        work = partial(_write, folder=temporary, statistics=statistics, params=params)
        with closing(_spread(work, tasks, min(count_cores(), len(frames) // SHARE))) as done:
            for _ in log.progress(done, len(tasks), "extracting features"):
                pass


class _Clip(NamedTuple):
    """A video: y_hat and sigma (n, A) float32, NaN where there is no face; time (n,) float64."""

    name: str
    y_hat: np.ndarray
    sigma: np.ndarray
    time: np.ndarray


def _spread(
    work: Callable[[list[_Clip]], None], tasks: Sequence[list[_Clip]], workers: int
) -> Generator[None, None, None]:
    """Do all tasks: here, or in processes, if there is work for several."""
    if workers < 2:
        yield from map(work, tasks)
        return
    with closing(run_in_processes(work, tasks, workers)) as results:
        for task, result in results:
            if isinstance(result, ProcessDeath):
                got, todo = f"code {result.exit_code}", "give the machine more memory (-9 is a kill for want of it)"
                raise AupairError("a process ended", where=f"video {task[0].name}", got=got, todo=todo)
            yield


def _write(clips: list[_Clip], folder: Path, statistics: Statistics, params: ExtractFeatures) -> None:
    """Write the features of a person's clips, or of one video."""
    pool = None
    if params.neutral == "person":
        seen = [~np.isnan(clip.y_hat[:, 0]) for clip in clips]
        y_hat, sigma = ([getattr(clip, key)[ok] for clip, ok in zip(clips, seen)] for key in ("y_hat", "sigma"))
        pool = np.concatenate(y_hat), np.concatenate(sigma)
    for clip in clips:
        course = Course(clip.y_hat, clip.sigma, clip.time, statistics, params, pool)
        buffer = np.empty((PIECE, *course.shape[1:]), np.float32)
        pieces = (
            course.features(slice(start, start + PIECE), buffer[: len(clip.time) - start])
            for start in range(0, len(clip.time), PIECE)
        )
        store.write_pieces(_path(folder, clip.name), "features", course.shape, pieces)


def open_features(folder: Path, frames: Frames) -> Features:
    """Open the features of every frame; of their files only the headers are read yet.

    Raises:
        ArtifactError: a video's file is missing, corrupt, or of another number of frames.
    """
    groups = [column["group"] for column in store.read_json(Path(folder) / "columns.json")]
    paths, slices = [_path(folder, name) for name in frames.videos], frames.slices()
    for path, rows in zip(paths, slices):
        got, expected = _mapped(path).shape, (rows.stop - rows.start, len(AUS), len(groups))
        if got != expected:
            raise ArtifactError(
                "features of other faces", where=path, got=got, expected=expected, todo="run extract-features again"
            )
    return Features(slices, np.array(groups) == "plain", lambda video: _mapped(paths[video]))


def _mapped(path: Path) -> np.ndarray:
    """Map a video's features into memory: pages are read when they are touched."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # as torch's tensor, since as numpy's it would be copied
            return file.get_tensor("features").numpy()
    except FileNotFoundError as error:
        raise store.missing(path) from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            "not a readable safetensors file", where=path, got=error, todo="delete it and run the stage again"
        ) from error


def _path(folder: Path, video: str) -> Path:
    """Give a video's file, in a folder of its own: a video may have any name."""
    return Path(folder) / "videos" / f"{video}.safetensors"
