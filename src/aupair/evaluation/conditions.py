"""The cover and yaw of each face, from the demo corpus's `conditions.csv`: used in evaluation, never in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupair.data.frames import Frames
from aupair.errors import DataError
from aupair.log import SILENT, Log

_FRONTAL = 0.3
"""radians of yaw up to which a face counts as frontal"""
_HIDDEN = 0.5
"""least hidden share of an AU's own region for which the AU counts as hidden"""
_COLUMNS = ("video", "frame", "covered", "yaw")
"""the required columns; hidden_AU for each AU is optional"""


@dataclass(frozen=True)
class Conditions:
    """The conditions of the N frames of a `Frames`; NaN for a frame that the file lacks.

    Attributes:
        covered: (N,) float64, share of the face that something covers, 0..1.
        hidden: (N, A) float64, share of each AU's own region that is hidden, 0..1; NaN for an AU that the file lacks.
        yaw: (N,) float64, radians.
    """

    covered: np.ndarray
    hidden: np.ndarray
    yaw: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """Return whether a face is nearly frontal and uncovered: (N,) bool."""
        return (self.covered == 0) & (np.abs(self.yaw) < _FRONTAL)

    @property
    def turned(self) -> np.ndarray:
        """Return whether a face is not nearly frontal: (N,) bool; False where yaw is unknown."""
        return np.abs(self.yaw) >= _FRONTAL

    @property
    def own_hidden(self) -> np.ndarray:
        """Return whether at least half of an AU's own region is hidden: (N, A) bool."""
        return self.hidden >= _HIDDEN

    @property
    def other_hidden(self) -> np.ndarray:
        """Return whether nothing of an AU's own region is hidden, but at least half of another AU's: (N, A) bool."""
        return (self.hidden == 0) & self.own_hidden.any(axis=1, keepdims=True)


def load_conditions(path: Path, frames: Frames, log: Log = SILENT) -> Conditions | None:
    """Read `conditions.csv` and align it with the frames; return None if the file does not exist (real data).

    AUs without a column `hidden_AU` are logged, since figures of hidden regions exclude them. Other columns are ignored.

    Raises:
        DataError: a column is missing, a value is not a number, or a frame of a video has two rows.
    """
    if not Path(path).exists():
        return None
    hidden = [f"hidden_{au}" for au in frames.aus]
    table, keys = _read(Path(path), hidden), ["video", "frame"]
    lacking = [name for name in hidden if name not in table.column_names]
    if lacking:
        log.line(f"{path} lacks {', '.join(lacking)}: these AUs are left out of the figures of hidden regions")
    number = table.group_by(keys).aggregate([([], "count_all")])
    repeated = number.filter(pc.field("count_all") > 1)
    if len(repeated):
        where = f"{path}, video {repeated['video'][0]}, frame {repeated['frame'][0]}"
        raise DataError("two rows for one frame", where=where, expected="one", todo="remove one of them")
    video = pa.array(np.array(frames.videos, dtype=object)[frames.video], pa.string())
    rows = pa.table({"video": video, "frame": pa.array(frames.frame, pa.int64()), "row": np.arange(len(frames))})
    aligned = rows.join(table, keys).sort_by("row")
    unknown = np.full(len(frames), np.nan)
    columns = [unknown if name in lacking else aligned[name].to_numpy() for name in hidden]
    return Conditions(aligned["covered"].to_numpy(), np.stack(columns, axis=1), aligned["yaw"].to_numpy())


def _read(path: Path, hidden: Sequence[str]) -> pa.Table:
    """Read the columns of _COLUMNS, and those of `hidden` that the file has, with their types.

    Raises:
        DataError: a column is missing, a value is not a number, or a row lacks video or frame.
    """
    try:
        present = pa.csv.open_csv(path).schema.names
        names = [*_COLUMNS, *(name for name in hidden if name in present)]
        types = dict.fromkeys(names, pa.float64()) | {"video": pa.string(), "frame": pa.int64()}
        options = pa.csv.ConvertOptions(column_types=types, include_columns=names)
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        todo = "write it again with `aupair synth`, or remove it: it is only needed for evidence"
        expected = f"the columns {', '.join(_COLUMNS)}, and hidden_AU for each AU"
        raise DataError("not a table of conditions", where=path, got=error, expected=expected, todo=todo) from error
    if table["frame"].null_count or table["video"].null_count:
        raise DataError("a row without video or frame", where=path, expected="both", todo="remove the row")
    return table
