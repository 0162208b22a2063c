"""G for every video, as files: videos/<video>.safetensors, the statistics of fit, and the names of the columns."""

from pathlib import Path

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.log import SILENT, Log
from aupair.mapping.extractor import Statistics, columns, extract
from aupair.params import ExtractFeatures


def write_features(
    folder: Path, frames: Frames, y_hat: np.ndarray, sigma: np.ndarray, params: ExtractFeatures, log: Log = SILENT
) -> None:
    """Apply G to every video and write the folder: `videos/<video>.safetensors` with `features` (n, A, F) float32.

    Args:
        y_hat, sigma: (N, A) float32, out of fold on fit, NaN where there is no face.
    """
    seen = frames.of_split("fit") & frames.ok
    statistics = Statistics.of(y_hat[seen], sigma[seen])
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        statistics.save(temporary / "statistics.safetensors")
        store.write_json(
            temporary / "columns.json", [{"name": name, "group": group} for name, group in columns(params)]
        )
        videos = list(zip(frames.videos, frames.slices()))
        for name, rows in log.progress(videos, len(videos), "extracting features"):
            values = extract(y_hat[rows], sigma[rows], frames.time[rows], statistics, params)
            store.write_arrays(_path(temporary, name), {"features": values})


def read_features(folder: Path, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Read the features of every frame (N, A, F) float32, and which columns are plain (F,) bool.

    Raises:
        ArtifactError: a video's file is missing, corrupt, or of another number of frames.
    """
    groups = [column["group"] for column in store.read_json(Path(folder) / "columns.json")]
    out = np.empty((len(frames), len(AUS), len(groups)), np.float32)
    for name, rows in zip(frames.videos, frames.slices()):
        path = _path(folder, name)
        values = store.read_arrays(path)["features"]
        if values.shape != out[rows].shape:
            raise ArtifactError(
                "features of other faces",
                where=path,
                got=values.shape,
                expected=out[rows].shape,
                todo="run extract-features again",
            )
        out[rows] = values
    return out, np.array(groups) == "plain"


def _path(folder: Path, video: str) -> Path:
    """Give a video's file, in a folder of its own: a video may have any name."""
    return Path(folder) / "videos" / f"{video}.safetensors"
