"""Sources and targets of a fetch: what is a source, and what becomes of a mounted folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aupair.data.fetch import FetchSummary, fetch, fetch_items, list_source
from aupair.errors import AupairError, DataError, ParamsError
from services.bucket import content, one_line, write


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_is_linked_not_copied_nor_pointed_at(tmp_path: Path, form: str) -> None:
    files = {"a": b"a", "deep/er/b c": b"b", "empty": b""}
    source = write(tmp_path / "in put", files)
    text = form.format(source if form == "{}" else str(source).replace(" ", "%20"))
    assert fetch(text, tmp_path / "out") == FetchSummary(str(source), "", 3, 2)
    assert content(tmp_path / "out") == files
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert (tmp_path / "out" / "a").stat().st_ino == (source / "a").stat().st_ino
    assert sorted(os.listdir(tmp_path)) == ["in put", "out"]


def test_another_file_system_gets_copies(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to copy to")
    source, out = write(tmp_path / "in", {"a": b"a", "b/c": b"c"}), other / f"aupair-{os.getpid()}" / "out"
    try:
        fetch(str(source), out)
        assert content(out) == {"a": b"a", "b/c": b"c"}
        assert (out / "a").stat().st_ino != (source / "a").stat().st_ino
        assert os.listdir(out.parent) == ["out"]
    finally:
        shutil.rmtree(out.parent)


def test_links_to_files_become_files(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"a"})
    write(tmp_path, {"elsewhere": b"e"})
    (source / "link").symlink_to(tmp_path / "elsewhere")
    fetch(str(source), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"a", "link": b"e"}
    assert not (tmp_path / "out" / "link").is_symlink()


@pytest.mark.parametrize("kind", ["folder", "nothing", "pipe"])
def test_what_is_no_file_is_not_left_out_in_silence(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / "in", {"a": b"a"})
    if kind == "pipe":
        os.mkfifo(source / "odd")
    else:
        (source / "odd").symlink_to(tmp_path if kind == "folder" else tmp_path / "nothing")
    with pytest.raises(DataError, match=r"neither a file nor a folder: in .*/odd"):
        fetch(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_an_empty_and_no_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    write(tmp_path, {"file": b"f"})
    for name, told in (("nix", "no such folder"), ("empty", "an empty folder"), ("file", "not a folder")):
        with pytest.raises(DataError, match=f"{told}: in {tmp_path / name}; check the path") as caught:
            fetch(str(tmp_path / name), tmp_path / "out")
        one_line(caught)
    assert sorted(os.listdir(tmp_path)) == ["empty", "file"]


def test_only_the_items_that_were_asked_for_are_linked(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{k}.mp4": b"v" * k for k in (1, 2, 3)})
    items = list_source(str(source))
    assert [(item.name, item.size, item.etag) for item in items] == [(f"{k}.mp4", k, "") for k in (1, 2, 3)]
    assert fetch_items(str(source), items[1:], tmp_path / "out") == FetchSummary(str(source), "", 2, 5)
    assert content(tmp_path / "out") == {"2.mp4": b"vv", "3.mp4": b"vvv"}
    write(source, {"2.mp4": b"longer"})
    with pytest.raises(DataError, match=r"changed since it was listed: in .*2\.mp4, got 6 bytes, expected 2 bytes"):
        fetch_items(str(source), items, tmp_path / "out2")
    (source / "2.mp4").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        fetch_items(str(source), items, tmp_path / "out2")
    with pytest.raises(ParamsError, match="no items"):
        fetch_items(str(source), [], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_link_that_was_begun_is_not_kept_when_the_file_changed(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"one", "b": b"b"})
    items = list_source(str(source))
    (source / "b").unlink()
    with pytest.raises(DataError):
        fetch_items(str(source), items, tmp_path / "out")
    assert (tmp_path / ".out.fetching" / "whole" / "a").exists()
    for left in (tmp_path / ".out.fetching" / "old", tmp_path / "out"):  # as if killed while it replaced a target
        write(left, {"x": b"x"})
    (source / "a").unlink()
    write(source, {"a": b"two", "b": b"b"})
    fetch(str(source), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"two", "b": b"b"}


@pytest.mark.parametrize("target", ["in/out", "in", "."])
def test_a_target_in_the_source_is_refused(tmp_path: Path, target: str) -> None:
    source = write(tmp_path / "in", {"a": b"a"})
    with pytest.raises(ParamsError, match="lie in each other"):
        fetch(str(source), tmp_path / target)
    assert content(tmp_path) == {"in/a": b"a"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "unknown form"),
        ("S3://bucket/x", "unknown form"),
        ("gs://bucket/x", "unknown form.*s3://bucket/prefix"),
        ("https://user:hu/sh@host/repo.git", r"unknown form.*git\+https"),
        ("file://host/x", "on another host"),
        ("git+https://host", "not the address of a git repository"),
        ("git+file://host/x", "not the address of a git repository"),
        ("git+git@host:repo", "not the address of a git repository"),
        ("git+https://host/repo.git@main", "name a branch, tag or commit as the revision"),
        ("git+https://user:hu/sh@host/repo.git", "write / in a password as %2F"),
        ("git+ext://sh -c evil", "unknown form|not the address"),
    ],
)
def test_a_source_of_no_known_form_is_told(tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(ParamsError, match=told) as caught:
        fetch(source, tmp_path / "out")
    assert "hu" not in one_line(caught)
    assert os.listdir(tmp_path) == []


def test_arguments_that_do_not_fit_are_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"a"})
    cases: list[dict[str, Any]] = [{"revision": "main"}, {"remote": "demo"}]
    for arguments in cases:
        with pytest.raises(ParamsError, match="without a git source"):
            fetch(str(source), tmp_path / "out", **arguments)
    cases = [{"revision": "--upload-pack=evil"}, {"remote": "-x"}, {"revision": "a b"}, {"revision": "a:b"}]
    for arguments in cases:
        with pytest.raises(ParamsError, match="not the name of a re"):
            fetch("git+https://host/repo", tmp_path / "out", **arguments)
    with pytest.raises(ParamsError, match="cannot be listed"):
        list_source("git+https://host/repo")


def test_a_target_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"a"})
    write(tmp_path, {"file": b"f"})
    with pytest.raises(AupairError, match="cannot write"):
        fetch(str(source), tmp_path / "file" / "out")
