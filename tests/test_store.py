"""File formats: what hashes rely on."""

import errno
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.disk import exclusive
from aupair.errors import AupairError


def test_the_same_arrays_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    """Strings beside the arrays would be written in another order each time, so that there are none."""
    arrays = {f"layer{k}.weight": np.full((2, 3), k, np.float32) for k in range(9)} | {"count": np.array([7])}
    store.write_arrays(tmp_path / "a", arrays)
    store.write_arrays(tmp_path / "b", dict(reversed(arrays.items())))
    written = (tmp_path / "a").read_bytes()
    assert written == (tmp_path / "b").read_bytes()
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert set(header) == set(arrays)
    assert all((values == arrays[name]).all() for name, values in store.read_arrays(tmp_path / "a").items())


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.EACCES, "check its permissions"),
        (errno.ENOTDIR, "name another folder"),
        (errno.EEXIST, "name another folder"),
    ],
)
def test_what_to_do_follows_from_why_it_cannot_be_written(number: int, todo: str) -> None:
    with pytest.raises(AupairError, match=f"^cannot write: in p, got so, expected a writable folder; {todo}$"):
        with store.writing(Path("p")):
            raise OSError(number, "so")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors has it
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_was_writing(tmp_path: Path, error: Exception) -> None:
    line = (
        rf"^cannot write: in {tmp_path}/a, got No space left on device \([\d,.]+ MB free, more is needed\); make room$"
    )

    def write() -> None:
        with store.atomic(tmp_path / "a") as temporary, store.atomic(temporary) as inner:
            inner.write_text("half")
            raise error

    with pytest.raises(AupairError, match=line):  # the message names the place that the user knows
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_kind_passes_unchanged(tmp_path: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "a file that is read")
    for error in (ValueError("no"), refused):
        with pytest.raises(type(error)) as caught, store.atomic(tmp_path / "a"):
            raise error
        assert caught.value is error


def test_leftovers_of_killed_processes_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from aupair.disk import atomic

with atomic(Path("a")) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""
    with (
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as killed,
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as running,
    ):
        try:
            for process in (killed, running):
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
            (tmp_path / ".a.fetching").mkdir()  # a folder of another kind
            assert len(list(tmp_path.iterdir())) == 3
            killed.kill()
            killed.wait()
            store.write_text(tmp_path / "b", "whole")
            assert sorted(path.name[:3] for path in tmp_path.iterdir()) == [".a.", ".a.", "b"]
            assert [path.read_text() for path in tmp_path.glob(".a.*.tmp/a")] == ["half"], "of the running process"
        finally:
            running.kill()


def test_a_file_in_the_way_is_found_and_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    for write in (store.check_writable, lambda path: store.write_text(path, "")):
        for below in ("a", "deep/a"):
            with pytest.raises(AupairError, match=r"cannot write: in .*; name another folder"):
                write(tmp_path / "file" / below)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_has_lists_of_numbers_on_one_line_and_everything_else_as_before(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, 1e-9], "b": [[1], []], "c": ["[\n  1\n]", "x"], "d": [True], "e": [{"f": [3]}]}
    store.write_json(tmp_path / "a.json", value)
    assert store.read_json(tmp_path / "a.json") == value
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert '  "a": [1, -2.5, null, 1e-09],' in lines
    assert '      "f": [3]' in lines


def test_two_that_replace_a_folder_at_once_leave_a_whole_one(tmp_path: Path) -> None:
    def replace(name: str) -> None:
        for _ in range(200):
            with store.atomic(tmp_path / "folder") as folder:
                folder.mkdir()
                for k in range(3):
                    (folder / f"{k}").write_text(name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(replace, "abc"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert len({path.read_text() for path in (tmp_path / "folder").iterdir()}) == 1
    assert len(list((tmp_path / "folder").iterdir())) == 3


def test_a_locked_folder_is_waited_for_although_it_is_removed_meanwhile(tmp_path: Path) -> None:
    events: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with exclusive(tmp_path / "folder", waits.set):
            events.append("second")
            assert (tmp_path / "folder").is_dir()

    with ThreadPoolExecutor(1) as pool:
        with exclusive(tmp_path / "folder", lambda: events.append("the first one waits")):
            result = pool.submit(second)
            assert waits.wait(60)
            (tmp_path / "folder").rmdir()
            events.append("first")
        result.result(60)
    assert events == ["first", "second"]
