"""Tests of splits by subject: no person in two, balanced over AUs, deterministic; a supplied file wins."""

from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AFFWILD2, SPLITS
from aupair.data.layout import Layout, read_layout
from aupair.data.splits import _choose_subjects, read_splits, split_data
from aupair.errors import AupairError, DataError, ParamsError
from data.folders import write_text

HEADER = ",".join(AFFWILD2)


def make(root: Path, train: int = 30, validation: int = 4, rows: int = 60, seed: int = 0) -> Path:
    """Write videos whose AUs differ much in how often they are active; every tenth row is not annotated."""
    rng = np.random.default_rng(seed)
    for k in range(train + validation):
        part = "Train_Set" if k < train else "Validation_Set"
        values = (rng.random((rows, 12)) < rng.beta(0.3, 1.5, 12)).astype(int)
        values[::10, 3] = -1
        lines = "\n".join(",".join(map(str, row)) for row in values)
        write_text(root / "annotations" / "AU_Set" / part / f"v{k:02d}.txt", f"{HEADER}\n{lines}\n")
        write_text(root / "videos" / f"v{k:02d}.mp4", "")
    return root


def test_official_folders_and_subjects_are_respected(tmp_path: Path) -> None:
    root = make(tmp_path)
    pairs = [f"v{k:02d},person{k // 3}" for k in range(30)]
    write_text(root / "subjects.csv", "\n".join(["video,subject", *pairs]) + "\n")
    summary = split_data(root)
    rows = read_splits(read_layout(root))
    assert summary.written
    assert summary.path == root / "splits.csv"
    assert [row.video for row in rows] == [f"v{k:02d}" for k in range(34)]
    assert all((row.split == "validation") == (row.video >= "v30") for row in rows)
    by_subject = {(row.subject, row.split) for row in rows}
    assert len(by_subject) == 10 + 4, "one split a person"
    assert sum(split == "select" for _, split in by_subject) == 2, "a fifth of ten persons"


def test_summary_equals_a_loop(tmp_path: Path) -> None:
    root = make(tmp_path, train=6, validation=2, rows=25)
    summary = split_data(root, select=0.4)
    row_of = {row.video: row for row in read_splits(read_layout(root))}
    for counts in summary.counts:
        paths = [p for p in root.glob("annotations/AU_Set/*/*.txt") if row_of[p.stem].split == counts.split]
        lines = [line.split(",") for path in paths for line in path.read_text().splitlines()[1:]]
        annotated = [[int(cell) for cell in line] for line in lines if "-1" not in line]
        assert (counts.subjects, counts.videos) == (len(paths), len(paths))
        assert (counts.frames, counts.annotated) == (len(lines), len(annotated))
        assert counts.positives == tuple(map(sum, zip(*annotated)))
    assert [c.split for c in summary.counts] == list(SPLITS)
    header, *table = summary.table()
    assert len(header) == len(table[0])
    assert table[0][0] == "fit"


def test_same_seed_same_bytes_and_another_seed_another_split(tmp_path: Path) -> None:
    root = make(tmp_path, train=40, rows=12)
    path = split_data(root, seed=3).path
    first = path.read_bytes()
    split_data(root, seed=3, overwrite=True)
    assert path.read_bytes() == first
    split_data(root, seed=4, overwrite=True)
    assert path.read_bytes() != first


def test_a_supplied_file_wins_unless_overwritten(tmp_path: Path) -> None:
    root = make(tmp_path, train=4, validation=1)
    lines = ["video,subject,split", "v00,x,select", *(f"v0{k},s{k},fit" for k in (1, 2, 3)), "v04,s4,validation", ""]
    path = write_text(root / "splits.csv", "\n".join(lines))
    summary = split_data(root)
    assert not summary.written
    assert path.read_text() == "\n".join(lines)
    assert [c.videos for c in summary.counts] == [3, 1, 1]
    assert split_data(root, overwrite=True).written
    assert "v00,x,select" not in path.read_text()


def test_balance_beats_random_draws() -> None:
    rng = np.random.default_rng(0)
    counts = rng.gamma(0.3, 10.0, (60, 13))
    weights = counts / counts.sum(axis=0)
    cost = float(((weights[_choose_subjects(weights, 0.2, 0)].sum(axis=0) - 0.2) ** 2).sum())
    drawn = [((weights[rng.permutation(60)[:12]].sum(axis=0) - 0.2) ** 2).sum() for _ in range(2000)]
    assert cost < 0.5 * min(drawn)


