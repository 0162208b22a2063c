"""The quality signals are those of the files of faces, in the order of the frames."""

from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.quality import QUALITY_SIGNALS, load_quality
from aupair.errors import ArtifactError
from frame_sets import make_frames

LENGTHS = (3, 2)
SIGNALS = np.array([[0.1, 0.9, 0.3], [0.2, 0.8, 0.4], [9, 9, 9], [0.5, 0.7, np.nan], [np.nan, 0.6, 0.1]], np.float32)
OK = np.array([True, True, False, True, True])


def write(folder: Path) -> None:
    for video, rows in enumerate((slice(0, 3), slice(3, 5))):
        n = rows.stop - rows.start
        columns = {
            "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 25.0, "jpeg": [b""] * n,
            "status": ["ok" if ok else "no_face" for ok in OK[rows]], "landmarks": [np.zeros(136, np.float32)] * n,
            "transform": [np.zeros(6, np.float32)] * n, "tracked": np.zeros(n, bool),
            **dict(zip(QUALITY_SIGNALS, SIGNALS[rows].T)),
        }  # fmt: skip
        store.write_faces(folder / f"v{video}.arrow", [columns], {})


def test_each_frame_has_its_signals_and_one_without_a_face_has_none(tmp_path: Path) -> None:
    write(tmp_path)
    quality = load_quality(tmp_path, make_frames((0, 1), np.zeros((5, 12)), ok=OK, lengths=LENGTHS))
    assert quality.dtype == np.float32
    np.testing.assert_array_equal(quality, np.where(OK[:, None], SIGNALS, np.nan))


def test_faces_of_other_frames_are_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    other = make_frames((0, 1), np.zeros((6, 12)), lengths=(3, 3))
    with pytest.raises(ArtifactError, match=r"faces of other frames: in .*v1\.arrow, got 2 frames, expected 3, as"):
        load_quality(tmp_path, other)
