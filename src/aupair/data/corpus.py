"""A data folder as check-data reads it, before the values are checked."""

from collections.abc import Sequence
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
        return self.labels.take(np.array([header is not None for header in self.headers], bool))

    def select(self, aus: Sequence[str]) -> "Corpus":
        """Return the corpus with the labels of some AUs; intensities that the data set lacks are no error here."""
        intensities = self.intensities
        if intensities is not None:
            graded = intensities.aus
            intensities = intensities.select([au for au in graded if au in aus])
        return replace(self, labels=self.labels.select(aus), intensities=intensities)

    def without_partial_rows(self) -> "Corpus":
        """Return the corpus without the partly annotated rows that its layout voids."""
        return replace(self, labels=self.labels.without_partial_rows()) if self.layout.voids_partial_rows else self

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