def test_balance_equals_the_best_of_all_on_a_small_case() -> None:
    from itertools import combinations

    weights = np.random.default_rng(5).gamma(0.5, 1.0, (8, 5))
    weights /= weights.sum(axis=0)
    best = min(((weights[list(c)].sum(axis=0) - 0.25) ** 2).sum() for c in combinations(range(8), 2))
    chosen = _choose_subjects(weights, 0.25, 0)
    assert chosen.sum() == 2
    assert ((weights[chosen].sum(axis=0) - 0.25) ** 2).sum() == pytest.approx(best)


def test_an_au_of_one_person_stays_on_fit_and_two_can_be_split_at_any_share() -> None:
    weights = np.full((10, 3), 0.1)
    weights[:, 1] = np.eye(10)[4]
    weights[:, 2] = 0.0
    for seed in range(10):
        chosen = _choose_subjects(weights, 0.2, seed)
        assert not chosen[4]
        assert chosen.sum() == 2
    for share in (0.01, 0.99):
        assert _choose_subjects(np.full((2, 13), 0.5), share, 0).sum() == 1


@pytest.mark.parametrize(
    ("train", "validation", "select", "subjects", "error", "message"),
    [
        *((2, 1, share, "", ParamsError, "share of select") for share in (0.0, 1.0, float("nan"))),
        (1, 1, 0.2, "", DataError, "too few subjects to split: .*got 1 in Train_Set, 1 in"),
        (3, 0, 0.2, "", DataError, "too few subjects to split: .*got 3 in Train_Set, 0 in"),
        (
            3,
            1,
            0.2,
            "v00,x v03,x",
            DataError,
            r"a subject is in both official sets: in .*v03\.txt, got x: also .*v00\.txt",
        ),
    ],
)
def test_what_cannot_be_split_is_an_error(
    tmp_path: Path, train: int, validation: int, select: float, subjects: str, error: type[AupairError], message: str
) -> None:
    root = make(tmp_path, train=train, validation=validation, rows=2)
    if subjects:
        write_text(root / "subjects.csv", "\n".join(["video,subject", *subjects.split()]))
    with pytest.raises(error, match=f"^{message}"):
        split_data(root, select=select)
    assert not (root / "splits.csv").exists()


def test_no_splits_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no splits file: in .*splits\.csv; run `aupair split "):
        read_splits(Layout(tmp_path, (), (), {}, {}, {}))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["v,s,train"], "unknown split: in {} line 2, got train, expected fit | select | validation"),
        (["a,s,fit", "b,t,fit", "a,s,fit"], "a video is listed twice: in {} line 4, got a"),
        (["a,s,fit", "b,t,fit", "c,s,select"], "a subject is in two splits: in {} line 4, got s: select, expected fit"),
        (["a,s,fit", "b,t,validation"], "a split is empty: in {}, got no video in select"),
        ([], "a split is empty: in {}, got no video in fit"),
    ],
)
def test_bad_splits_file(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_text(tmp_path / "splits.csv", "\n".join(["video,subject,split", *lines]) + "\n")
    with pytest.raises(DataError) as caught:
        read_splits(Layout(tmp_path, (), (), {}, {}, {}))
    assert str(caught.value).startswith(message.format(path))


def test_a_supplied_file_must_cover_every_video(tmp_path: Path) -> None:
    root = make(tmp_path, train=3, validation=1, rows=2)
    write_text(root / "splits.csv", "video,subject,split\nv00,a,fit\nv01,b,select\nv03,c,validation\n")
    with pytest.raises(DataError, match=r"^a labelled video has no split: in .*v02\.txt, expected a row in"):
        split_data(root)


def test_an_au_that_few_people_show_is_on_both_sides() -> None:
    positives = np.array([13, 3, 10, 0])
    frames = np.full(4, 50)
    weights = np.stack([positives / positives.sum(), frames / frames.sum()], axis=1)
    for seed in range(5):
        chosen = _choose_subjects(weights, 0.2, seed)
        assert chosen.sum() == 1
        assert not chosen[3], "nobody would show the AU in select"


def test_an_au_of_one_person_stays_where_networks_are_trained() -> None:
    weights = np.stack([np.array([0, 1.0, 0, 0, 0]), np.full(5, 0.2)], axis=1)
    assert not any(_choose_subjects(weights, 0.4, seed)[1] for seed in range(5))
