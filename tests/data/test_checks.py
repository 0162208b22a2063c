"""Tests of check-data on generated folders: a good one, every breach that stops it, and the warnings."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aupair import store
from aupair.aus import AFFWILD2
from aupair.data.hashing import dvc_hash
from aupair.data.layout import list_video_jobs
from aupair.data.splits import SplitCounts
from aupair.data.suites import validate_tables
from aupair.data.warnings_ import _few_positives
from aupair.errors import DataError
from data.folders import run_check, write_movie, write_sheet
from listener import Listener
from services.chromium import chromium

ROWS = 8
SETS = {"a": "Train_Set", "b_left": "Train_Set", "b_right": "Train_Set", "c": "Train_Set", "d": "Validation_Set"}
SPLITS = "video,subject,split\na,anna,fit\nb_left,bo,fit\nb_right,bea,select\nc,anna,fit\nd,dan,validation\n"


def sheet(root: Path, video: str, values: np.ndarray, folder: str = "AU_Set") -> Path:
    return write_sheet(root / "annotations" / folder / SETS[video] / f"{video}.txt", values)


def values_of(video: str) -> np.ndarray:
    """Return labels with half of the frames active for each AU, so that every split has positives."""
    half = np.repeat([[0], [1]], ROWS // 2, axis=0).repeat(12, axis=1)
    return np.random.default_rng([*video.encode()]).permuted(half, axis=0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good") / "data"
    for name in ("a.mp4", "b.mp4", "c.avi", "d.mp4"):
        write_movie(root / "videos" / name, ROWS)
    for video in SETS:
        sheet(root, video, values_of(video))
    (root / "splits.csv").write_text(SPLITS)
    return root


@pytest.fixture
def data(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def test_a_good_folder(data: Path) -> None:
    sheet(data, "c", np.where(np.eye(ROWS, 12), -1, values_of("c")))
    sheet(data, "c", np.full((ROWS, 12), 2.5), "AU_Intensity_Set")
    log = Listener()
    labels, info, docs = run_check(data, log)
    table = store.read_table(labels)
    assert table.column_names == ["video", "subject", "split", "frame", "time", *AFFWILD2]
    subject = {line.split(",")[0]: line.split(",")[1:] for line in SPLITS.splitlines()}
    expected = [
        (video, *subject[video], frame, frame / 25, *([-1] * 12 if video == "c" else values_of(video)[frame]))
        for video in sorted(SETS)
        for frame in range(ROWS)
    ]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
    assert {str(table[au].type) for au in AFFWILD2} == {"int8"}
    record = store.read_json(info)
    assert record["md5"] == dvc_hash(data)
    fit = record["counts"]["fit"]
    assert (fit["subjects"], fit["videos"], fit["frames"], fit["annotated"]) == (2, 3, 3 * ROWS, 2 * ROWS)
    assert fit["positives"]["AU4"] == values_of("a")[:, 2].sum() + values_of("b_left")[:, 2].sum()
    assert record["warnings"] == log.lines == [f"{ROWS} of {5 * ROWS} label rows are not annotated"]
    page, names = (docs / "index.html").read_text(), ("videos", "annotations", "intensities", "annotated", "positives")
    assert "All rules passed." in page
    assert "<b>check-data</b>" in page, "the name of the run"
    for folder in ("expectations", "validations"):
        assert {path.stem for path in (docs / folder).iterdir()} == set(names)
    for name in names:
        validation = store.read_json(docs / "validations" / f"{name}.json")
        assert (validation["run_name"], validation["data_asset_name"]) == ("check-data", name)
        assert validation["success"]
        assert f'<section id="{name}">' in page
        for rule in validation["results"]:
            assert f'<th scope="row">{rule["description"]}</th><td><span class="right">' in page
    assert [(job.name, job.source.name, job.side) for job in list_video_jobs(data, labels)] == [
        ("a", "a.mp4", ""), ("b_left", "b.mp4", "left"), ("b_right", "b.mp4", "right"), ("c", "c.avi", ""), ("d", "d.mp4", ""),
    ]  # fmt: skip


def test_irregularities_are_warnings(data: Path) -> None:
    sheet(data, "a", values_of("a")[:5])
    sheet(data, "c", values_of("c")[:0])
    sheet(data, "a", np.zeros((3, 12)), "AU_Intensity_Set")
    shutil.copy(data / "videos" / "a.mp4", data / "videos" / "z.mp4")
    (data / "videos" / "b.mp4").write_text("broken")
    (data / "splits.csv").write_text(SPLITS.replace("b_right,bea,select", "b_right,bea,fit") + "d2,x,fit\ne,y,select\n")
    (data / "subjects.csv").write_text("video,subject\nd,doris\n")
    shutil.copy(data / "videos" / "a.mp4", data / "videos" / "e.mp4")
    write_sheet(data / "annotations" / "AU_Set" / "Validation_Set" / "e.txt", values_of("a"))
    log = Listener()
    labels, info, _ = run_check(data, log, max_missing_videos=2, few_positives=3)
    assert set(store.read_table(labels)["video"].to_pylist()) == {"a", "d", "e"}
    warnings = store.read_json(info)["warnings"]
    assert warnings == log.lines
    for start in (
        "2 labelled videos without a readable file, left out: b_left, b_right",
        f"2 videos whose numbers of label rows and frames differ, according to the header: a (5 rows, {ROWS} frames), c (0 rows",
        "1 annotation files without a row: c",
        "1 movies without an annotation: z",
        "1 rows of splits.csv without an annotation: d2",
        "1 videos whose split differs from their official set: e",
        "1 videos whose subject differs between splits.csv and subjects.csv: d",
        "1 intensity files with another number of rows than the occurrence file: a (3, 5)",
    ):
        assert any(line.startswith(start) for line in warnings), (start, warnings)
    assert len(warnings) == 8 + len([line for line in warnings if "positive frames" in line])


def test_aus_with_few_positives_are_named_by_split() -> None:
    counts = tuple(
        SplitCounts(split, 1, 1, 9, 9, (9,) * 12, (5,) * 10 + few)
        for split, few in (("fit", (0, 4)), ("select", (5, 5)))
    )
    assert _few_positives(counts, AFFWILD2, 5) == ["2 AUs with fewer than 5 positive frames in fit: AU25 (0), AU26 (4)"]
    assert _few_positives(counts, AFFWILD2, 0) == []
    assert [line.count(" (5)") for line in _few_positives(counts, AFFWILD2, 6)] == [10, 12], "all are named"


def value(video: str, row: int, column: int, number: float, folder: str = "AU_Set") -> Callable[[Path], None]:
    """Change one value of a sheet; intensities are 5 elsewhere."""

    def breach(data: Path) -> None:
        values = values_of(video) + 0.0 if folder == "AU_Set" else np.full((ROWS, 12), 5.0)
        values[row, column] = number
        sheet(data, video, values, folder)

    return breach


def never_active(data: Path) -> None:
    for video in ("a", "b_left", "c"):
        values = values_of(video)
        values[:, AFFWILD2.index("AU15")] = 0
        sheet(data, video, values)


def never_annotated(data: Path) -> None:
    for video in SETS:
        sheet(data, video, np.full((ROWS, 12), -1))


BREACHES: dict[str, tuple[Callable[[Path], None], str]] = {
    "files": (
        lambda d: [(d / "videos" / name).unlink() for name in ("c.avi", "a.mp4")] and None,
        "a labelled video has no file: in {}/annotations/AU_Set/Train_Set/a.txt, got no readable movie, no crops of a "
        "(and 1 more), expected at most 0 missing; add the file, or raise check_data.max_missing_videos",
    ),
    "broken": (
        lambda d: (d / "videos/b.mp4").write_text("x") and None,
        "a labelled video cannot be opened: in {}/videos/b.mp4",
    ),
    "label 3": (
        value("c", 4, 7, 3),
        "a label out of range: in {}/annotations/AU_Set/Train_Set/c.txt line 6 column AU15, got 3, expected -1, 0 or 1",
    ),
    **{
        f"intensity {number}": (
            value("c", 7, 11, float(number), "AU_Intensity_Set"),
            "a label out of range: in {}/annotations/AU_Intensity_Set/Train_Set/c.txt line 9 column AU26, "
            f"got {number}, expected -1 or 0 to 5",
        )
        for number in ("5.5", "-0.5", "inf")
    },
    "positive": (never_active, "an AU without a positive: in {}/splits.csv, got AU15: 0 of 24 annotated frames of fit"),
    "annotated": (never_annotated, "no annotated frame: in {}/annotations/AU_Set, got 40 label rows, none annotated"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_rule_stops_after_the_data_docs(data: Path, name: str) -> None:
    breach, message = BREACHES[name]
    breach(data)
    with pytest.raises(DataError) as caught:
        run_check(data)
    assert str(caught.value).startswith(message.format(data))
    assert "\n" not in str(caught.value)
    out = data.parent / "out"
    assert [path.name for path in out.iterdir()] == ["docs"], "no labels, no info, nothing temporary"
    page = (out / "docs" / "index.html").read_text()
    assert '<span class="error">✗ 1 failed</span>' in page
    assert "check-data stopped" in page
    assert "http" not in page.replace("http-equiv", "")


def test_running_again_replaces_all_by_equal_bytes(data: Path) -> None:
    def content() -> dict[str, bytes]:
        out = data.parent / "out"
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    paths = run_check(data)
    first = content()
    (data.parent / "out" / "docs" / "old.html").write_text("of an earlier run")
    assert run_check(data) == paths
    assert content() == first, "labels, info and Data Docs: no time, no random identifier"


def test_words_of_the_data_are_escaped_and_the_page_needs_no_network(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    table = pd.DataFrame({"file": [evil, "b.txt"], "line": [2, 3], "AU1": [7, 1], "AU2": [0, 1]})
    (error,) = validate_tables({"annotations": table}, tmp_path / "docs")
    assert str(error) == f"a label out of range: in {evil} line 2 column AU1, got 7, expected -1, 0 or 1"
    index = tmp_path / "docs" / "index.html"
    assert "<script" not in index.read_text()
    assert "AU1 7, file &lt;script&gt;alert(1)&lt;/script&gt;, line 2" in index.read_text()
    with chromium() as tab:
        for width in (1280, 390):
            tab.open(index, width)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints == []
        assert {address for address in tab.requests if not address.startswith("data:")} == {index.resolve().as_uri()}
