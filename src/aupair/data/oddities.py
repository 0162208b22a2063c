"""What is odd about the data and does not stop the flow: a line each, with how often and an example."""

from typing import TYPE_CHECKING

from aupair.aus import AUS
from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.data.crops import Crops
from aupair.data.layout import USUAL_FPS, Header
from aupair.params import CheckData

if TYPE_CHECKING:
    from aupair.data.checks import Evidence


def warnings(evidence: "Evidence", counts: tuple[sp.SplitCounts, ...], params: CheckData) -> list[str]:
    """Say in a line each what is odd but does not stop the flow, with how often and an example."""
    layout, labels = evidence.layout, evidence.labels
    names = [a.video for a in labels.annotations]
    row_of = {row.video: row for row in evidence.rows}
    lists = {
        "labelled videos without a readable file, left out": [n for n, h in zip(names, evidence.headers) if h is None],
        **_movies(evidence, names),
        **_crops(evidence, names),
        "annotation files without a row": [n for n, k in zip(names, labels.lengths) if not k],
        "rows of splits.csv without an annotation": [row.video for row in evidence.rows if row.video not in set(names)],
        "videos whose split differs from their official set": [
            a.video
            for a in labels.annotations
            if (row_of[a.video].split == "validation") != (a.official == "validation")
        ],
        "videos whose subject differs between splits.csv and subjects.csv": [
            n for n in names if layout.subjects.get(n, row_of[n].subject) != row_of[n].subject
        ],
        "intensity files whose rows differ in number from the occurrences'": _intensity_mismatch(evidence),
    }
    result = [f"{len(found)} {what}: {_some(found)}" for what, found in lists.items() if found]
    result += _few_positives(counts, params.few_positives)
    blank = int((~sh.annotated(labels.values)).sum())
    return [f"{blank:,} of {len(labels.values):,} label rows are not annotated", *result] if blank else result


def _movies(evidence: "Evidence", names: list[str]) -> dict[str, list[str]]:
    """List what is odd about movies."""
    layout = evidence.layout
    headers = [
        (name, int(rows), header)
        for name, rows, header in zip(names, evidence.labels.lengths, evidence.headers)
        if isinstance(header, Header)
    ]
    return {
        "videos whose label rows and frames differ in number, by the header": [
            f"{name} ({rows} rows, {h.frames} frames)" for name, rows, h in headers if h.frames not in (0, rows)
        ],
        f"videos without a frame rate in the header, taken as {USUAL_FPS:g}": [n for n, _, h in headers if not h.fps],
        "movies without an annotation": sorted(set(layout.movies) - {layout.movie(name) for name in names}),
    }


def _crops(evidence: "Evidence", names: list[str]) -> dict[str, list[str]]:
    """List what is odd about crops; a frame without an image is not odd by itself, it had no face."""
    layout = evidence.layout
    crops = [
        (name, int(rows), found)
        for name, rows, found in zip(names, evidence.labels.lengths, evidence.headers)
        if isinstance(found, Crops)
    ]
    mixed = any(isinstance(header, Header) for header in evidence.headers)
    return {
        "videos with crops beyond their last label row": [
            f"{name} ({rows} rows, {c.frames} frames)" for name, rows, c in crops if c.frames > rows
        ],
        "videos with fewer crops than label rows, the others count as without a face": [
            f"{name} ({rows} rows, {c.images} images)" for name, rows, c in crops if c.images < rows
        ],
        "videos from crops and the others from movies, so that faces are aligned in two ways": [
            name for name, _, _ in crops if mixed
        ],
        "videos whose crops are not read, since they have a movie": [
            name for name in names if name in layout.crops and layout.movie(name)
        ],
        "folders of crops without an annotation": sorted(set(layout.crops) - set(names)),
    }


def _intensity_mismatch(evidence: "Evidence") -> list[str]:
    """Name the intensity files that have another number of rows than the occurrence file of the video."""
    if evidence.intensities is None:
        return []
    length = dict(zip((a.video for a in evidence.labels.annotations), evidence.labels.lengths))
    pairs = zip(evidence.intensities.annotations, evidence.intensities.lengths)
    return [f"{a.video} ({n}, {length.get(a.video, 0)})" for a, n in pairs if n != length.get(a.video, 0)]


def _few_positives(counts: tuple[sp.SplitCounts, ...], few: int) -> list[str]:
    """Name, in a line for each split, the AUs with fewer positive frames than `few`."""
    lines = []
    for c in counts:
        found = [f"{au} ({n})" for au, n in zip(AUS, c.positives) if n < few]
        if found:
            lines.append(f"{len(found)} AUs with fewer than {few} positive frames in {c.split}: {', '.join(found)}")
    return lines


def _some(names: list[str], most: int = 3) -> str:
    """The first few of a list, in one line."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
