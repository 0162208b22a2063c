"""Names that look like paths, markup or line breaks, links, and folders of many videos."""

import html
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from aupair import store
from aupair.data.checks import check_data_folder
from aupair.data.corpus import read_corpus
from aupair.data.layout import EXTENSIONS
from aupair.errors import DataError, scrub
from aupair.params import CheckData
from conftest import Command, files_below
from videos import write_grey_video

EVIL = "<img src=x onerror=alert(1)>"


def rename_video(data: Path, old: str, new: str) -> None:
    """Rename a video with its annotations, and its rows in the tables."""
    for path in [*data.rglob(f"{old}.*")]:
        path.rename(path.with_name(new + path.suffix))
    for table in ("splits.csv", "subjects.csv", "conditions.csv"):
        text = (data / table).read_text()
        quoted = '"' + new.replace('"', '""') + '"'
        (data / table).write_text(text.replace(f"{old},", f"{quoted},"))


def check(data: Path, out: Path) -> Path:
    """Run check-data; return its Data Docs."""
    check_data_folder(data, labels=out / "labels.parquet", info=out / "i.json", docs=out / "docs", params=CheckData())
    return out / "docs"


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "data"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [EVIL, "{{ 7*7 }}"])
def test_a_broken_rule_shows_an_evil_name_as_text(name: str, data: Path, tmp_path: Path) -> None:
    rename_video(data, "s000c0", name)
    sheet = next(path for path in (data / "annotations" / "AU_Set").rglob("*.txt") if path.stem == name)
    header, first, *rest = sheet.read_text().splitlines()
    sheet.write_text("\n".join([header, first.replace("0", "7"), *rest]) + "\n")
    with pytest.raises(DataError) as caught:
        check(data, tmp_path)
    assert "a label out of range" in str(caught.value)
    assert str(caught.value).isprintable()
    pages = [path.read_text() for path in (tmp_path / "docs").rglob("*.html")]
    assert pages
    assert not any("<img src=x" in page for page in pages)
    assert any(html.escape(name) in page for page in pages)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1b[31mb", "a\u2028b", "a\x7fb"])
def test_a_name_with_a_line_break_or_a_control_character_is_refused_in_a_line(
    name: str, data: Path, tmp_path: Path
) -> None:
    rename_video(data, "s000c0", name)
    with pytest.raises(DataError) as caught:
        read_corpus(data)
    assert str(caught.value).isprintable()
    assert "a name with a line break or another character that cannot be printed" in str(caught.value)


@pytest.mark.parametrize("name", ["a,b;c d", "%s$(id)'\"", "\u202efdp", "-rf", "..", "\u0928\u092e\u0938\u094d"])
def test_any_other_name_is_read(name: str, data: Path) -> None:
    rename_video(data, "s000c0", name)
    read = read_corpus(data)
    assert name in {row.video for row in read.rows}
    assert all(header is not None for header in read.headers)


@pytest.mark.parametrize("name", ["../../s000c0", "/etc/passwd", "..", "videos/s000c0.mp4"])
def test_a_path_in_a_table_is_a_name_like_any_other(name: str, data: Path) -> None:
    """It names no video of the folder, so that it has no effect, or the video that it replaced lacks its row."""
    for table in ("subjects.csv", "splits.csv"):
        text = (data / table).read_text()
        (data / table).write_text(text.replace("s000c0,", f"{name},"))
        if table == "splits.csv":
            with pytest.raises(DataError, match="a labelled video has no split"):
                read_corpus(data)
        else:
            assert read_corpus(data).layout.subject("s000c0") == "s000c0"


@pytest.mark.parametrize("name", ["../outside", "..", "/etc/passwd", "a/../../outside", "..\\outside"])
def test_a_path_in_an_imported_table_writes_nothing_elsewhere(name: str, tmp_path: Path, aupair: Command) -> None:
    source = tmp_path / "source"
    write_grey_video(source / "a.mp4", *range(0, 250, 10))
    write_grey_video(tmp_path / "outside.mp4", *range(0, 250, 10))
    (source / "labels.csv").write_text("video,frame,AU1\n" + "".join(f"{name},{k},1\n" for k in range(25)))
    before = set(files_below(tmp_path))
    outcome = aupair("import", "csv", source / "labels.csv", "--out", tmp_path / "data")
    assert outcome.code == 3, outcome.out
    assert outcome.line
    assert set(files_below(tmp_path)) == before


def test_links_to_videos_are_followed_and_broken_ones_are_missing_videos(data: Path, tmp_path: Path) -> None:
    video = next(path for path in (data / "videos").iterdir() if path.suffix in EXTENSIONS)
    video.rename(tmp_path / "elsewhere.mp4")
    video.symlink_to(tmp_path / "elsewhere.mp4")
    assert None not in read_corpus(data).headers
    for target in ("nowhere.mp4", video.name):
        video.unlink()
        video.symlink_to(target)
        assert read_corpus(data).headers.count(None) == 1


OPEN_ALL = """
import resource, sys
from pathlib import Path
from aupair import store

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
tables = [store.read_faces(path) for path in Path(sys.argv[1]).iterdir()]
print(sum(len(table) for table in tables))
"""


def test_a_thousand_videos_do_not_need_a_thousand_open_files(tmp_path: Path) -> None:
    row = {field.name: pa.nulls(1, field.type) for field in store.FACES_SCHEMA}
    store.write_faces(tmp_path / "0.arrow", [row], {})
    for k in range(1, 1100):
        os.link(tmp_path / "0.arrow", tmp_path / f"{k}.arrow")
    done = subprocess.run([sys.executable, "-c", OPEN_ALL, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "1100\n", done.stderr


def test_the_line_of_an_error_is_short_and_printable() -> None:
    line = str(DataError("wrong", where="a\x1b[31m\u202e\nb", got="\0" * 10_000, expected="\ud800", todo="look"))
    assert line.isprintable()
    assert line.startswith(r"wrong: in a\x1b[31m\u202e b, got \x00\x00")
    assert line.endswith(r"expected \ud800; look")
    assert len(line) < 700


def test_a_password_with_a_space_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:sp ace@host:1/x")
    assert scrub("no answer from https://user:sp ace@host:1/x") == "no answer from https://host:1/x"
