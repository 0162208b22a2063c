"""The contents of a data folder that check-data reads and then checks."""

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
    """The parsed files of a data folder; the splits cover all labelled videos, but label values are not checked yet.

    Attributes:
        layout: the files and folders found.
        rows: the rows of splits.csv.
        labels: occurrences, or levels if the target is intensity.
        intensities: intensities; None if the folder has none.
        headers: for each labelled video, the movie's header or the counts of crops; None if the video has no readable
            movie and no crops.
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
        """Return the corpus with the labels of some AUs.

        Raises:
            DataError: the occurrences lack an AU. An AU without intensities is not an error here.
        """
        intensities = self.intensities
        if intensities is not None:
            intensities = intensities.select([au for au in intensities.aus if au in aus])
        return replace(self, labels=self.labels.select(aus), intensities=intensities)

    def without_partial_rows(self) -> "Corpus":
        """Return the corpus with partly annotated rows set to not annotated, if the layout has that rule."""
        return replace(self, labels=self.labels.without_partial_rows()) if self.layout.voids_partial_rows else self

    def count(self) -> tuple[sp.SplitCounts, ...]:
        """Return the counts of each split over the videos with a readable file; levels of 1 and more are positive."""
        labels = self.readable_labels()
        return sp.count_splits(self.rows, replace(labels, values=np.minimum(labels.values, 1)))


def read_corpus(data: Path, log: Log = SILENT) -> Corpus:
    """Read annotations, splits and the headers of movies.

    Raises:
        DataError: a file is missing, cannot be parsed, or contradicts another one.
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
