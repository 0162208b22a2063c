"""The corpus has the layout of Aff-Wild2 and the same bytes for any number of workers."""

import multiprocessing
import multiprocessing.dummy
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.aus import AFFWILD2, NOT_ANNOTATED
from aupair.errors import DataError
from aupair.synth import corpus, script, subject
from aupair.synth.corpus import SynthParams, synthesise
from aupair.synth.labels import coded_frames
from conftest import contents, rows_of

SMALLEST = SynthParams(subjects=4, seconds=1.0, fps=5, workers=1)
TINY = SynthParams(subjects=5, clips=2, seconds=1.2, fps=10, seed=3, workers=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "data"
    synthesise(root, TINY)
    return root


def labels(path: Path) -> np.ndarray:
    assert path.read_text().splitlines()[0] == ",".join(AFFWILD2)
    return np.loadtxt(path, delimiter=",", skiprows=1, dtype=int)


def test_same_bytes_whatever_the_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", TINY.model_copy(update={"workers": 2}))
    assert contents(tmp_path / "again") == contents(tiny)


def test_every_video_has_labels_subject_split_and_conditions(tiny: Path) -> None:
    splits = rows_of(tiny / "splits.csv")
    assert [(r["video"], r["subject"]) for r in splits] == [
        (r["video"], r["subject"]) for r in rows_of(tiny / "subjects.csv")
    ]
    assert {r["video"] for r in splits} == {p.stem for p in (tiny / "videos").iterdir()}
    frames = defaultdict(list)
    for row in rows_of(tiny / "conditions.csv"):
        frames[row["video"]].append(int(row["frame"]))
    for row in splits:
        name, folder = row["video"], "Validation_Set" if row["split"] == "validation" else "Train_Set"
        occurrence = labels(tiny / "annotations" / "AU_Set" / folder / f"{name}.txt")
        intensity = labels(tiny / "annotations" / "AU_Intensity_Set" / folder / f"{name}.txt")
        assert np.array_equal(occurrence, intensity >= 1)
        assert intensity.min() >= 0
        assert intensity.max() <= 5
        assert decoded(tiny / "videos" / f"{name}.mp4") == len(occurrence) == 12
        assert frames[name] == list(range(12))


def decoded(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_no_subject_in_two_splits_half_a_quarter_a_quarter(tiny: Path) -> None:
    splits = defaultdict(set)
    for row in rows_of(tiny / "splits.csv"):
        splits[row["subject"]].add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    counts = [corpus.split_of(k) for k in range(24)]
    assert [counts.count(s) for s in ("fit", "select", "validation")] == [12, 6, 6]


def test_conditions_are_shares_and_small_angles(tiny: Path) -> None:
    table = rows_of(tiny / "conditions.csv")
    assert list(table[0]) == ["video", "frame", "covered", *(f"hidden_{au}" for au in AFFWILD2), "yaw"]
    shares = np.array([[float(row[f"hidden_{au}"]) for au in AFFWILD2] + [float(row["covered"])] for row in table])
    assert shares.min() >= 0
    assert 0.5 < shares.max() <= 1
    assert max(abs(float(row["yaw"])) for row in table) <= script.MAX_YAW


def test_a_share_of_labels_leaves_the_movies_as_they_are(tiny: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "some", TINY.model_copy(update={"labelled": 0.25}))
    some, full = contents(tmp_path / "some"), contents(tiny)
    assert {k: v for k, v in some.items() if "annotations" not in k} == {
        k: v for k, v in full.items() if "annotations" not in k
    }
    for path in (tiny / "annotations" / "AU_Set").rglob("*.txt"):
        truth = labels(path)
        partial = labels(tmp_path / "some" / "annotations" / "occurrence" / f"{path.stem}.csv")
        levels = labels(tmp_path / "some" / "annotations" / "intensity" / f"{path.stem}.csv")
        assert np.array_equal(partial, np.where(partial == NOT_ANNOTATED, NOT_ANNOTATED, truth))
        assert np.array_equal(partial, np.where(levels == NOT_ANNOTATED, NOT_ANNOTATED, levels >= 1))


def test_other_aus_have_the_flow_s_layout(tmp_path: Path) -> None:
    synthesise(tmp_path / "own", SMALLEST.model_copy(update={"aus": ("AU43", "AU19")}))
    files = sorted(path.name for path in (tmp_path / "own" / "annotations" / "occurrence").iterdir())
    assert files == [f"s{k:03d}c0.csv" for k in range(4)]
    text = (tmp_path / "own" / "annotations" / "occurrence" / files[0]).read_text().splitlines()
    assert text[0] == "AU43,AU19"
    assert len(text) == 6
    assert list(rows_of(tmp_path / "own" / "conditions.csv")[0])[3:-1] == ["hidden_AU43", "hidden_AU19"]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 1.0])
def test_each_au_is_coded_in_stretches_of_its_own(share: float) -> None:
    times = np.arange(3000) / 10
    coded = coded_frames([0], 3, share, times)
    assert coded.mean(0) == pytest.approx(share, abs=0.02)
    if share < 1:
        starts = np.flatnonzero(np.diff(coded[:, 0].astype(int)) == 1)
        ends = np.flatnonzero(np.diff(coded[:, 0].astype(int)) == -1)
        assert (ends[ends > starts[0]][: len(starts)] - starts[: len(ends)]).min() >= 20
        assert not np.array_equal(coded[:, 0], coded[:, 1])
    assert np.array_equal(coded_frames([0], 3, share, times[900:]), coded[900:])


def test_covers_do_not_change_what_the_face_does() -> None:
    person = subject.make_subject(np.random.default_rng(0))
    clips = []
    for split in ("fit", "validation"):
        deck = script.Deck(np.random.default_rng(1))
        clips.append(corpus.plan_clip(np.random.default_rng(2), TINY, person, deck, split))
    assert np.array_equal(clips[0].intensity, clips[1].intensity)
    assert clips[0].poses == clips[1].poses
    assert np.array_equal(clips[0].light, clips[1].light)


def test_a_path_in_use_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError) as error:
        synthesise(tmp_path, TINY)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match="new or empty folder"):
        synthesise(tmp_path / "mine.txt", TINY)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use threads instead of processes: they start quickly, and a test can replace functions in them."""
    monkeypatch.setattr(corpus.multiprocessing, "get_context", lambda method: multiprocessing.dummy)


@pytest.mark.usefixtures("threads")
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(corpus, "_film", fail)
    with pytest.raises(OSError, match="disk full"):
        synthesise(tmp_path / "data", SMALLEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("threads")
def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    synthesise(tmp_path / "data", SMALLEST)
    assert len(list((tmp_path / "data" / "videos").iterdir())) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
