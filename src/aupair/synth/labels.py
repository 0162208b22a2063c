"""The labels of a synthetic corpus: the stretches that are coded, the annotation files, and tables to import."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.synth.options import Coder
from aupair.synth.script import Event

STRETCH = 2.0
"""length of a coded stretch, seconds"""
OFFICIAL = {"fit": "Train_Set", "select": "Train_Set", "validation": "Validation_Set"}
"""folder of each split in Aff-Wild2's layout"""


def coded_frames(seed: Sequence[int], count: int, share: float, times: np.ndarray) -> np.ndarray:
    """Draw the frames in which each AU is coded, in stretches that differ between AUs.

    In every period of STRETCH / share seconds, one stretch at a random time is coded.

    Args:
        seed: equal seeds give equal stretches, whatever the times.
        count: number of AUs, A.
        share: fraction of the frames that are coded, in (0, 1].
        times: (N,) seconds, at least 0.

    Returns:
        (N, A) bool.
    """
    if share == 1:
        return np.ones((len(times), count), bool)
    period = STRETCH / share
    number = (times / period).astype(int)
    delays = np.random.default_rng(seed).uniform(0, period - STRETCH, (number.max() + 1, count))
    since = times[:, None] - number[:, None] * period - delays[number]
    return (since >= 0) & (since < STRETCH)


def code_events(rng: np.random.Generator, events: Sequence[Event], coder: Coder) -> list[Event]:
    """Return the events with the errors of the coder: shifted onsets and offsets, and missed events."""
    seen = rng.random(len(events)) >= coder.missed
    shifts = coder.shift * rng.standard_normal((len(events), 2))
    return [
        replace(event, start=event.start + begin, hold=max(0.0, event.hold + end - begin))
        for event, is_seen, (begin, end) in zip(events, seen.tolist(), shifts.tolist())
        if is_seen
    ]


def write_labels(annotations: Path, video: str, aus: Sequence[str], levels: np.ndarray, coded: np.ndarray) -> None:
    """Write a video's occurrences and intensities in the general layout; an AU that is not coded is -1.

    Args:
        levels: (N, A) int, intensity 0..5.
        coded: (N, A) bool.
    """
    for kind, values in (("occurrence", (levels >= 1).astype(int)), ("intensity", levels)):
        _write_values(annotations / kind / f"{video}.csv", aus, np.where(coded, values, NOT_ANNOTATED))


def write_official_labels(annotations: Path, video: str, aus: Sequence[str], levels: np.ndarray, split: str) -> None:
    """Write a video's occurrences and intensities in Aff-Wild2's layout; `levels` is (N, A) int, 0..5."""
    for kind, values in (("AU_Set", (levels >= 1).astype(int)), ("AU_Intensity_Set", levels)):
        _write_values(annotations / kind / OFFICIAL[split] / f"{video}.txt", aus, values)


def _write_values(path: Path, aus: Sequence[str], values: np.ndarray) -> None:
    """Write one annotation file: (N, A) integers below the AUs' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(aus), *(",".join(map(str, row)) for row in values.tolist())]
    path.write_text("\n".join(lines) + "\n")


def write_tables(corpus: Path, out: Path, share: float, by_event: Sequence[str], fps: float, seed: int = 0) -> None:
    """Write a fraction of the labels of a corpus as tables that `aupair import csv` reads.

    `rows.csv` (video, frame, AUs) has an empty cell if an AU is not coded. The AUs of `by_event` are in `events.csv` (video,
    start, end, au) instead, and the stretches in which they are coded in `coded.csv` (video, au, start, end), in seconds.

    Args:
        corpus: a corpus in the general layout, with all labels.
        out: the folder to create.
        share: fraction of the frames of each split in which an AU is coded.
        by_event: the AUs that are written as events.
    """
    out.mkdir(parents=True)
    rows: list[Sequence[object]] = []
    events: list[Sequence[object]] = [("video", "start", "end", "au")]
    coded: list[Sequence[object]] = [("video", "au", "start", "end")]
    for video, aus, values, known in _code_corpus(corpus, share, fps, seed):
        listed = [k for k, au in enumerate(aus) if au not in by_event]
        rows = rows or [("video", "frame", *(aus[k] for k in listed))]
        cells = np.where(known, values.astype(str), "")[:, listed].tolist()
        rows += [(video, frame, *row) for frame, row in enumerate(cells)]
        for au in by_event:
            own, active = known[:, aus.index(au)], values[:, aus.index(au)] == 1
            coded += [(video, au, start / fps, stop / fps) for start, stop in _runs(own)]
            events += [(video, start / fps, stop / fps, au) for start, stop in _runs(own & active)]
    if len(rows[0]) > len(("video", "frame")):
        _write_table(out / "rows.csv", rows)
    if by_event:
        _write_table(out / "events.csv", events)
        _write_table(out / "coded.csv", coded)


def _code_corpus(
    corpus: Path, share: float, fps: float, seed: int
) -> Iterator[tuple[str, list[str], np.ndarray, np.ndarray]]:
    """Yield each video with its AUs, its labels (N, A) int, and whether they are coded, (N, A) bool."""
    frames: dict[str, int] = {}
    with open(corpus / "splits.csv", newline="") as file:
        videos = [(row["video"], row["split"]) for row in csv.DictReader(file)]
    splits = list(dict.fromkeys(split for _, split in videos))
    for video, split in videos:
        with open(corpus / "annotations" / "occurrence" / f"{video}.csv", newline="") as file:
            aus, *rows = csv.reader(file)
        values, before = np.array(rows, dtype=int), frames.get(split, 0)
        frames[split] = before + len(values)
        times = (before + np.arange(len(values))) / fps
        yield video, aus, values, coded_frames([seed, splits.index(split)], len(aus), share, times)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the first frame of each run of True, and the frame after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2])]


def _write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
