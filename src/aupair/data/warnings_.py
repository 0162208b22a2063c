"""Warnings of check-data: irregularities of the data that do not stop the flow, each as a line with count and examples."""

from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.data.corpus import Corpus
from aupair.data.crops import Crops
from aupair.data.layout import USUAL_FPS, Header
from aupair.params import CheckData


def data_warnings(corpus: Corpus, counts: tuple[sp.SplitCounts, ...], params: CheckData) -> list[str]:
    """Return the warnings about a corpus whose values are checked."""
    layout, labels = corpus.layout, corpus.labels
    names = [a.video for a in labels.annotations]
    row_of = {row.video: row for row in corpus.rows}
    lists = {
        "labelled videos without a readable file, left out": [n for n, h in zip(names, corpus.headers) if h is None],
        **_file_warnings(corpus, names),
        "annotation files without a row": [n for n, k in zip(names, labels.lengths) if not k],
        "rows of splits.csv without an annotation": [row.video for row in corpus.rows if row.video not in set(names)],
        "videos whose split differs from their official set": [
            a.video
            for a in labels.annotations
            if a.official and (row_of[a.video].split == "validation") != (a.official == "validation")
        ],
        "videos whose subject differs between splits.csv and subjects.csv": [
            n for n in names if layout.subjects.get(n, row_of[n].subject) != row_of[n].subject
        ],
        "intensity files with another number of rows than the occurrence file": _intensity_mismatch(corpus),
    }
    result = [f"{len(videos)} {what}: {_examples(videos)}" for what, videos in lists.items() if videos]
    result += [*_few_positives(counts, labels.aus, params.few_positives), *_missing_labels(labels, counts)]
    blank = int((~labels.annotated).sum())
    return [f"{blank:,} of {len(labels.values):,} label rows are not annotated", *result] if blank else result


def _file_warnings(corpus: Corpus, names: list[str]) -> dict[str, list[str]]:
    """Return each irregularity of the movies and crops with the names of the videos that have it.

    A frame without a crop is not an irregularity, since crops exist only for frames with a face.
    """
    layout, sizes = corpus.layout, list(zip(names, corpus.labels.lengths.tolist(), corpus.headers))
    headers = [(name, rows, header) for name, rows, header in sizes if isinstance(header, Header)]
    crops = [(name, rows, header) for name, rows, header in sizes if isinstance(header, Crops)]
    return {
        "videos whose numbers of label rows and frames differ, according to the header": [
            f"{name} ({rows} rows, {h.frames} frames)" for name, rows, h in headers if h.frames not in (0, rows)
        ],
        f"videos without a frame rate in the header, taken as {USUAL_FPS:g}": [n for n, _, h in headers if not h.fps],
        "movies without an annotation": sorted(set(layout.movies) - {layout.movie(name) for name in names}),
        "videos with crops beyond their last label row": [
            f"{name} ({rows} rows, {c.frames} frames)" for name, rows, c in crops if c.frames > rows
        ],
        "videos with fewer crops than label rows, the other rows count as frames without a face": [
            f"{name} ({rows} rows, {c.images} images)" for name, rows, c in crops if c.images < rows
        ],
        "videos read from crops while others are read from movies, so that faces are aligned in two ways": [
            name for name, _, _ in crops if headers
        ],
        "videos whose crops are not read, since they have a movie": [
            name for name in names if name in layout.crops and layout.movie(name)
        ],
        "folders of crops without an annotation": sorted(set(layout.crops) - set(names)),
    }


def _intensity_mismatch(corpus: Corpus) -> list[str]:
    """Return the intensity files whose number of rows differs from that of the video's occurrence file."""
    if corpus.intensities is None:
        return []
    length = dict(zip((a.video for a in corpus.labels.annotations), corpus.labels.lengths))
    pairs = zip(corpus.intensities.annotations, corpus.intensities.lengths)
    return [f"{a.video} ({n}, {length.get(a.video, 0)})" for a, n in pairs if n != length.get(a.video, 0)]


def _few_positives(counts: tuple[sp.SplitCounts, ...], aus: tuple[str, ...], few: int) -> list[str]:
    """Return a line for each split that has AUs with fewer positive frames than `few`."""
    rare = {c.split: [f"{au} ({n})" for au, n in zip(aus, c.positives) if n < few] for c in counts}
    what = f"AUs with fewer than {few} positive frames in"
    return [f"{len(aus)} {what} {split}: {', '.join(aus)}" for split, aus in rare.items() if aus]


def _missing_labels(labels: sh.Sheets, counts: tuple[sp.SplitCounts, ...]) -> list[str]:
    """Return warnings about AUs that are labelled only in some of the annotated rows, or in no row of a split."""
    annotated, labelled = int(labels.annotated.sum()), labels.labelled.sum(axis=0).tolist()
    partial = [f"{au} ({n:,})" for au, n in zip(labels.aus, labelled) if n < annotated]
    if not partial:
        return []
    lines = [f"{len(partial)} AUs are not labelled in all of {annotated:,} annotated rows: {', '.join(partial)}"]
    missing = {c.split: [au for au, n in zip(labels.aus, c.labelled) if not n] for c in counts if c.split != "fit"}
    effect = {"select": "threshold and mapping cannot be chosen for them", "validation": "they cannot be scored"}
    for split, aus in missing.items():
        lines += [f"{len(aus)} AUs have no label in {split}, so that {effect[split]}: {', '.join(aus)}"] if aus else []
    return lines


def _examples(names: list[str], most: int = 3) -> str:
    """Return the first names in one line, with an ellipsis if there are more."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
