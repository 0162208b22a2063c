"""Sources of an import that tests write: tables, movies, and the data folder that came of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from videos import write_grey_video


def movie(path: Path, frames: int, fps: float = 25) -> Path:
    """Write a movie of grey frames."""
    return write_grey_video(path, *np.linspace(0, 250, frames).astype(int).tolist(), fps=fps)


def text(path: Path, *lines: str) -> Path:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def frame_table(path: Path, videos: Mapping[str, np.ndarray], aus: Sequence[str], first: int = 0) -> Path:
    """Write a table video,frame,AUs; labels are (N, A) by video."""
    rows = (
        f"{video},{k + first}," + ",".join(f"{value:g}" for value in row)
        for video, values in videos.items()
        for k, row in enumerate(values)
    )
    return text(path, "video,frame," + ",".join(aus), *rows)


def written(data: Path, video: str, folder: str = "occurrence") -> tuple[tuple[str, ...], np.ndarray]:
    """Return the AUs and the values of an annotation file that an import wrote."""
    header, *rows = (data / "annotations" / folder / f"{video}.csv").read_text().splitlines()
    return tuple(header.split(",")), np.array([[float(cell) for cell in row.split(",")] for row in rows])


def notes(data: Path) -> dict[str, list[str]]:
    """Return the notes of import.json."""
    result: dict[str, list[str]] = json.loads((data / "import.json").read_text())["notes"]
    return result
