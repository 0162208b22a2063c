"""check-data: is the data folder what the other stages need? A breach that matters stops, others are counted.

aupair run check-data
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from aupair import store
from aupair.aus import AUS
from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.data import suites
from aupair.data.crops import Crops, count
from aupair.data.hashing import dvc_hash
from aupair.data.layout import USUAL_FPS, Header, Layout, check_names, probe, read_layout
from aupair.data.levels import level_sheets, remarks
from aupair.data.oddities import warnings
from aupair.errors import DataError
from aupair.log import SILENT, Log
from aupair.params import CheckData

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evidence:
    """All that the rules look at.

    Attributes:
        layout: what is in the data folder.
        rows: splits.csv, unchecked.
        labels: occurrences, unchecked; of checked data levels, where they are the target.
        intensities: intensities, unchecked; None where there are none.
        headers: of each labelled video's movie, or its crops; None where no file opens, or there is no image.
    """

    layout: Layout
    rows: list[sp.Row]
    labels: sh.Sheets
    intensities: sh.Sheets | None
    headers: tuple[Header | Crops | None, ...]


def check(
    data: Path,
    *,
    labels: Path,
    info: Path,
    docs: Path,
    params: CheckData,
    target: str = "occurrence",
    log: Log = SILENT,
) -> None:
    """Check the data folder; write the labels table, the data's hash with counts, and the Data Docs.

    Args:
        data: the data folder, see `aupair.data.layout`.
        labels: parquet to write: video, subject, split, frame, time, 12 AUs (-1 in all where not annotated).
        info: json to write: md5 (DVC's hash of the folder), counts, warnings.
        docs: folder of Great Expectations' Data Docs to write, also when a rule is broken.
        target: occurrence: the labels are 0 and 1; intensity: they are levels, 0..5.

    Raises:
        DataError: a breach that matters; then neither `labels` nor `info` is written.
    """
    evidence = gather(Path(data), log)
    broken = suites.validate(_tables(evidence), docs, params.max_missing_videos)
    refuse(evidence, params)
    if broken:
        raise DataError("a rule of the data is broken", where=Path(docs) / "index.html", got=broken[0])
    found: list[str] = []
    if target == "intensity":
        evidence, found = leveled(evidence)
    kept, counts = _present(evidence), _counts(evidence)
    found = warnings(evidence, counts, params) + found
    for text in found:
        log.line(text)
    md5 = dvc_hash(evidence.layout.root, log)
    store.write_table(labels, labels_table(evidence, kept))
    store.write_json(info, {"md5": md5, "counts": _plain_counts(counts), "warnings": found})


def gather(data: Path, log: Log = SILENT) -> Evidence:
    """Read all that is checked.

    Raises:
        DataError: something is missing, or cannot be read as what it should be.
    """
    layout = read_layout(data)
    rows = sp.read_splits(data)
    labels = sh.read_sheets(layout.annotations, np.int16, log)
    intensities = sh.read_sheets(layout.intensities, np.float32, log) if layout.intensities else None
    files = [layout.source(a.video) for a in layout.annotations]
    known: dict[Path, Header | Crops | None] = {}
    for path in log.progress(sorted({path for path in files if path}), len({*files} - {None}), "opening videos"):
        known[path] = count(path) if path.is_dir() else probe(path)
    return Evidence(layout, rows, labels, intensities, tuple(known[path] if path else None for path in files))


def refuse(evidence: Evidence, params: CheckData) -> None:
    """Stop at the first breach that matters.

    Raises:
        DataError: names file, row and rule.
    """
    layout, path = evidence.layout, evidence.layout.root / "splits.csv"
    check_names(layout.annotations)
    sp.check_rows(evidence.rows, path)
    sp.check_cover(evidence.rows, layout.annotations, path)
    _check_files(evidence, params)
    sh.check_occurrences(evidence.labels)
    if evidence.intensities is not None:
        check_names(layout.intensities)
        sh.check_intensities(evidence.intensities)
    _check_annotated(evidence)
    _check_positives(evidence)


def leveled(evidence: Evidence) -> tuple[Evidence, list[str]]:
    """Put levels in the place of the occurrences of checked data, and say what is odd about them.

    Raises:
        DataError: no intensities, not those of every labelled video, or nothing to learn from.
    """
    occurrences, root = evidence.labels, evidence.layout.root
    levels = level_sheets(occurrences, evidence.intensities, root / "annotations")
    graded = replace(evidence, labels=levels)
    _check_annotated(graded)
    _check_positives(graded)
    return graded, remarks(occurrences, levels, evidence.rows)


def labels_table(evidence: Evidence, kept: sh.Sheets) -> pa.Table:
    """Build the labels table of checked videos; `time` is frame / fps after the movie's header."""
    row_of = {row.video: row for row in evidence.rows}
    header_of = dict(zip((a.video for a in evidence.labels.annotations), evidence.headers))
    video, frame = pa.array(kept.video), kept.frame
    mine = [row_of[a.video] for a in kept.annotations]
    fps = np.array([_fps(header_of[a.video]) for a in kept.annotations])
    columns: dict[str, pa.Array] = {
        key: pa.array([getattr(row, key) for row in mine], pa.string()).take(video) for key in sp.COLUMNS
    }
    values = sh.mask(kept.values)
    aus = {au: pa.array(values[:, k]) for k, au in enumerate(AUS)}
    return pa.table({**columns, "frame": pa.array(frame), "time": pa.array(frame / fps[kept.video]), **aus})


def _check_files(evidence: Evidence, params: CheckData) -> None:
    """Refuse more labelled videos without a readable file than allowed."""
    lost = [a for a, header in zip(evidence.labels.annotations, evidence.headers) if header is None]
    if len(lost) > params.max_missing_videos:
        path = evidence.layout.source(lost[0].video)
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise DataError(
            "a labelled video that cannot be opened" if path else "a labelled video without a file",
            where=path or lost[0].path,
            got=f"no readable movie, no crops of {lost[0].video}{more}",
            expected=f"at most {params.max_missing_videos} missing",
            todo="add the file, or raise check_data.max_missing_videos",
        )


def _check_annotated(evidence: Evidence) -> None:
    """Refuse labels without one annotated frame."""
    if not sh.annotated(evidence.labels.values).any():
        got = f"{len(evidence.labels.values)} label rows, none annotated"
        raise DataError("no annotated frame", where=evidence.labels.annotations[0].path.parent.parent, got=got)


def _check_positives(evidence: Evidence) -> None:
    """Refuse an AU that is never active on `fit`: nothing could be learned about it."""
    fit = _counts(evidence)[0]
    for au, positives in zip(AUS, fit.positives):
        if not positives:
            raise DataError(
                "an AU without a positive",
                where=evidence.layout.root / "splits.csv",
                got=f"{au}: 0 of {fit.annotated} annotated frames of fit",
                expected="at least 1",
                todo="move a subject who shows it to fit",
            )


def _tables(evidence: Evidence) -> dict[str, "pd.DataFrame"]:
    """The tables that the suites look at; a pandas frame each."""
    import pandas as pd

    names = [a.video for a in evidence.labels.annotations]
    split_of = {row.video: row.split for row in evidence.rows}
    splits = pd.DataFrame(evidence.rows, columns=list(sp.COLUMNS))
    splits["splits_of_subject"] = splits.groupby("subject")["split"].transform("nunique").astype("int64")
    videos = pd.DataFrame(
        {
            "video": names,
            "file": [str(evidence.layout.source(n)) if h else None for n, h in zip(names, evidence.headers)],
            "split": [split_of.get(n) for n in names],
        }
    )
    tables = {"annotations": _sheet_frame(evidence.labels), "videos": videos, "splits": splits}
    if set(names) <= set(split_of):
        counts = _counts(evidence)
        tables["positives"] = pd.DataFrame({"au": AUS, **{c.split: c.positives for c in counts}})
    if evidence.intensities is not None:
        tables["intensities"] = _sheet_frame(evidence.intensities)
    return tables


def _sheet_frame(sheets: sh.Sheets) -> "pd.DataFrame":
    """The rows of all files as a pandas frame: video, frame, AUs."""
    import pandas as pd

    names = [a.video for a in sheets.annotations]
    categories = sorted(set(names))
    codes = np.searchsorted(categories, names)[sheets.video]
    aus = {au: sheets.values[:, k] for k, au in enumerate(AUS)}
    return pd.DataFrame({"video": pd.Categorical.from_codes(codes, pd.Index(categories)), "frame": sheets.frame, **aus})


def _present(evidence: Evidence) -> sh.Sheets:
    """The labels of videos with a readable file."""
    keep = np.array([header is not None for header in evidence.headers], bool)
    labels = evidence.labels
    if keep.all():
        return labels
    kept = tuple(a for a, k in zip(labels.annotations, keep) if k)
    return sh.Sheets(kept, np.cumsum([0, *labels.lengths[keep]]), labels.values[keep[labels.video]])


def _counts(evidence: Evidence) -> tuple[sp.SplitCounts, ...]:
    """Count the splits' videos with a readable file; positive is every level from 1 on."""
    kept = _present(evidence)
    return sp.count(evidence.rows, replace(kept, values=np.minimum(kept.values, 1)))


def _plain_counts(counts: tuple[sp.SplitCounts, ...]) -> dict[str, dict[str, object]]:
    """Counts by split, positives by AU."""
    plain = {c.split: {**asdict(c), "positives": dict(zip(AUS, c.positives))} for c in counts}
    return {name: {key: value for key, value in row.items() if key != "split"} for name, row in plain.items()}


def _fps(header: Header | Crops | None) -> float:
    """Frames a second after the header, or the usual rate."""
    return header.fps if isinstance(header, Header) and header.fps else USUAL_FPS
