"""conditions.csv is aligned with the frames, or refused in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.data.frames import Frames
from aupair.errors import DataError
from aupair.evaluation.conditions import load_conditions
from aupair.log import Log
from frame_sets import make_frames

COLUMNS = ("video", "frame", "covered", *(f"hidden_{au}" for au in AFFWILD2), "yaw")


def frames() -> Frames:
    """Two videos, three and two frames."""
    return replace(make_frames((0, 0), np.zeros((5, len(AFFWILD2))), lengths=(3, 2)), videos=("a", "c"))


def row(video: str, frame: int, covered: float, yaw: float = 0.0) -> str:
    """One line of the file; AU2's region hidden as much as the face."""
    hidden = ["0"] * len(AFFWILD2)
    hidden[1] = str(covered)
    return ",".join([video, str(frame), str(covered), *hidden, str(yaw)])


def write(path: Path, *rows: str, head: str = ",".join(COLUMNS)) -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_rows_find_their_frames_in_any_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.csv", row("c", 1, 0.5, -0.2), row("b", 0, 0.9), row("a", 2, 0, 0.4), row("a", 0, 0, -0.1)
    )
    conditions = load_conditions(path, frames())
    assert conditions is not None
    np.testing.assert_array_equal(conditions.covered, [0, np.nan, 0, np.nan, 0.5])
    np.testing.assert_array_equal(conditions.yaw, [-0.1, np.nan, 0.4, np.nan, -0.2])
    np.testing.assert_array_equal(conditions.hidden[4], [0, 0.5] + [0] * 10)
    # yaw .4 is no frontal face, and a frame of which nothing is known is not clear
    assert conditions.clear.tolist() == [True, False, False, False, False]


def test_an_au_that_the_file_lacks_is_unknown_and_said_and_other_columns_are_ignored(tmp_path: Path) -> None:
    lines: list[str] = []

    class Listening(Log):
        def line(self, text: str) -> None:
            lines.append(text)

    own = replace(frames(), aus=("AU2", "Head-shake", "AU12"), labels=np.zeros((5, 3), np.int8))
    path = write(tmp_path / "c.csv", row("a", 0, 0.75) + ",much", head=",".join((*COLUMNS, "light")))
    conditions = load_conditions(path, own, Listening())
    assert conditions is not None
    np.testing.assert_array_equal(conditions.hidden[0], [0.75, np.nan, 0])
    assert conditions.own_hidden[0].tolist() == [True, False, False]
    assert conditions.other_hidden[0].tolist() == [False, False, True]
    assert lines == [f"{path} lacks hidden_Head-shake: these AUs are left out of the figures of hidden regions"]


def test_real_data_has_no_conditions(tmp_path: Path) -> None:
    assert load_conditions(tmp_path / "conditions.csv", frames()) is None


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([row("a", 1, 0), row("c", 1, 0), row("c", 1, 1)], None, "two rows for one frame.*video c, frame 1"),
        (["a,0,much" + ",0" * 13], None, "not a table of conditions"),
        (["a,0,0"], "video,frame,covered", "not a table of conditions"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, rows: list[str], head: str | None, message: str) -> None:
    path = write(tmp_path / "c.csv", *rows, head=head or ",".join(COLUMNS))
    with pytest.raises(DataError, match=message) as error:
        load_conditions(path, frames())
    assert "\n" not in str(error.value)
    assert "c.csv" in str(error.value)


def test_a_file_of_other_videos_leaves_all_conditions_unknown(tmp_path: Path) -> None:
    conditions = load_conditions(write(tmp_path / "c.csv", row("z", 0, 1)), frames())
    assert conditions is not None
    assert np.isnan(conditions.covered).all()
