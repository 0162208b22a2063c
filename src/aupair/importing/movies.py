"""Lookup of the movies in a folder by the names that label files use."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from aupair.data.layout import EXTENSIONS, Header, read_movie_header
from aupair.errors import DataError
from aupair.importing.recordings import Media

_SIDE = re.compile("_(left|right)$")


class Movies:
    """The movies below a folder; the header of a movie is read once, when it is opened.

    Args:
        folder: the folder to search, with all folders below it.
        out: the data folder that is written. If it is below `folder`, it is not searched, since it may contain links to the
            movies there. Its movies are used only for names that `folder` does not have.
    """

    def __init__(self, folder: Path, out: Path) -> None:
        if not folder.is_dir():
            raise DataError("no such folder", where=folder, expected="a folder of movies")
        self.folder = folder
        self._paths = _movies_below(folder, without=out)
        self._placed = _movies_below(out / "videos")
        self._own = (out / "videos").resolve()
        self._opened: dict[Path, Header] = {}
        self._titles: dict[Path, str] = {}  # names of the movies that labels use, by resolved path

    def names(self) -> list[str]:
        """Return the names of the movies, sorted."""
        return sorted(self._paths)

    def find(self, name: str) -> Path | None:
        """Return the movie of a name, which may contain folders and an extension, in any case; None if there is none.

        `clip_left` and `clip_right` are two persons in the movie `clip`, unless there are movies with these names.

        Raises:
            DataError: two movies have the name.
        """
        parts = _parts(name)
        whole = _SIDE.sub("", parts[-1])
        titled = [path for path, title in self._titles.items() if title == video_name(name)]
        paths = _named(self._paths, parts) or titled or _named(self._placed, [video_name(name)])
        if not paths and whole != parts[-1]:
            return self.find("/".join([*parts[:-1], whole]))
        if len(paths) > 1:
            todo = "remove or rename one"
            if paths[0].parent != paths[1].parent:
                todo += f", or use names with folders: {paths[0].parent.name}/{parts[-1]}"
            raise DataError("two movies for one video", where=paths[0], got=paths[1], expected="one", todo=todo)
        return paths[0] if paths else None

    def video(self, name: str) -> str:
        """Return the name in the data folder of the video `name` of the labels; it is the same for all names of a movie."""
        path, title = self.find(name), video_name(name)
        if path is None:
            return title
        side = _SIDE.search(title)
        if side is None or _normal(path.stem).endswith(side[0]):
            return self.title(path, title)
        return self.title(path, _SIDE.sub("", title)) + side[0]

    def title(self, path: Path, first: str = "") -> str:
        """Return the name of a movie in the data folder: its file's name if it is there, else the first name in labels.

        Raises:
            DataError: another movie has the name.
        """
        title = path.stem if path.parent.resolve().is_relative_to(self._own) else first
        title = self._titles.setdefault(path.resolve(), title)
        for other, name in self._titles.items():
            if other != path.resolve() and name.lower() == title.lower():
                todo = "rename one of them"
                raise DataError("two movies for one video", where=path, got=other, expected=f"one {title}", todo=todo)
        return title

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
    """Return the name of a video in the data folder, without a movie's extension; `person/clip` becomes `person_clip`."""
    return "_".join(_parts(name))


def _movies_below(folder: Path, without: Path | None = None) -> dict[str, list[Path]]:
    """Return the movies below a folder by their stems, except those below `without`, unless that contains `folder`."""
    result: dict[str, list[Path]] = defaultdict(list)
    own = without.resolve() if without else None
    skip = own is not None and own != folder.resolve() and own not in folder.resolve().parents
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.suffix.lower() not in EXTENSIONS or path.name.startswith(".") or not path.is_file():
            continue
        if not (skip and own in path.resolve().parents):
            result[_normal(path.stem)].append(path)
    return result


def _named(paths: Mapping[str, Sequence[Path]], parts: Sequence[str]) -> list[Path]:
    """Return the paths with a stem that are in folders of given names, those with the stem in the same case if any."""
    stem = parts[-1].lower()
    same = paths.get(parts[-1]) or [p for name, named in paths.items() if name.lower() == stem for p in named]
    folders = [part.lower() for part in parts[:-1]]
    return (
        [p for p in same if [_normal(part).lower() for part in p.parts[-len(parts) : -1]] == folders]
        if folders
        else [*same]
    )


def _parts(name: str) -> list[str]:
    """Split a name from a label file into folders and stem."""
    name = _normal(name)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [name]
    path = Path(parts[-1])
    return [*parts[:-1], path.stem if path.suffix.lower() in EXTENSIONS else path.name]


def _normal(name: str) -> str:
    """Return a name in Unicode normal form C, since file systems differ in the representation of accented letters."""
    return unicodedata.normalize("NFC", name)
