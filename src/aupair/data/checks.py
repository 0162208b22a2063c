"""The checks of check-data (`aupair run check-data`): a broken rule stops the stage, other irregularities are warnings."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from aupair import store
from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.data import suites
from aupair.data.corpus import Corpus, read_corpus
from aupair.data.hashing import dvc_hash
from aupair.data.layout import USUAL_FPS, Header
from aupair.data.levels import level_sheets, level_warnings
from aupair.data.warnings_ import data_warnings
from aupair.log import SILENT, Log
from aupair.params import CheckData

if TYPE_CHECKING:
    import pandas as pd


def check_data_folder(
    data: Path,
    *,
    labels: Path,
    info: Path,
    docs: Path,
    params: CheckData,
    aus: Sequence[str] | None = None,
    target: str = "occurrence",
    log: Log = SILENT,
) -> None:
    """Check the data folder; write the labels table, the data's hash with counts, and the Data Docs.

    Args:
        data: the data folder, see `aupair.data.layout`.
        labels: Parquet file to write: video, subject, split, frame, time, then the AUs (-1 if not annotated).
        info: JSON file to write: md5 (DVC's hash of the folder), AUs, counts, warnings.
        docs: folder of Great Expectations' Data Docs to write, also if a rule is broken.
        aus: the AUs of the labels table, which are written in the order of the annotations; None: all.
        target: "occurrence" for the labels 0 and 1, "intensity" for the levels 0..5.

    Raises:
        DataError: a rule is broken (the error is about the first); `labels` and `info` are not written.
    """
    unchecked = read_corpus(Path(data), log)
    corpus, graded = unchecked.without_partial_rows(), None
    if aus is not None:
        unchecked, corpus = unchecked.select(aus), corpus.select(aus)
    if target == "intensity":
        occurrences, levels = level_sheets(corpus.labels, corpus.intensities, corpus.layout.root / "annotations")
        corpus = replace(corpus, labels=occurrences)
        graded = replace(corpus, labels=levels).without_partial_rows()
    tables = _sheet_tables(unchecked) | _tables(corpus, graded)
    errors = suites.validate_tables(tables, docs, params.max_missing_videos)
    if errors:
        raise errors[0]
    warnings = []
    if graded:
        warnings = level_warnings(corpus.labels, graded.labels, corpus.rows)
        corpus = graded
    counts = corpus.count()
    warnings = data_warnings(corpus, counts, params) + warnings
    for text in warnings:
        log.line(text)
    md5 = dvc_hash(corpus.layout.root, log)
    store.write_table(labels, _labels_table(corpus))
    names = corpus.labels.aus
    store.write_json(info, {"md5": md5, "aus": names, "counts": _plain_counts(counts, names), "warnings": warnings})


def _tables(corpus: Corpus, graded: Corpus | None) -> dict[str, "pd.DataFrame"]:
    """Return the tables `videos`, `annotated` and `positives` for the suites.

    The latter two count occurrences and, if `graded` is given, its levels as well.
    """
    import pandas as pd

    annotations, splits = corpus.labels.annotations, str(corpus.layout.root / "splits.csv")
    sources = [corpus.layout.source(annotation.video) for annotation in annotations]
    unopened, no_file = "a labelled video cannot be opened", "a labelled video has no file"
    videos = {
        "video": [annotation.video for annotation in annotations],
        "path": [str(source or annotation.path) for source, annotation in zip(sources, annotations)],
        "problem": [unopened if source else no_file for source in sources],
        "file": [str(source) if header else None for source, header in zip(sources, corpus.headers)],
    }
    annotated: list[tuple[str, int, int]] = []
    positives: list[tuple[str, str, int, int]] = []
    for part in (corpus, graded) if graded else (corpus,):
        first, rows = part.labels.annotations[0], len(part.labels.values)
        folder = str(first.path.parents[1 if first.official else 0])
        annotated.append((folder, rows, int(part.labels.annotated.sum())))
        fit = part.count()[0]
        positives += zip(part.labels.aus, itertools.repeat(splits), fit.labelled, fit.positives)
    return {
        "videos": pd.DataFrame(videos),
        "annotated": pd.DataFrame(annotated, columns=["folder", "rows", "annotated"]),
        "positives": pd.DataFrame(positives, columns=["au", "splits", "annotated", "fit"]),
    }


def _sheet_tables(corpus: Corpus) -> dict[str, "pd.DataFrame"]:
    """Return the tables `annotations` and `intensities` for the suites."""
    tables = {"annotations": _sheet_frame(corpus.labels)}
    return tables if corpus.intensities is None else tables | {"intensities": _sheet_frame(corpus.intensities)}


def _sheet_frame(sheets: sh.Sheets) -> "pd.DataFrame":
    """Return the rows of all files as a DataFrame with the columns file, line and the AUs."""
    import pandas as pd

    files = pd.Categorical.from_codes(sheets.video, pd.Index([str(a.path) for a in sheets.annotations]))
    aus = {au: sheets.values[:, k] for k, au in enumerate(sheets.aus)}
    return pd.DataFrame({"file": files, "line": sheets.frame + 2, **aus})


def _labels_table(corpus: Corpus) -> pa.Table:
    """Return the labels table of the videos with a readable file; `time` is frame / fps, with fps from the header."""
    labels = corpus.readable_labels()
    row_of = {row.video: row for row in corpus.rows}
    video, frame = pa.array(labels.video), labels.frame
    rows = [row_of[a.video] for a in labels.annotations]
    headers = [header for header in corpus.headers if header is not None]
    fps = np.array([(isinstance(header, Header) and header.fps) or USUAL_FPS for header in headers])
    columns: dict[str, pa.Array] = {
        key: pa.array([getattr(row, key) for row in rows], pa.string()).take(video) for key in sp.COLUMNS
    }
    values = labels.values.astype(np.int8)
    aus = {au: pa.array(values[:, k]) for k, au in enumerate(labels.aus)}
    return pa.table({**columns, "frame": pa.array(frame), "time": pa.array(frame / fps[labels.video]), **aus})


def _plain_counts(counts: tuple[sp.SplitCounts, ...], aus: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Return the counts as dictionaries by split, in which labelled frames and positives are by AU."""
    plain = [asdict(c) | {key: dict(zip(aus, getattr(c, key))) for key in ("labelled", "positives")} for c in counts]
    return {row.pop("split"): row for row in plain}
