"""The options of the kind `csv`, and the check that each given option has an effect on the tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aupair.errors import DataError
from aupair.importing.event_tables import Uncoded
from aupair.importing.events import Unit
from aupair.importing.tables import TextTable


@dataclass(frozen=True)
class CsvOptions:
    """Options of an import of tables.

    Attributes:
        videos: the folder of the movies; by default the folder of the tables.
        aus: the columns that are AUs; by default all columns without another meaning.
        missing: cells that mean "not labelled", besides an empty cell, NaN, NA and -1.
        levels: whether the cells are intensities.
        threshold: the intensity from which an AU counts as active; None: 1.
        first_frame: the number of the first frame, 0 or 1; None: determined from the tables.
        subjects: a table video,subject.
        unit: the unit of an event's start and end.
        fps: frames per second for events in seconds; None: that of each video's header.
        coded: a table video,au[,start,end] of the AUs and times that are coded.
        uncoded: whether an AU without an event in a video is inactive (absent) or not labelled (missing) in it, if `coded`
            is not given.
        allow_missing: whether to omit labels without a video instead of raising an error.
    """

    videos: Path | None = None
    aus: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    levels: bool = False
    threshold: float | None = None
    first_frame: int | None = None
    subjects: Path | None = None
    unit: Unit = "seconds"
    fps: float | None = None
    coded: Path | None = None
    uncoded: Uncoded = "absent"
    allow_missing: bool = False

    @property
    def active_from(self) -> float:
        """Return the intensity from which an AU counts as active."""
        return 1.0 if self.threshold is None else self.threshold

    def check_effects(self, by_frame: Sequence[TextTable], by_event: Sequence[TextTable]) -> None:
        """Raise a DataError if an option was given that has no effect on these tables."""
        frames, events, in_frames = bool(by_frame), bool(by_event), self.unit == "frames"
        graded = (self.levels and frames) or any(table.index("intensity") is not None for table in by_event)
        rows, spans = "a table with a row for each frame", "a table with a row for each event"
        options = (
            ("--levels", self.levels, frames, rows),
            ("--threshold", self.threshold is not None, graded, "intensities: --levels or a column intensity"),
            ("--aus", bool(self.aus), frames, rows),
            ("--missing", bool(self.missing), frames, rows),
            ("--first-frame", self.first_frame is not None, frames or in_frames, f"{rows}, or --unit frames"),
            ("--unit frames", in_frames, events, spans),
            ("--fps", self.fps is not None, events and not in_frames, f"{spans} in seconds"),
            ("--coded", self.coded is not None, events, spans),
            ("--uncoded missing", self.uncoded == "missing", events and not self.coded, f"{spans}, and no --coded"),
        )
        for name, given, effective, needed in options:
            if given and not effective:
                raise DataError("an option without effect", where=name, expected=needed, todo="remove it")
