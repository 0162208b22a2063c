"""The tables of a report about its data: frames, labels and positives of each split."""

import numpy as np

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.report.formatting import percent
from aupair.report.tables import Table


def frame_counts(frames: Frames) -> Table:
    """Return the numbers of videos, people and frames of each split."""
    annotated, complete, lines = frames.labelled.any(axis=1), frames.labelled.all(axis=1), []
    partial = is_partial(frames)
    for split in SPLITS:
        own = frames.of_split(split)
        people, videos = (len(np.unique(values[own])) for values in (frames.subject, frames.video))
        counts = [videos, people, own.sum(), (own & frames.ok).sum(), (own & annotated).sum()]
        counts += [(own & complete).sum()] if partial else []
        lines.append([split, *(f"{int(count):,}" for count in counts)])
    head = ["", "videos", "people", "frames", "with a face", "annotated", *(["with all labels"] if partial else [])]
    caption = "Networks are fitted on fit, choices are made on select, and results are reported on validation"
    return Table(caption, head, lines)


def positives_table(frames: Frames) -> Table:
    """Return the share of active frames of each AU and split, with the numbers of labelled frames if they differ by AU."""
    lines, partial = [], is_partial(frames)
    for k, au in enumerate(frames.aus):
        cells: list[str] = []
        for split in SPLITS:
            levels = frames.labels[frames.of_split(split) & frames.labelled[:, k], k]
            share = percent(float((levels >= 1).mean()) if len(levels) else None)
            cells += [f"{len(levels):,}", share] if partial else [share]
        lines.append([au, *cells])
    if not partial:
        return Table("Share of annotated frames in which the AU is active", ["AU", *SPLITS], lines)
    head = ["AU", *(name for split in SPLITS for name in (split, "active"))]
    return Table("Labelled frames of each AU and split, and the share in which it is active", head, lines)


def is_partial(frames: Frames) -> bool:
    """Return whether some annotated frames lack the labels of some AUs."""
    return bool((frames.labelled.any(axis=1) & ~frames.labelled.all(axis=1)).any())
