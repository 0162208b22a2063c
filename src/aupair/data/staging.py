"""What every way of fetching data shares: items, patience, and the folder beside the target that survives a kill."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aupair import store
from aupair.errors import ArtifactError, AupairError, DataError

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Item:
    """One file of a source.

    Attributes:
        name: relative path with "/" between its parts.
        size: bytes.
        etag: the object store's ETag without quotes; empty for a local file.
    """

    name: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        attempts: tries in a row that get nowhere before a file is given up.
        backoff: seconds before the second try; doubled each time.
        timeout: seconds without an answer, or without a byte, that make a try fail.
        longest: seconds that a whole git or DVC command may take.
    """

    attempts: int = 5
    backoff: float = 1.0
    timeout: float = 30.0
    longest: float = 6 * 3600.0


PATIENCE = Patience()


@dataclass(frozen=True)
class Staging:
    """The folder `.<target>.fetching` beside the target: whole files, parts of files, and a note of what they are."""

    target: Path

    @property
    def folder(self) -> Path:
        """The staging folder itself."""
        return self.target.with_name(f".{self.target.name}.fetching")

    @property
    def whole(self) -> Path:
        """Where verified files are; it becomes the target."""
        return self.folder / "whole"

    @property
    def parts(self) -> Path:
        """Where begun files are, under the same names."""
        return self.folder / "parts"

    def paths(self, name: str) -> tuple[Path, Path]:
        """Give the paths of a whole file and of its beginning, in folders that exist."""
        whole, part = self.whole / name, self.parts / name
        with writing(self.target):
            whole.parent.mkdir(parents=True, exist_ok=True)
            part.parent.mkdir(parents=True, exist_ok=True)
        return whole, part

    def finish(self) -> None:
        """Turn the whole files into the target, in place of what was there, and clean up."""
        with writing(self.target):
            if self.target.exists():
                shutil.rmtree(self.folder / "old", ignore_errors=True)
                self.target.rename(self.folder / "old")
            self.whole.rename(self.target)
            shutil.rmtree(self.folder)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Where the disk is full, leave nothing half-written on it; whole files stay."""
        try:
            yield
        except AupairError as error:
            if getattr(error.__cause__, "errno", None) in FULL:
                shutil.rmtree(self.parts, ignore_errors=True)
            raise


def prepare(target: Path, source: str, revision: str = "", items: Sequence[Item] = ()) -> Staging:
    """Open the staging folder of a target; drop what is not of this source, or of an item that has changed since."""
    staging = Staging(Path(target).absolute())
    note = staging.folder / "source.json"
    new: dict[str, Any] = {
        "source": source,
        "revision": revision,
        "items": {item.name: [item.size, item.etag] for item in items},
    }
    with writing(staging.target):
        try:
            old = store.read_json(note)
        except ArtifactError:  # none yet, or cut off
            old = {}
        if any(old.get(key) != new[key] for key in ("source", "revision")):
            shutil.rmtree(staging.folder, ignore_errors=True)
            old = {"items": {}}
        kept = {name for name, known in new["items"].items() if old["items"].get(name) == known}
        for folder in (staging.whole, staging.parts):
            _keep(folder, kept)
        store.write_json(note, new)
    return staging


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a disk's refusal into one line about `path`; a network's error, which has no number, passes.

    Raises:
        AupairError: the disk is full, read-only or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise store.unwritable(path, error) from error


def check_names(items: Sequence[Item], where: str) -> None:
    """Make sure that every name is a path inside a folder, and that none is both a file and a folder.

    Raises:
        DataError: the first that is not.
    """
    names = {item.name for item in items}
    for name in sorted(names):
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise DataError(
                "a name that cannot be a file in a folder",
                where=where,
                got=repr(name),
                expected="no empty part, no . and no ..",
                todo="rename the object",
            )
        above = next((p for p in ("/".join(parts[:k]) for k in range(1, len(parts))) if p in names), None)
        if above is not None:
            raise DataError(
                "a name that is both a file and a folder", where=where, got=f"{above} and {name}", todo="rename one"
            )


def scrub(text: str) -> str:
    """Take user names and passwords out of every URL in a text: all up to the last @, since a password may hold a /."""
    return re.sub(r"(?<!file)(://)[^\s'\"]*@", r"\1", text)


def _keep(folder: Path, names: set[str]) -> None:
    """Delete all files under a folder but those named, and the folders that are empty then."""
    for root, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(root, file)
            if path.relative_to(folder).as_posix() not in names:
                path.unlink()
        if not os.listdir(root):
            os.rmdir(root)
