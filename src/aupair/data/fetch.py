"""Bring data to where a stage reads it: from an S3 bucket, from a git repository with DVC, or from a mounted folder.

What was fetched is kept in a folder beside the target until all of it is there and verified; a second call goes on
from there. Only then does the target come into being.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from aupair.data import clone, s3
from aupair.data.staging import PATIENCE, Item, Patience, Staging, check_names, prepare, scrub, writing
from aupair.errors import DataError, ParamsError
from aupair.log import SILENT, Log

Kind = Literal["s3", "git", "folder"]


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    Attributes:
        source: where it came from, without user name and password.
        commit: the git commit of a git source, else empty.
        files: how many.
        bytes: their sizes together.
    """

    source: str
    commit: str
    files: int
    bytes: int


def fetch(
    source: str,
    target: Path,
    *,
    revision: str = "",
    remote: str = "",
    log: Log = SILENT,
    patience: Patience = PATIENCE,
) -> Fetched:
    """Fetch all of a source; `target` appears, or is replaced, when everything is there and verified.

    Args:
        source: `s3://bucket/prefix`; `git+https://`, `git+ssh://` or `git+file://` and a repository with a data.dvc;
            or the path of a folder, which may start with `file://`.
        revision: branch, tag or commit of a git source; empty: its default branch.
        remote: the DVC remote of a git source; empty: its default one.

    Raises:
        ParamsError: the source is of no known form, or an argument does not fit it.
        DataError: there is nothing, or something is damaged.
        AuthError, UnreachableError, RejectedError: the server's refusal.
        AupairError: the target cannot be written.
    """
    if _kind(source) == "git":
        commit = clone.fetch_data(source, revision, remote, target, log, patience)
        sizes = [path.stat().st_size for path in Path(target).rglob("*") if path.is_file()]
        return Fetched(scrub(source), commit, len(sizes), sum(sizes))
    if revision or remote:
        raise ParamsError(
            "a revision or a remote without a git source",
            got=revision or remote,
            todo="leave it empty, or name a git+https:// source",
        )
    for _ in range(patience.attempts - 1):
        try:
            return fetch_items(source, list_source(source, patience), target, log, patience)
        except s3.Changed as error:
            log.line(f"{error}: listing again")
    return fetch_items(source, list_source(source, patience), target, log, patience)


def list_source(source: str, patience: Patience = PATIENCE) -> list[Item]:
    """List the files of an `s3://` source or of a folder, sorted by name.

    Raises:
        ParamsError: the source is of no such form.
        DataError: there is nothing.
        AuthError, UnreachableError, RejectedError: the server's refusal.
    """
    kind = _kind(source)
    if kind == "git":
        raise ParamsError("a git source cannot be listed", where=scrub(source), todo="fetch it first")
    return s3.list_objects(s3.place(source), patience) if kind == "s3" else _list_folder(_folder(source))


def fetch_items(
    source: str, items: Sequence[Item], target: Path, log: Log = SILENT, patience: Patience = PATIENCE
) -> Fetched:
    """Fetch only these items of an `s3://` source or of a folder, as `list_source` gave them.

    Raises:
        ParamsError: the source is of no such form, or there are no items.
        DataError: an item has changed since it was listed, is gone or is damaged.
        AuthError, UnreachableError, RejectedError: the server's refusal.
        AupairError: the target cannot be written.
    """
    kind = _kind(source)
    if kind == "git" or not items:
        raise ParamsError("no items of a bucket or a folder", where=scrub(source), todo="list the source first")
    clean = str(s3.place(source)) if kind == "s3" else str(_folder(source))
    check_names(items, clean)
    if kind == "folder":
        _check_apart(Path(clean), target)
    staging = prepare(target, clean, items=items)
    with staging.room():
        if kind == "s3":
            s3.fetch_objects(s3.place(source), items, staging, log, patience)
        else:
            for item in log.progress(items, len(items), "linking files"):
                _take(Path(clean), item, staging)
    staging.finish()
    return Fetched(clean, "", len(items), sum(item.size for item in items))


def _kind(source: str) -> Kind:
    """Tell what a source is by its beginning.

    Raises:
        ParamsError: it is of no known form.
    """
    scheme = re.match(r"git\+|[A-Za-z][\w+.-]*(?=://)", source)
    if scheme is None and source:
        return "folder"
    match scheme and scheme[0]:
        case "s3":
            return "s3"
        case "git+" | "git+https" | "git+http" | "git+ssh" | "git+file":
            return "git"
        case "file":
            return "folder"
    raise ParamsError(
        "a source of no known form",
        got=repr(scrub(source)),
        expected="s3://bucket/prefix, git+https://host/repository.git or the path of a folder",
    )


def _folder(source: str) -> Path:
    """Give the path of a folder source."""
    if not source.startswith("file://"):
        return Path(source).absolute()
    url = urlsplit(source)
    if url.netloc not in ("", "localhost"):
        raise ParamsError("a file: source on another host", got=scrub(source), expected="file:///path")
    return Path(unquote(url.path))


def _list_folder(folder: Path) -> list[Item]:
    """List the files under a folder; a link to a file counts as the file."""

    def stop(error: OSError) -> None:
        raise DataError("a folder that cannot be read", where=error.filename, got=error.strerror) from error

    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(what, where=folder, todo="check the path, and that the volume is mounted")
    items = []
    for root, folders, files in os.walk(folder, onerror=stop):
        for path in (Path(root, name) for name in (*files, *(f for f in folders if Path(root, f).is_symlink()))):
            if not path.is_file():  # leaving it out would lose data without a word
                raise DataError(
                    "neither a file nor a folder", where=path, expected="no broken link, no link to a folder"
                )
            items.append(Item(path.relative_to(folder).as_posix(), path.stat().st_size))
    if not items:
        raise DataError("an empty folder", where=folder, todo="check the path, and that the volume is mounted")
    return sorted(items, key=lambda item: item.name)


def _check_apart(folder: Path, target: Path) -> None:
    """Make sure that neither of two folders lies in the other: the target is replaced."""
    one, other = folder.resolve(), Path(target).resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ParamsError("source and target lie in each other", where=target, got=folder, todo="name another target")


def _take(folder: Path, item: Item, staging: Staging) -> None:
    """Hard-link a local file into the staging folder, or copy it where links cannot be made."""
    source = (folder / item.name).resolve()
    whole, part = staging.paths(item.name)
    try:
        now = source.stat()
    except OSError as error:
        raise DataError("a file that cannot be read", where=folder / item.name, got=error.strerror) from error
    if now.st_size != item.size:
        raise s3.Changed(
            "a file has changed since it was listed",
            where=folder / item.name,
            got=f"{now.st_size} bytes",
            expected=f"{item.size} bytes",
            todo="list it again",
        )
    with writing(whole):
        if whole.exists():
            there = whole.stat()
            if (there.st_size, there.st_mtime_ns) == (now.st_size, now.st_mtime_ns):
                return
            whole.unlink()
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, part)
        part.replace(whole)
