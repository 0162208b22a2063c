"""What tests that fetch from a bucket share: how patient they are, what they upload, how the server leaves."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from aupair.data.staging import Patience
from aupair.errors import AupairError
from aupair.log import Log
from services.flaky import Flaky

T = TypeVar("T")
BUCKET = "videos"
QUICK = Patience(attempts=3, backoff=0.02, timeout=2.0)
HASTY = Patience(attempts=1, backoff=0.02, timeout=1.0)
SLACK = 500_000
"""Bytes of headers, listings and lost blocks; the objects are larger."""


class Heard(Log):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counted: list[tuple[int, str]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        count = 0
        for count, item in enumerate(items, 1):  # noqa: B007
            yield item
        self.counted.append((count, what))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def one_line(error: pytest.ExceptionInfo[AupairError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def size(folder: Path) -> int:
    """Give the bytes on the disk; files may vanish meanwhile."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


def leave(proxy: Flaky, folder: Path, enough: Callable[[], bool]) -> None:
    """Make the server go away, once, when the folder has enough; until then it runs little ahead of the folder."""
    end, turn, gone = time.monotonic() + 20, threading.Lock(), threading.Event()

    def pass_on(data: bytes) -> bytes:
        while True:
            with turn:
                if not gone.is_set() and enough():
                    gone.set()
                    proxy.go_away()
            if gone.is_set() or proxy.received <= size(folder) + 500_000 or time.monotonic() > end:
                return data
            time.sleep(0.005)

    proxy.rewrite = pass_on


def come_back(proxy: Flaky) -> None:
    proxy.rewrite, proxy.received = bytes, 0
    proxy.requests.clear()
    proxy.listen()


def split(source: str) -> tuple[str, str]:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    return bucket, prefix
