"""The videos that `aupair predict` is given: finding them, the names of their outputs, and who is in them."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from aupair.data.crops import FOLDER, find_crops, is_crops
from aupair.data.layout import read_subjects
from aupair.errors import DataError
from aupair.inference.summary import SUMMARY

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv")
"""The suffixes by which files in a folder are recognised as videos; a file that is named itself is always tried."""


def find_videos(sources: Sequence[Path]) -> list[Path]:
    """Return the files, and the videos and folders of crops in the folders and below, each once.

    Raises:
        DataError: a source does not exist, or there is no video.
    """
    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        raise DataError("no such video or folder", where=", ".join(missing), todo="check the path")
    videos: dict[Path, Path] = {}
    for source in sources:
        for path in _videos_in(source) if source.is_dir() else [source]:
            videos.setdefault(path.resolve(), path)
    if not videos:
        raise DataError("no video", where=", ".join(map(str, sources)), expected=f"files such as *{SUFFIXES[0]}")
    return list(videos.values())


def _videos_in(folder: Path) -> list[Path]:
    """Return the videos in a folder and below, then the folders of crops of other videos."""
    videos: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.lower().startswith(FOLDER)]
        files = (Path(root, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        videos += [path for path in files if path.is_file()]
    stems = {video.stem for video in videos}
    return [*sorted(videos), *(path for path in find_crops(folder, is_crops(folder)) if path.name not in stems)]


def output_names(videos: Sequence[Path]) -> list[str]:
    """Return the name of each video's output: its stem, with as many parent folders as it takes to make it unique.

    `a/clip.mp4` and `b/clip.mp4` become `a__clip.mp4` and `b__clip.mp4`. Names that differ only by letter case count as equal.
    """
    depth = [0] * len(videos)
    while True:
        names = [_name(video, d) for video, d in zip(videos, depth)]
        count = Counter(name.lower() for name in [*names, SUMMARY])
        clash = [count[name.lower()] > 1 for name in names]
        deeper = [d + 1 if c and d <= len(v.resolve().parts) else d for v, d, c in zip(videos, depth, clash)]
        if deeper == depth:
            # only paths that differ by letter case or by `__` can still be equal here
            return [f"{name}-{index}" if c else name for index, (name, c) in enumerate(zip(names, clash))]
        depth = deeper


def _name(video: Path, depth: int) -> str:
    """Return the stem if `depth` is 0, else the last `depth` parts of the path."""
    return "__".join(video.resolve().parts[-depth:]).replace("/", "") if depth else _stem(video)


def _stem(video: Path) -> str:
    """Return the name of a video: a file's name without its suffix, or a folder's full name."""
    return video.name if video.is_dir() else video.stem


def read_persons(path: Path, videos: Sequence[Path]) -> list[str | int]:
    """Read the person of each video from a table `video,subject`; each video that is not listed gets a person of its own.

    Raises:
        DataError: the table cannot be read, has two subjects for a video, or lists none of the videos.
    """
    subjects = read_subjects(path)
    names = [_stem(video) for video in videos]
    if not subjects.keys() & set(names):
        raise DataError(
            "the table lists none of the videos", where=path, expected=f"names without suffix, such as {names[0]}"
        )
    return [subjects.get(name, k) for k, name in enumerate(names)]
