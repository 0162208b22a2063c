"""Disks that are full, have no inode free, or are read-only, and limits on the size of files."""

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attack.kills import Killed, in_folder, read_outputs, reset
from attack.sandbox import Verdict, run
from conftest import contents

CAUSES = ("a limit of file size", "a full disk", "no inode", "a read-only disk")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a disk in memory at `folder` until the block ends; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()[:80]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a small disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


class Patient:
    """A command in a folder, which runs while something of the system is missing, and again when it is there."""

    def __init__(self, command: Killed, template: Path, disk: Path) -> None:
        self._command, self._template, self._folder = command, template, disk / "folder"
        reset(self._folder, template, command.outputs)
        verdict = run(in_folder, self._folder, command.start)
        assert verdict.kind == "accepted", f"without a fault: {verdict.kind}: {verdict.detail}"
        self._expected = read_outputs(self._folder, command.outputs)

    def attack(self, cause: str, rng: random.Random, disk: Path) -> Verdict:
        """Run the command under a fault, and then without it.

        Raises:
            AssertionError: an output is half-written, something temporary was left, or the second run differs.
        """
        command, folder = self._command, self._folder
        reset(folder, self._template, command.outputs)
        before = contents(folder)
        expected = self._expected
        size = max(map(len, expected.values()), default=20_000)
        if cause == "a limit of file size":
            verdict = run(_limited, int(rng.uniform(0, size)), folder, command.start)
        else:
            used = os.statvfs(disk)
            kilobytes = (used.f_blocks - used.f_bfree) * used.f_frsize // 1024 + rng.randint(4, 4 + size // 1024)
            options = {"a full disk": f"size={kilobytes}k", "no inode": f"nr_inodes={used.f_files - used.f_ffree + 1}"}
            remount(disk, options.get(cause, "ro"))
            verdict = run(in_folder, folder, command.start)
            remount(disk, "rw,size=1g,nr_inodes=100000")
        at = f"{cause}: {verdict.kind}: {verdict.detail}"
        assert not verdict.failed, at
        self._check_whole(before, at)
        if verdict.kind == "refused":
            again = run(in_folder, folder, command.end or command.start)
            assert again.kind == "accepted", f"after {at}: {again.kind}: {again.detail}"
        outputs = read_outputs(folder, command.outputs)
        assert outputs == expected, f"after {at}: other bytes"
        return verdict

    def _check_whole(self, before: dict[str, bytes], at: str) -> None:
        """Check that nothing temporary is left, and that each output is whole or not there."""
        left = [path for path in self._folder.rglob("*") if path.name.startswith(".") and path.name.endswith(".tmp")]
        assert not left, f"{at}: left {left}"
        for name, data in read_outputs(self._folder, self._command.outputs).items():
            assert self._expected.get(name) == data, f"{at}: half-written {name}"
        tables = {path.stem for path in self._folder.glob("predictions/*.csv")} - {"summary"}
        pictures = {path.stem for path in self._folder.glob("predictions/*.png")}
        assert tables <= pictures, f"{at}: tables without pictures: {tables - pictures}"
        changed = [
            name for name, data in before.items() if name.startswith("data/") and _read(self._folder / name) != data
        ]
        assert not changed, f"{at}: changed {changed[:3]}"


def clear(disk: Path) -> None:
    """Empty a folder."""
    for path in disk.iterdir():
        shutil.rmtree(path)


def _limited(limit: int, folder: Path, call: Callable[[], object]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    in_folder(folder, call)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
