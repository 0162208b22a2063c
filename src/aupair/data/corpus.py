"""A data folder as check-data reads it, before the values are checked."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.data.crops import Crops, count_crops
from aupair.data.layout import Header, Layout, read_layout, read_movie_header
from aupair.log import SILENT, Log


@dataclass(frozen=True)
class Corpus:
    """A data folder whose files could be parsed and whose splits fit its videos; values are not checked yet.

    Attributes:
        layout: what is in the data folder.
        rows: splits.csv.
        labels: occurrences, or levels if the target is intensity.
        intensities: intensities; None where there are none.
        headers: the header of each labelled video's movie or crops; None where no file opens, or there is no image.
    """

    layout: Layout
    rows: list[sp.SplitRow]
    labels: sh.Sheets
    intensities: sh.Sheets | None
    headers: tuple[Header | Crops | None, ...]

    def readable_labels(self) -> sh.Sheets:
        """Return the labels of the videos with a readable file."""
        readable = np.array([header is not None for header in self.headers], bool)
        if readable.all():
            return self.labels
        annotations = tuple(a for a, ok in zip(self.labels.annotations, readable) if ok)
        edges = np.cumsum([0, *self.labels.lengths[readable]])
        return sh.Sheets(annotations, edges, self.labels.values[readable[self.labels.video]])

    def count(self) -> tuple[sp.SplitCounts, ...]:
        """Count the videos with a readable file by split; every level from 1 on is a positive."""
        labels = self.readable_labels()
        return sp.count_splits(self.rows, replace(labels, values=np.minimum(labels.values, 1)))


def read_corpus(data: Path, log: Log = SILENT) -> Corpus:
    """Read annotations, splits and the headers of movies.

    Raises:
        DataError: something is missing, cannot be parsed, or contradicts the rest.
    """
    layout = read_layout(data)
    rows = sp.read_splits(layout)
    labels = sh.read_sheets(layout.annotations, np.int16, log)
    intensities = sh.read_sheets(layout.intensities, np.float32, log) if layout.intensities else None
    files = [layout.source(a.video) for a in layout.annotations]
    headers: dict[Path | None, Header | Crops | None] = {None: None}
    paths = sorted({path for path in files if path})
    for path in log.progress(paths, len(paths), "opening videos"):
        headers[path] = count_crops(path) if path.is_dir() else read_movie_header(path)
    return Corpus(layout, rows, labels, intensities, tuple(headers[path] for path in files))
