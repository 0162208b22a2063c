"""Bad data and bad artifacts, by the command line: one line, its exit code, nothing half-written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aupair import store
from conftest import Command, files_below
from videos import write_grey_video

Damage = Callable[[Path], object]

SHEET = "annotations/AU_Set/Train_Set/s000c0.txt"


def edit(name: str, change: Callable[[str], str]) -> Damage:
    def damage(root: Path) -> None:
        path = root / "data" / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    return damage


def cell(row: int, column: int, value: str) -> Callable[[str], str]:
    """Change one cell of an annotation file."""

    def change(text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        lines[row][column] = value
        return "\n".join(",".join(line) for line in lines) + "\n"

    return change


BAD_DATA: dict[str, tuple[Damage, str]] = {
    "missing data": (
        lambda r: shutil.rmtree(r / "data"),
        "no data folder: in data; get the demo corpus by `dvc pull -r demo data.dvc`",
    ),
    "no number": (edit(SHEET, cell(4, 3, "x")), f"not a number: in data/{SHEET}"),
    "a value outside the range": (
        edit(SHEET, cell(4, 3, "2")),
        f"a label out of range: in data/{SHEET} line 5 column AU6, got 2",
    ),
    "a subject in two splits": (
        edit("splits.csv", lambda text: text.replace("s002c0,s002,fit", "s002c0,s001,fit")),
        "a subject is in two splits: in data/splits.csv",
    ),
}
"""One of each kind: a missing file, one that cannot be parsed, a broken rule, splits; tests/data has the others."""


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused_by_check_data(fresh: Path, aupair: Command, name: str) -> None:
    damage, message = BAD_DATA[name]
    damage(fresh)
    outcome = aupair("run", "check-data")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert {path.name for path in fresh.iterdir()} <= {"data", "params.yaml", "reports"}, "no labels, no hash"
    assert not list(fresh.glob("reports/.*")), "nothing temporary"


def test_more_or_fewer_labels_than_frames_are_counted(fresh: Path, aupair: Command) -> None:
    more, fewer = fresh / "data" / SHEET, fresh / "data" / SHEET.replace("s000", "s002")
    more.write_text(more.read_text() + ",".join(["0"] * 12) + "\n")
    fewer.write_text("\n".join(fewer.read_text().splitlines()[:-4]) + "\n")
    outcome = aupair("run", "check-data")
    assert outcome.code == 0
    warning = "2 videos whose numbers of label rows and frames differ, according to the header: s000c0 (31 rows, 30 frames), s002c0"
    assert warning in outcome.err
    assert any(text.startswith(warning) for text in store.read_json(fresh / "work/data.json")["warnings"])


def test_videos_without_frames_without_faces_and_cut_off_get_a_status(home: Path, aupair: Command) -> None:
    """The header of the cut one can still be read, so that check-data lets it pass; decoding finds out."""
    videos = home / "data" / "videos"
    write_grey_video(videos / "s002c0.mp4", *[100] * 5)
    write_grey_video(videos / "s004c0.mp4")
    whole = (videos / "s006c0.mp4").read_bytes()
    (videos / "s006c0.mp4").write_bytes(whole[: len(whole) // 2])
    outcome = aupair("run", "preprocess-faces")
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    for name, status in (("s002c0", "no_face"), ("s004c0", "(empty|unreadable)"), ("s006c0", "unreadable")):
        assert sum(line.startswith(f"{name}: ") for line in outcome.err.splitlines()) == 1, "reported once"
        assert re.search(rf"^{name}: {status}: ", outcome.err, re.M), outcome.err
    faces = {name: store.read_faces(home / f"work/faces/{name}.arrow") for name in ("s000c0", "s002c0", "s004c0")}
    assert [len(table) for table in faces.values()] == [30, 5, 0]
    assert set(faces["s002c0"]["status"].to_pylist()) == {"no_face"}


def garbage(name: str) -> Damage:
    def damage(root: Path) -> None:
        assert (root / name).is_file(), name
        (root / name).write_bytes(b"garbage")

    return damage


def cut(name: str) -> Damage:
    def damage(root: Path) -> None:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])

    return damage


def gone(name: str) -> Damage:
    def damage(root: Path) -> None:
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()

    return damage


ARROW = "the faces of a video are damaged: in work/faces/s000c0.arrow"
TENSORS = "not a readable safetensors file: in work/"

BAD_ARTIFACTS: dict[str, tuple[str, Damage, str]] = {
    "labels": ("preprocess-faces", garbage("work/labels.parquet"), "not a readable parquet table: in work/labels"),
    "no labels": ("sample-pairs", gone("work/labels.parquet"), "missing input: in work/labels.parquet; run check-data"),
    "Arrow": ("sample-pairs", garbage("work/faces/s000c0.arrow"), ARROW),
    "half an Arrow": ("train-pseudo-intensity", cut("work/faces/s000c0.arrow"), ARROW),
    "no Arrow": ("sample-pairs", gone("work/faces/s000c0.arrow"), "a labelled video has no faces: in work/faces/s000"),
    "no faces": ("sample-pairs", gone("work/faces"), "missing input: in work/faces; run preprocess-faces first"),
    "pairs": ("train-pseudo-intensity", garbage("work/pairs/pairs.parquet"), "not a readable parquet table: in work/p"),
    "counts": ("train-uncertainty", cut("work/pairs/counts.json"), "not JSON: in work/pairs/counts.json"),
    "y_hat": ("train-uncertainty", garbage("work/f/0/y_hat.safetensors"), TENSORS + "f/0/y_hat"),
    "sigma": ("extract-features", cut("work/h/sigma.safetensors"), TENSORS + "h/sigma"),
    "no f": ("extract-features", gone("work/f/1"), "missing input: in work/f/1; run train-pseudo-in"),
    "features": (
        "train-mapping",
        cut("work/features/routes/raw.npy"),
        "the file is truncated or changed: in work/features/routes/raw.npy",
    ),
    "mapping": ("evaluate", cut("work/mapping/both.safetensors"), TENSORS + "mapping/both"),
    "about": ("evaluate", garbage("work/mapping/about.json"), "not JSON: in work/mapping/about"),
    "no mapping": ("evaluate", gone("work/mapping"), "missing input: in work/mapping; run train-map"),
    "no selection": ("register-model", gone("work/selection.json"), "missing input: in work/selection.json; run eval"),
    "selection": ("register-model", garbage("work/selection.json"), "not JSON: in work/selection.json"),
    "metrics": ("register-model", garbage("reports/metrics.json"), "not JSON: in reports/metrics.json"),
}


@pytest.mark.parametrize("name", BAD_ARTIFACTS)
def test_bad_artifacts_are_refused_by_who_reads_them(home: Path, aupair: Command, name: str) -> None:
    stage, damage, message = BAD_ARTIFACTS[name]
    damage(home)
    before = files_below(home)
    outcome = aupair("run", stage)
    assert outcome.code == 4, outcome.err
    assert outcome.line.startswith(message)
    assert files_below(home) == before, "nothing half-written, nothing of before lost"


@pytest.mark.parametrize(
    ("stage", "blocked"),
    [
        ("check-data", "reports"), ("check-data", "work"), ("preprocess-faces", "work/faces"),
        ("train-pseudo-intensity", "work/f"), ("evaluate", "reports"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_is_one_line(home: Path, aupair: Command, stage: str, blocked: str) -> None:
    """A file stands where the folder should be: root can write anywhere, so permissions would stop nobody in CI.

    The line is the only one: training did not start.
    """
    shutil.rmtree(home / blocked)
    (home / blocked).touch()
    before = files_below(home)
    outcome = aupair("run", stage)
    assert outcome.code == 1
    assert outcome.line.startswith(f"cannot write: in {blocked}")
    assert files_below(home) == before
