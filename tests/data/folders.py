"""Small data folders for the tests of data: sheets, movies, and a run of check-data on them."""

from pathlib import Path

import numpy as np

from aupair.aus import AFFWILD2
from aupair.data.checks import check_data_folder
from aupair.log import SILENT, Log
from aupair.params import CheckData
from videos import write_grey_video


def write_text(path: Path, text: str = "") -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_sheet(path: Path, values: np.ndarray) -> Path:
    """Write an annotation file: values (rows, A)."""
    lines = (",".join(f"{value:g}" for value in row) for row in values)
    return write_text(path, "\n".join([",".join(AFFWILD2), *lines]) + "\n")


def write_movie(path: Path, frames: int) -> Path:
    """Write a movie of grey frames, 25 a second."""
    return write_grey_video(path, *range(0, 30 * frames, 30), fps=25)


def run_check(
    data: Path, log: Log = SILENT, target: str = "occurrence", few_positives: int = 0, max_missing_videos: int = 0
) -> tuple[Path, Path, Path]:
    """Check a data folder; return the paths of the labels, the information and the Data Docs."""
    out = data.parent / "out"
    labels, info, docs = out / "labels.parquet", out / "data.json", out / "docs"
    params = CheckData(few_positives=few_positives, max_missing_videos=max_missing_videos)
    check_data_folder(data, labels=labels, info=info, docs=docs, params=params, target=target, log=log)
    return labels, info, docs
