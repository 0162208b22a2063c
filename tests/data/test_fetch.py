"""Tests of the sources and targets of a fetch, and of fetching a mounted folder."""

import os
import shutil
from pathlib import Path

import pytest

from aupair.data.fetch import FetchSummary, fetch, list_source
from aupair.errors import AupairError, DataError, ParamsError
from services.bucket import content, one_line, write


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_the_files_of_a_folder_are_hard_links(tmp_path: Path, form: str) -> None:
    files = {"a": b"a", "deep/er/b c": b"b", "empty": b""}
    source = write(tmp_path / "in put", files)
    (source / "link").symlink_to(source / "a")
    text = form.format(source if form == "{}" else str(source).replace(" ", "%20"))
    assert fetch(text, tmp_path / "out") == FetchSummary(str(source), "", 4)
    assert content(tmp_path / "out") == {**files, "link": b"a"}
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


def test_only_the_requested_items_are_linked(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{k}.mp4": b"v" * k for k in (1, 2, 3)})
    items = list_source(str(source))
    assert [(item.name, item.size, item.etag) for item in items] == [(f"{k}.mp4", k, "") for k in (1, 2, 3)]
    assert fetch(str(source), tmp_path / "out", items=items[1:]) == FetchSummary(str(source), "", 2)
    assert content(tmp_path / "out") == {"2.mp4": b"vv", "3.mp4": b"vvv"}
    write(source, {"2.mp4": b"longer"})
    with pytest.raises(DataError, match=r"changed since it was listed: in .*2\.mp4, got 6 bytes, expected 2 bytes"):
        fetch(str(source), tmp_path / "out2", items=items)
    (source / "2.mp4").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        fetch(str(source), tmp_path / "out2", items=items)
    assert not (tmp_path / "out2").exists()


def test_a_file_of_an_earlier_call_is_replaced_when_it_has_changed(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": b"one", "b": b"b"})
    items = list_source(str(source))
    (source / "b").unlink()
    with pytest.raises(DataError):
        fetch(str(source), tmp_path / "out", items=items)
    assert (tmp_path / ".out.fetching" / "whole" / "a").exists()
    for leftover in (tmp_path / ".out.fetching" / "old", tmp_path / "out"):  # as if killed while it replaced a target
        write(leftover, {"x": b"x"})
    (source / "a").unlink()
    write(source, {"a": b"two", "b": b"b"})
    fetch(str(source), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"two", "b": b"b"}


GIT = "git+https://host/repo"


@pytest.mark.parametrize(
    ("source", "arguments", "error", "message"),
    [
        ("{}/missing", {}, DataError, "no such folder: in {}/missing; check the path"),
        ("{}/empty", {}, DataError, "the folder is empty: in {}/empty; check the path"),
        ("{}/in/a", {}, DataError, "not a folder: in {}/in/a; check the path"),
        ("{}/pipe", {}, DataError, "neither a file nor a folder: in {}/pipe/special"),
        ("{}/broken", {}, DataError, "neither a file nor a folder: in {}/broken/special"),
        ("{}/to_folder", {}, DataError, "neither a file nor a folder: in {}/to_folder/special"),
        ("{}/in", {"target": "in/out"}, ParamsError, "source and target must not contain each other"),
        ("{}/in", {"target": "."}, ParamsError, "source and target must not contain each other"),
        ("{}/in", {"target": "file/out"}, AupairError, "cannot write: in {}/file/out"),
        ("{}/in", {"revision": "main"}, ParamsError, "a revision or a remote without a git source, got main"),
        ("{}/in", {"remote": "demo"}, ParamsError, "a revision or a remote without a git source, got demo"),
        ("", {}, ParamsError, "the source has an unknown form"),
        (
            "https://user:hu/sh@host/x",
            {},
            ParamsError,
            "the source has an unknown form, got 'https://host/x', expected s3:",
        ),
        ("file://host/x", {}, ParamsError, "the source has an unknown form"),
        ("git+https://host", {}, ParamsError, "not the address of a git repository"),
        ("git+file://host/x", {}, ParamsError, "not the address of a git repository"),
        ("git+git@host:repo", {}, ParamsError, "not the address of a git repository"),
        ("git+https://user:hu/sh@host/repo.git", {}, ParamsError, "not the address of a git repository"),
        ("git+ext://sh -c evil/x", {}, ParamsError, "not the address of a git repository"),
        (GIT, {"revision": "--upload-pack=evil"}, ParamsError, "not the name of a revision"),
        (GIT, {"revision": "a:b"}, ParamsError, "not the name of a revision"),
        (GIT, {"remote": "-x"}, ParamsError, "not the name of a remote"),
    ],
)
def test_bad_input_is_an_error_and_changes_nothing(
    tmp_path: Path, source: str, arguments: dict[str, str], error: type[AupairError], message: str
) -> None:
    write(tmp_path, {"in/a": b"a", "file": b"f", "pipe/a": b"", "broken/a": b"", "to_folder/a": b""})
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe" / "special")
    (tmp_path / "broken" / "special").symlink_to(tmp_path / "nothing")
    (tmp_path / "to_folder" / "special").symlink_to(tmp_path / "in")
    before = content(tmp_path)
    target = tmp_path / arguments.get("target", "out")
    options = {key: value for key, value in arguments.items() if key != "target"}
    with pytest.raises(error) as caught:
        fetch(source.format(tmp_path), target, **options)
    assert one_line(caught).startswith(message.format(tmp_path))
    assert "hu" not in one_line(caught).replace(str(tmp_path), "")
    assert content(tmp_path) == before


def test_a_git_source_cannot_be_listed() -> None:
    with pytest.raises(ParamsError, match="cannot be listed"):
        list_source(GIT)
