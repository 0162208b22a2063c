"""Atomic writing of files and folders, and one-line errors for a disk that is full or read-only.

A file or folder is written in a temporary folder beside its target until it is complete. The writing process locks that
folder, so that later processes can remove the temporary folders of killed processes without touching those in use.
"""

import errno
import fcntl
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from aupair.errors import AupairError, ParamsError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM)
_TODO = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EFBIG: "raise the limit of the size of files (`ulimit -f`)",
    errno.EROFS: "name another folder",
} | dict.fromkeys(_DENIED, "check its permissions")

_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.tmp", re.DOTALL)
"""The form of a temporary folder's name."""
_LONGEST_NAME = 160
"""Maximum number of bytes of the target's name in that of its temporary folder; file systems allow 255 in a name."""

_ATTEMPTS = 100
"""Maximum number of attempts to rename a folder while other processes write the same target."""


@contextmanager
def atomic(path: Path, beside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on any error.

    The temporary path does not exist yet; the caller creates a file or a folder there. An existing `path` is replaced.

    Args:
        beside: a folder above `path`; the temporary path is created beside it if both are on the same disk. For a folder
            that DVC hashes, which must not contain leftovers of a killed process.

    Raises:
        AupairError: the disk is full, or the folder of `path` cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        same_disk = beside is not None and os.stat(beside.parent).st_dev == os.stat(path.parent).st_dev
    with temporary_folder(beside if beside is not None and same_disk else path) as folder:
        temporary = folder / path.name
        try:
            yield temporary
            _rename(temporary, path, folder)
        except Exception as error:
            number = find_errno(error, folder)
            if number is None:
                raise
            raise unwritable_error(path, OSError(number, os.strerror(number)), _size(folder)) from error


def _rename(temporary: Path, path: Path, folder: Path) -> None:
    """Rename `temporary` to `path`; of several processes that do so at once, the last one wins."""
    for attempt in range(_ATTEMPTS):
        if path.is_dir() and temporary.exists():
            with suppress(FileNotFoundError):  # another process has moved it away
                path.rename(folder / f"old{attempt}")
        try:
            temporary.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or attempt == _ATTEMPTS - 1:
                raise


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Create a folder beside `path`, on the same disk, and delete it when the block ends.

    Temporary folders of killed processes are removed there first.

    Raises:
        AupairError: the folder of `path` cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        folder, lock = _create_locked(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(folder: Path) -> None:
    """Remove the temporary folders in a folder whose process has ended; those of a running process are locked."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for name in names:
        with suppress(OSError):  # it is in use, another process removes it, or the file system has no locks
            lock = _lock(folder / name)
            try:
                shutil.rmtree(folder / name)
            finally:
                os.close(lock)


@cache
def _sweep_once(folder: Path) -> None:
    """Remove the temporary folders of killed processes, only once per process, since a large folder takes long to scan."""
    sweep(folder)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Create a temporary folder for `path`; return it and its lock, which the system releases when the process ends."""
    start = path.name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{start}.", suffix=".tmp", dir=path.parent))
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for a leftover before it was locked
        except OSError:
            return folder, os.open(folder, os.O_RDONLY)  # a file system without locks, where `sweep` removes nothing
        if folder.exists():
            return folder, lock
        os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder and return the lock's file descriptor.

    Raises:
        OSError: another process holds the lock (BlockingIOError), or the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def exclusive(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Create a folder and lock it for the block, which may remove it; first wait for a process that has locked it.

    Without locks in the file system, the block runs at once.

    Args:
        waiting: called before the wait.
    """
    descriptor = -1
    while descriptor < 0:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process has removed it
            descriptor = os.open(folder, os.O_RDONLY)
            _wait_for(descriptor, waiting)
            if not folder.exists() or folder.stat().st_ino != os.fstat(descriptor).st_ino:
                os.close(descriptor)
                descriptor = -1
    try:
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, waiting: Callable[[], object]) -> None:
    """Lock an open folder, after any other process that has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return


def check_writable(path: Path) -> None:
    """Check that `path` could be written, in the nearest folder that exists, without writing it.

    Raises:
        AupairError: the folder cannot be written.
    """
    folder = next(parent for parent in Path(path).absolute().parents if os.path.exists(parent))
    with writing(path):
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Translate an OSError of the block into an AupairError about `path`; network errors, which have no errno, pass unchanged.

    Args:
        needed: bytes that `path` takes, for the message; 0: unknown.

    Raises:
        AupairError: the disk is full, read-only or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise unwritable_error(path, error, needed=needed) from error


def raise_if_full(path: Path) -> None:
    """Append to an incomplete file, to get the reason why a library could not write it.

    Raises:
        OSError: the disk is full, or the file has the maximum size.
    """
    with open(path, "ab") as file:
        file.write(bytes(1 << 16))


@contextmanager
def disk_errors_named() -> Iterator[None]:
    """Translate any library's exception for a disk that is full or read-only, or for a file name that is too long.

    This wraps a whole command; for files that aupair writes, `atomic` raises errors that include sizes.

    Raises:
        AupairError: the disk is full or read-only.
        ParamsError: a name is longer than the disk allows.
    """
    try:
        yield
    except Exception as error:
        number, place = find_errno(error), getattr(error, "filename2", None) or getattr(error, "filename", None)
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            raise ParamsError("the name of a file is too long", got=place, todo="name a shorter one") from error
        if number is None:
            raise
        if place:
            raise unwritable_error(Path(str(place)), OSError(number, os.strerror(number))) from error
        raise AupairError("cannot write", got=os.strerror(number), todo=_TODO[number]) from error


def find_errno(error: BaseException | None, folder: Path | None = None) -> int | None:
    """Return the errno of a failed write that an exception, or one of its causes, reports; else None.

    pyarrow, safetensors, torch and sqlite raise their own exceptions, whose text contains the system's message.

    Args:
        folder: the folder of the written files, within which a denied access counts, too; elsewhere it concerns a read file.
    """
    while error is not None and not isinstance(error, AupairError):
        number = getattr(error, "errno", None)
        if number in (*_FULL, errno.EROFS):
            return int(number)
        if folder and number in _DENIED and Path(str(getattr(error, "filename", ""))).is_relative_to(folder):
            return int(number)
        for number in (*_FULL, errno.EROFS):
            if os.strerror(number) in str(error):
                return number
        if "disk is full" in str(error) or "No usable temporary directory" in str(error):  # sqlite, tempfile
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None


def unwritable_error(path: Path, error: OSError, written: int = 0, needed: int = 0) -> AupairError:
    """Return the error for a path that cannot be written.

    Args:
        written: bytes that were already written, and will be deleted.
        needed: bytes that `path` takes; 0: unknown.
    """
    got, todo = str(error.strerror or error), _TODO.get(error.errno or 0, "name another folder")
    folder = next(parent for parent in Path(path).absolute().parents if os.path.exists(parent))
    path = Path(*(part for part in Path(path).parts if not _TEMPORARY.fullmatch(part)))  # the path that the user knows
    if error.errno not in _FULL:
        return AupairError("cannot write", where=path, got=got, expected="a writable folder", todo=todo)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    needs = f"{_bytes(needed)} needed" if needed else "more is needed"
    if error.errno == errno.EFBIG and limit != resource.RLIM_INFINITY:
        return AupairError("cannot write", where=path, got=f"{got} (limit {_bytes(limit)}, {needs})", todo=todo)
    disk = os.statvfs(folder)
    if disk.f_files and not disk.f_favail and error.errno == errno.ENOSPC:
        return AupairError("cannot write", where=path, got=f"{got} (no inode is free)", todo="delete some files")
    free = _bytes(disk.f_bavail * disk.f_frsize + written)
    return AupairError("cannot write", where=path, got=f"{got} ({free} free, {needs})", todo=todo)


def _bytes(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _size(folder: Path) -> int:
    """Return the bytes that the files below a folder take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
