"""The checksum of an Arrow IPC file: 16 bytes between its last batch and its footer, which Arrow's readers skip.

It is verified before Arrow reads the file. Arrow trusts the offsets in a file, so that a flipped bit can crash the process,
and a flipped bit in a JPEG changes a face without an error. CRC-32 detects every burst of errors of up to 32 bits, and misses
one in 4 billion other errors.
"""

import struct
import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO

DECLARATION = "aupair.checksum"
"""The metadata key of a file that was written with a checksum."""

_MARK = struct.Struct("<8sQ")
_NAME = b"AUPCRC32"
_TAIL = struct.Struct("<i6s")
"""The end of an IPC file: the length of its footer, and Arrow's magic bytes."""
_ARROW = b"ARROW1"
_HEAD = 2**16
"""Number of bytes at the start of a file that contain its metadata."""
_CHUNK = 2**20


class ChecksumError(ValueError):
    """A file that was altered after it was written; the message holds the reason."""


def add_checksum(path: Path) -> None:
    """Insert the checksum into an IPC file that was just written."""
    with open(path, "r+b") as file:
        start, footer = _read_footer(file)
        checksum = zlib.crc32(footer, _crc(file, start))
        file.seek(start)
        file.write(_MARK.pack(_NAME, checksum) + footer)


def verify_checksum(path: Path) -> bool:
    """Verify a file's checksum, and return whether it has one; files of earlier versions have none.

    The result is cached in the process until the file changes.

    Raises:
        ChecksumError: the file was altered, or is not an IPC file.
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _verify(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _verify(path: Path, *state: int) -> bool:
    """Verify a file; `state` is part of the cache's key, so that a changed file is verified again."""
    with open(path, "rb") as file:
        start, footer = _read_footer(file)
        file.seek(max(0, start - _MARK.size))
        mark = file.read(_MARK.size)
        name, expected = _MARK.unpack(mark) if len(mark) == _MARK.size else (b"", 0)
        if name == _NAME:
            if zlib.crc32(footer, _crc(file, start - _MARK.size)) != expected:
                raise ChecksumError("the checksum does not match the content")
            return True
        file.seek(0)
        if DECLARATION.encode() in file.read(_HEAD):
            raise ChecksumError("the checksum is missing")
        return False


def _read_footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return the offset of the footer of an IPC file, and all bytes from there to the end.

    Raises:
        ChecksumError: it is not an IPC file, or its end is missing.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL.size))
    tail = file.read()
    length, name = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, b"")
    start = size - _TAIL.size - length
    if name != _ARROW or not len(_ARROW) <= start < size - _TAIL.size:
        raise ChecksumError("not an Arrow file, or its end is missing")
    file.seek(start)
    return start, file.read()


def _crc(file: BinaryIO, end: int) -> int:
    """Return the CRC-32 of the first `end` bytes of a file, read in chunks."""
    file.seek(0)
    checksum, buffer = 0, memoryview(bytearray(_CHUNK))
    while end > 0:
        count = file.readinto(buffer[: min(_CHUNK, end)])  # type: ignore[attr-defined]
        if not count:
            break
        checksum, end = zlib.crc32(buffer[:count], checksum), end - count
    return checksum
