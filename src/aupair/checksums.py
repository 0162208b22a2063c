"""The checksum of an Arrow IPC file: 16 bytes between its last batch and its footer, which Arrow's readers skip.

It is verified before Arrow sees the file, since Arrow trusts offsets in it: a flipped bit of one can end the process, and one
in a JPEG is a face that looks a little different. CRC-32 finds every damage of up to 32 bits in a row, and misses one of
4 billion others.
"""

import struct
import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO

DECLARATION = "aupair.checksum"
"""The key in the metadata of a file that should have a checksum."""

_MARK = struct.Struct("<8sQ")
_NAME = b"AUPCRC32"
_TAIL = struct.Struct("<i6s")
"""The end of an IPC file: the length of its footer, and Arrow's name."""
_ARROW = b"ARROW1"
_HEAD = 2**16
"""Bytes at the start of a file among which its metadata are."""
_CHUNK = 2**20


class ChecksumError(ValueError):
    """A file that was altered after it was written; the message has the reason."""


def add_checksum(path: Path) -> None:
    """Insert the checksum into an IPC file that was just written."""
    with open(path, "r+b") as file:
        start, footer = _read_footer(file)
        checksum = zlib.crc32(footer, _crc(file, start))
        file.seek(start)
        file.write(_MARK.pack(_NAME, checksum) + footer)


def verify_checksum(path: Path) -> bool:
    """Check a file against its checksum, once in a process unless it changes; return whether it has one.

    Files of earlier versions have none.

    Raises:
        ChecksumError: the file was altered, or is no IPC file.
        OSError: it cannot be read.
    """
    status = path.stat()
    return _verify(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _verify(path: Path, *state: int) -> bool:
    """Check a file in a state, which tells whether the result that is remembered still holds."""
    with open(path, "rb") as file:
        start, footer = _read_footer(file)
        file.seek(max(0, start - _MARK.size))
        mark = file.read(_MARK.size)
        name, expected = _MARK.unpack(mark) if len(mark) == _MARK.size else (b"", 0)
        if name == _NAME:
            if zlib.crc32(footer, _crc(file, start - _MARK.size)) != expected:
                raise ChecksumError("another checksum than it was written with")
            return True
        file.seek(0)
        if DECLARATION.encode() in file.read(_HEAD):
            raise ChecksumError("no checksum, although it was written with one")
        return False


def _read_footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return where the footer of an IPC file starts, and all bytes from there to the end.

    Raises:
        ChecksumError: it is no IPC file, or its end is missing.
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
    """Return the CRC-32 of the first `end` bytes of a file, of which one chunk is in memory at a time."""
    file.seek(0)
    checksum, buffer = 0, memoryview(bytearray(_CHUNK))
    while end > 0:
        count = file.readinto(buffer[: min(_CHUNK, end)])  # type: ignore[attr-defined]
        if not count:
            break
        checksum, end = zlib.crc32(buffer[:count], checksum), end - count
    return checksum
