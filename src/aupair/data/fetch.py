"""Download of data from an S3 bucket, a git repository with DVC, or a mounted folder, for `fetch-data` and predictions.

Files are collected in `.<target>.fetching` beside the target, which is created only when all files are verified.
After an interrupted call, the next one deletes the incomplete files and uses the complete ones.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote

from aupair import store
from aupair.data import git
from aupair.data.s3 import Item, Patience, download_objects, list_objects
from aupair.errors import DataError, ParamsError, scrub
from aupair.log import SILENT, Log

PATIENCE = Patience()


class FetchSummary(NamedTuple):
    """The source of fetched data without user name and password, the git commit (else empty), and the number of files."""

    source: str
    commit: str
    files: int


def fetch(
    source: str,
    target: Path,
    *,
    items: Sequence[Item] | None = None,
    revision: str = "",
    remote: str = "",
    log: Log = SILENT,
    patience: Patience = PATIENCE,
) -> FetchSummary:
    """Fetch a source into the folder `target`, which is created or replaced when all files are verified.

    Args:
        source: `s3://bucket/prefix`; `git+https://`, `git+ssh://` or `git+file://` and a repository with a data.dvc;
            or the path of a folder, which may start with `file://`.
        items: the items of `list_source` to fetch; None: all.
        revision: branch, tag or commit of a git source; empty: its default branch.
        remote: the DVC remote of a git source; empty: its default remote.

    Raises:
        ParamsError: the source has an unknown form, or an argument does not fit it.
        DataError: the source is empty, a file is damaged, or an item has changed since it was listed.
        AuthError, UnreachableError, RejectedError: the server refuses or does not answer.
        AupairError: the target cannot be written.
    """
    kind, address = _parse_source(source)
    if kind == "git" and items is None:
        git.check_source(source, revision, remote)
        with _staging(target) as staged:
            commit = git.fetch_data(source, revision, remote, staged, log, patience)
        return FetchSummary(address, commit, sum(path.is_file() for path in Path(target).rglob("*")))
    if revision or remote:
        got, todo = revision or remote, "leave it empty, or name a git+https:// source"
        raise ParamsError("a revision or a remote without a git source", got=got, todo=todo)
    if items is None:
        items = list_source(source, patience)
    else:
        _check_item_names(items, address)
    if kind == "folder":
        _check_separate(Path(address), target)
    with _staging(target, {item.name for item in items}) as staged:
        if kind == "s3":
            download_objects(address, items, staged / "whole", log, patience)
        else:
            for item in log.progress(items, len(items), "linking files"):
                _link_file(Path(address), item, staged / "whole")
    return FetchSummary(address, "", len(items))


def list_source(source: str, patience: Patience = PATIENCE) -> list[Item]:
    """List the files of an `s3://` source or of a folder, sorted by name; errors are those of `fetch`."""
    kind, address = _parse_source(source)
    if kind == "git":
        raise ParamsError("a git source cannot be listed", where=address, todo="fetch it first")
    items = list_objects(address, patience) if kind == "s3" else _list_folder(Path(address))
    _check_item_names(items, address)
    return items


def _parse_source(source: str) -> tuple[Literal["s3", "git", "folder"], str]:
    """Return the kind of a source and its address: the absolute path of a folder, or a URL without credentials.

    Raises:
        ParamsError: the scheme is unknown.
    """
    if source.startswith("s3://"):
        return "s3", source.rstrip("/")
    if source.startswith("git+"):
        return "git", scrub(source)
    if local := re.match(r"file://(localhost)?(?=/)", source):
        return "folder", unquote(source[local.end() :])
    if source and not re.match(r"[A-Za-z][\w+.-]*://", source):
        return "folder", str(Path(source).absolute())
    raise ParamsError(
        "the source has an unknown form",
        got=repr(scrub(source)),
        expected="s3://bucket/prefix, git+https://host/repository.git, file:///path or the path of a folder",
    )


def _list_folder(folder: Path) -> list[Item]:
    """List the files under a folder; a link to a file counts as the file."""

    def stop(error: OSError) -> None:
        raise DataError("the folder cannot be read", where=error.filename, got=error.strerror) from error

    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(what, where=folder, todo="check the path, and that the volume is mounted")
    items = []
    for root, folders, files in os.walk(folder, onerror=stop):
        for path in (Path(root, name) for name in (*files, *(f for f in folders if Path(root, f).is_symlink()))):
            if not path.is_file():  # skipping it would lose data without a message
                raise DataError(
                    "neither a file nor a folder", where=path, expected="no broken link and no link to a folder"
                )
            items.append(Item(path.relative_to(folder).as_posix(), path.stat().st_size))
    if not items:
        raise DataError("the folder is empty", where=folder, todo="check the path, and that the volume is mounted")
    return sorted(items, key=lambda item: item.name)


def _check_item_names(items: Sequence[Item], where: str) -> None:
    """Raise a DataError for a name that leads outside the folder, and for one that is both a file and a folder."""
    names = {item.name for item in items}
    for name in sorted(names):
        if "\0" in name or {"", ".", ".."} & {*name.split("/")}:
            raise DataError(
                "a name that cannot be a file in a folder",
                where=where,
                got=repr(name),
                expected="no empty part, no . and no ..",
                todo="rename the object",
            )
        for above in names & {str(parent) for parent in PurePosixPath(name).parents}:
            what = "a name that is both a file and a folder"
            raise DataError(what, where=where, got=f"{above} and {name}", todo="rename one")


def _check_separate(folder: Path, target: Path) -> None:
    """Raise a ParamsError if one of two folders contains the other, since the target is replaced."""
    one, other = folder.resolve(), Path(target).resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ParamsError(
            "source and target must not contain each other", where=target, got=folder, todo="name another target"
        )


def _link_file(folder: Path, item: Item, target: Path) -> None:
    """Hard-link a file of a folder into the folder `target`, or copy it if it cannot be linked."""
    source, place = folder / item.name, target / item.name
    try:
        path = source.resolve(strict=True)
        now = path.stat()
    except OSError as error:
        raise DataError("the file cannot be read", where=source, got=error.strerror) from error
    if now.st_size != item.size:
        got, expected = f"{now.st_size} bytes", f"{item.size} bytes"
        what = "a file has changed since it was listed"
        raise DataError(what, where=source, got=got, expected=expected, todo="fetch again")
    with store.writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # from an earlier call; a complete copy has the modification time of its source
            if (place.stat().st_size, place.stat().st_mtime_ns) == (now.st_size, now.st_mtime_ns):
                return
            place.unlink()
        try:
            os.link(path, place)
        except OSError:  # another file system, or one without links
            shutil.copy2(path, place)


@contextmanager
def _staging(target: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Yield the folder `.<target>.fetching`; on success its subfolder `whole` replaces the target.

    Of the files that an interrupted call left behind, those in `whole` with one of `names` and the subfolder `cache` are
    kept. All others are deleted, including the temporary files of boto3.
    """
    target = Path(target).absolute()
    staged = target.with_name(f".{target.name}.fetching")
    whole = staged / "whole"
    with store.writing(target):
        for folder in ("old", "repository"):
            shutil.rmtree(staged / folder, ignore_errors=True)
        for root, _, files in os.walk(whole, topdown=False):
            for path in (Path(root, file) for file in files):
                if path.relative_to(whole).as_posix() not in names:
                    path.unlink()
            if not os.listdir(root):
                os.rmdir(root)
        whole.mkdir(parents=True, exist_ok=True)
    yield staged
    with store.writing(target):
        if target.exists():
            target.rename(staged / "old")
        whole.rename(target)
        shutil.rmtree(staged)
