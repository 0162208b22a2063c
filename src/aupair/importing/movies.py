"""The movies of a folder, looked up by the names that label files use."""

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
        """Return the movie of a name, with or without folders and extension, in upper or lower case; None without one.

        Raises:
            DataError: two movies have the name.
        """
        parts = _parts(name)
        stem = parts[-1]
        paths = self._paths.get(stem) or [p for s, ps in self._paths.items() if s.lower() == stem.lower() for p in ps]
        folders = [part.lower() for part in parts[:-1]]
        if folders:
            paths = [p for p in paths if [part.lower() for part in p.parts[-len(parts) : -1]] == folders]
        if len(paths) > 1:
            todo = f"remove one, or use names with folders: {paths[0].parent.name}/{stem}"
            raise DataError("two movies for one video", where=paths[0], got=paths[1], expected="one", todo=todo)
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
        return sorted(stem for stem, paths in self._paths.items() for path in paths if path not in self._opened)


def video_name(name: str) -> str:
    """Return the name of a video in the data folder: without the extension of a movie, `person_clip` for `person/clip`."""
    return "_".join(_parts(name))


def _parts(name: str) -> list[str]:
    """Return the folders and the stem of the name that a label file uses."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [name]
    path = Path(parts[-1])
    return [*parts[:-1], path.stem if path.suffix.lower() in EXTENSIONS else path.name]
