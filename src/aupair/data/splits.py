"""The splits fit, select and validation in data/splits.csv (video, subject, split), by subject and balanced over AUs.

aupair split data --select .2 --validation .2 --seed 0
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aupair import store
from aupair.aus import SPLITS
from aupair.data import sheets as sh
from aupair.data.layout import Annotation, Layout, read_csv, read_layout
from aupair.errors import DataError, ParamsError

COLUMNS = ("video", "subject", "split")
_RESTARTS = 8
"""Random starts of the local search for balanced splits."""


class SplitRow(NamedTuple):
    """A row of splits.csv."""

    video: str
    subject: str
    split: str


@dataclass(frozen=True)
class SplitCounts:
    """Sizes of a split.

    Attributes:
        frames: number of label rows.
        annotated: number of label rows with the label of at least one AU.
        labelled: number of frames with a label, for each AU.
        positives: number of frames in which the AU is active, for each AU.
    """

    split: str
    subjects: int
    videos: int
    frames: int
    annotated: int
    labelled: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True)
class _SplitSummary:
    """The result of `split_data`.

    Attributes:
        path: path of splits.csv.
        written: whether this call wrote the file; False if it existed already.
        aus: names of the AUs.
        unnamed: number of videos that subjects.csv does not list; each of them counts as a different subject.
        counts: the counts of each split.
    """

    path: Path
    written: bool
    aus: tuple[str, ...]
    unnamed: int
    counts: tuple[SplitCounts, ...]

    def table(self) -> list[tuple[str, ...]]:
        """Return a header, then a row for each split with its sizes and the number of positive frames of each AU.

        For an AU that is not labelled in all annotated frames, the cell is `positives of labelled frames`.
        """
        header = ("split", "subjects", "videos", "frames", "annotated", *self.aus)
        rows = []
        for c in self.counts:
            cells = [f"{n:,}" for n in (c.subjects, c.videos, c.frames, c.annotated)]
            for positives, labelled in zip(c.positives, c.labelled):
                cells.append(f"{positives:,}" if labelled == c.annotated else f"{positives:,} of {labelled:,}")
            rows.append((c.split, *cells))
        return [header, *rows]


def split_data(
    data: Path, select: float = 0.2, seed: int = 0, overwrite: bool = False, validation: float = 0.2
) -> _SplitSummary:
    """Write splits.csv: Validation_Set becomes `validation`, and the subjects of Train_Set are split into `fit` and `select`.

    If there are no official sets, the subjects of `validation` are chosen first. An existing splits.csv is not changed
    unless `overwrite` is set.

    Args:
        select: target share of `select` in the subjects, frames and positives not in `validation`, in (0, 1).
        validation: target share of `validation` if there are no official sets, in (0, 1).

    Raises:
        DataError: unreadable annotations, a subject in both official sets, an empty set, or too few subjects.
        ParamsError: a share is out of range.
    """
    for name, share in (("select", select), ("validation", validation)):
        if not 0 < share < 1:
            raise ParamsError(f"share of {name}", got=share, expected="more than 0 and less than 1")
    layout = read_layout(data)
    labels = sh.read_sheets(layout.annotations, np.int16)
    if layout.voids_partial_rows:
        labels = labels.without_partial_rows()
    path = layout.root / "splits.csv"
    written = overwrite or not path.exists()
    if written:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [COLUMNS, *_assign_splits(layout, labels, (select, validation), seed)]
        )
        store.write_text(path, text.getvalue())
    rows = read_splits(layout)
    unnamed = sum(annotation.video not in layout.subjects for annotation in layout.annotations)
    return _SplitSummary(path, written, labels.aus, unnamed, count_splits(rows, labels))


def _assign_splits(layout: Layout, labels: sh.Sheets, shares: tuple[float, float], seed: int) -> list[SplitRow]:
    """Assign every annotated video to a split, by subject; `shares` are those of select and validation."""
    official: dict[str, Annotation] = {}
    subject_of = [layout.subject(annotation.video) for annotation in layout.annotations]
    for annotation, subject in zip(layout.annotations, subject_of):
        if official.setdefault(subject, annotation).official != annotation.official:
            raise DataError(
                "a subject is in both official sets",
                where=annotation.path,
                got=f"{subject}: also {official[subject].path}",
                expected="one set",
                todo="correct subjects.csv, or write splits.csv by hand",
            )
    train = sorted(subject for subject, first in official.items() if first.official != "validation")
    without_sets = not any(first.official for first in official.values())
    if len(train) < (3 if without_sets else 2) or (len(train) == len(official) and not without_sets):
        got = f"{len(train)} in Train_Set, {len(official) - len(train)} in Validation_Set"
        raise DataError(
            "too few subjects to split",
            where=layout.root / "annotations",
            got=f"{len(train)}" if without_sets else got,
            expected="at least 3, one for each split" if without_sets else "at least 2 and 1",
            todo="add subjects, or correct subjects.csv (a video that it does not list is a separate subject)",
        )
    if without_sets:
        held_out = _choose_subjects(_subject_shares(labels, subject_of, train), shares[1], seed, remain=2)
        train = [subject for subject, chosen in zip(train, held_out) if not chosen]
    chosen = _choose_subjects(_subject_shares(labels, subject_of, train), shares[0], seed)
    part = dict.fromkeys(official, "validation") | {s: "select" if c else "fit" for s, c in zip(train, chosen)}
    return [SplitRow(a.video, s, part[s]) for a, s in zip(layout.annotations, subject_of)]


def _choose_subjects(weights: np.ndarray, share: float, seed: int, remain: int = 1) -> np.ndarray:
    """Choose about `share` of S subjects so that they hold about `share` of every column.

    The search is local: from each of several random starts, it swaps the pair of subjects that lowers `_cost` most
    until no swap lowers it. The best result is returned.

    Args:
        weights: (S, K) float64, each subject's share of column k; a column sums to 1, or to 0 if it is empty.
        remain: the least number of subjects that are not chosen.

    Returns:
        (S,) bool, with at least one True and at least `remain` False.
    """
    columns = weights[:, weights.sum(axis=0) > 0]
    size = min(max(round(share * len(columns)), 1), len(columns) - remain)
    rng = np.random.default_rng([seed])
    best, best_cost = np.zeros(len(columns), bool), np.inf
    for _ in range(_RESTARTS):
        order = rng.permutation(len(columns))
        cost = _swap(columns, order[:size], order[size:], share)
        if cost < best_cost - 1e-12:
            best, best_cost = np.isin(np.arange(len(columns)), order[:size]), cost
    return best


def read_splits(layout: Layout) -> list[SplitRow]:
    """Read and check splits.csv of a data folder.

    Raises:
        DataError: the file is missing or lacks a column, has an unknown split, a repeated video, a subject in two splits
            or a split without a video, or does not list an annotated video.
    """
    path = layout.root / "splits.csv"
    if not path.exists():
        raise DataError("no splits file", where=path, todo=f"run `aupair split {layout.root}`")
    rows = [SplitRow(*cells) for cells in read_csv(path, COLUMNS)]
    videos: set[str] = set()
    split_of: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path} line {line}"
        if row.split not in SPLITS:
            raise DataError("unknown split", where=where, got=row.split, expected=" | ".join(SPLITS))
        if row.video in videos:
            raise DataError("a video is listed twice", where=where, got=row.video, expected="one row a video")
        if split_of.setdefault(row.subject, row.split) != row.split:
            raise DataError(
                "a subject is in two splits",
                where=where,
                got=f"{row.subject}: {row.split}",
                expected=split_of[row.subject],
                todo="use one split for all videos of a person",
            )
        videos.add(row.video)
    for name in SPLITS:
        if name not in split_of.values():
            raise DataError(
                "a split is empty", where=path, got=f"no video in {name}", todo="run `aupair split` with --overwrite"
            )
    for annotation in layout.annotations:
        if annotation.video not in videos:
            raise DataError(
                "a labelled video has no split",
                where=annotation.path,
                expected=f"a row in {path}",
                todo="add it, or run `aupair split` with --overwrite",
            )
    return rows


def count_splits(rows: list[SplitRow], labels: sh.Sheets) -> tuple[SplitCounts, ...]:
    """Count subjects, videos, frames and labels of each split; videos of `rows` without labels do not count."""
    row_of = {row.video: row for row in rows}
    split_rows = [row_of[a.video] for a in labels.annotations]
    annotated = labels.totals(labels.annotated)
    labelled, positives = labels.totals(labels.labelled), labels.totals(labels.values == 1)
    result = []
    for name in SPLITS:
        at = np.array([row.split == name for row in split_rows], bool)
        subjects = len({row.subject for row in split_rows if row.split == name})
        frames, usable_frames = int(labels.lengths[at].sum()), int(annotated[at].sum())
        of_each_au = (tuple(count[at].sum(axis=0).tolist()) for count in (labelled, positives))
        result.append(SplitCounts(name, subjects, int(at.sum()), frames, usable_frames, *of_each_au))
    return tuple(result)


def _subject_shares(labels: sh.Sheets, subject_of: list[str], train: list[str]) -> np.ndarray:
    """Return each subject's share of each AU's positives and of the annotated frames: (S, A + 1) float64.

    If the AUs are labelled in different frames, there is a column for the labelled frames of each AU: (S, 2A).
    """
    usable = labels.annotated[:, None]
    frames = usable if (labels.labelled == usable).all() else labels.labelled
    rows = np.concatenate([labels.values == 1, frames], axis=1)
    member = np.array(subject_of)[None] == np.array(train)[:, None]
    counts = member.astype(np.float64) @ labels.totals(rows)
    return counts / np.maximum(counts.sum(axis=0), 1)


def _cost(gap: np.ndarray, share: float) -> np.ndarray:
    """Return the cost of a choice, sum_k gap_k^2 with gap = held - share: (..., K) -> (...).

    An AU that few people show should be on both sides. Therefore a column costs 1 more if the chosen subjects hold none
    of it, and 2 more if they hold all of it, since the model is trained on the other subjects.
    """
    held = gap + share
    return (gap**2).sum(axis=-1) + (held < 1e-9).sum(axis=-1) + 2 * (held > 1 - 1e-9).sum(axis=-1)


def _swap(columns: np.ndarray, inside: np.ndarray, outside: np.ndarray, share: float) -> float:
    """Swap members of `inside` and `outside` in place as long as a swap lowers the cost; return the final cost."""
    cost = float(_cost(columns[inside].sum(axis=0) - share, share))
    while True:
        gap = columns[inside].sum(axis=0) - share
        costs = _cost(gap - columns[inside][:, None] + columns[outside][None], share)  # (I, O)
        i, o = np.unravel_index(int(costs.argmin()), costs.shape)
        if costs[i, o] >= cost - 1e-12:
            return cost
        cost = float(costs[i, o])
        inside[i], outside[o] = outside[o], inside[i]
