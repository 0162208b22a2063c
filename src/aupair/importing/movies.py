"""The movies of a folder, looked up by the names that label files use."""

import re
from collections import defaultdict
from pathlib import Path

from aupair.data.layout import Header, read_movie_header
from aupair.errors import DataError
from aupair.importing.recordings import Media

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""The movies that the flow reads."""


class Movies:
    """The movies below a folder; each header is read once, when the movie is opened.

    Args:
        folder: searched with all folders below it.
        without: a folder that is not searched, unless it is `folder` or above it: the one that is written.
    """

    def __init__(self, folder: Path, without: Path | None = None) -> None:
        self.folder = folder
        self._paths: dict[str, list[Path]] = defaultdict(list)
        self._opened: dict[Path, Header] = {}
        own = without.resolve() if without else None
        skip = own is not None and own != folder.resolve() and own not in folder.resolve().parents
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.suffix.lower() not in EXTENSIONS or path.name.startswith(".") or not path.is_file():
                continue
            if not (skip and own in path.resolve().parents):
                self._paths[path.stem].append(path)

    def names(self) -> list[str]:
        """Return the names of the movies, sorted."""
        return sorted(self._paths)

    def find(self, name: str) -> Path | None:
        """Return the movie of a name, with or without extension, in upper or lower case; None without one.

        Raises:
            DataError: two movies have the name.
        """
        stem = (
            name if name in self._paths else re.sub(rf"({'|'.join(map(re.escape, EXTENSIONS))})$", "", name, flags=re.I)
        )
        paths = self._paths.get(stem) or [p for s, ps in self._paths.items() if s.lower() == stem.lower() for p in ps]
        if len(paths) > 1:
            raise DataError("two movies for one video", where=paths[0], got=paths[1], expected="one", todo="remove one")
        return paths[0] if paths else None

    def open(self, path: Path) -> Media | None:
        """Return a movie with its header; None if OpenCV cannot open it."""
        header = self._opened.get(path) or read_movie_header(path)
        if header is None:
            return None
        self._opened[path] = header
        return Media(path, header)

    def unused(self) -> list[str]:
        """Return the names of the movies that were not opened."""
        return sorted(stem for stem, paths in self._paths.items() if not set(paths) & set(self._opened))


def video_name(name: str) -> str:
    """Return the name of a video without the extension of a movie."""
    path = Path(name)
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name
