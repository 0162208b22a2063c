"""Tests of data folders in the general layout: any AUs, each labelled in some of the frames."""

from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.frames import load_frames
from aupair.data.splits import split_data
from aupair.errors import DataError
from aupair.params import parse_params
from aupair.stages import check_data
from data.folders import run_check, write_movie, write_text
from face_files import write_faces
from listener import Listener

ROWS = 8
AUS = ("AU9", "AU12L", "smile")


def make_data(root: Path, aus: tuple[str, ...] = AUS, videos: int = 6) -> tuple[Path, np.ndarray]:
    """Write a data folder with missing labels; return it and the labels (videos, ROWS, A)."""
    labels = np.random.default_rng(len(aus)).integers(-1, 2, (videos, ROWS, len(aus)))
    labels[:, 0], labels[:, 1] = 1, 0
    write_movie(root / "videos" / "v0.mp4", ROWS)
    for k, values in enumerate(labels):
        lines = (",".join("" if cell < 0 else str(cell) for cell in row) for row in values)
        write_text(root / "annotations" / "occurrence" / f"v{k}.csv", "\n".join([",".join(aus), *lines]) + "\n")
        if k:
            (root / "videos" / f"v{k}.mp4").write_bytes((root / "videos" / "v0.mp4").read_bytes())
    return root, labels


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_every_label_arrives_and_no_other(tmp_path: Path, count: int) -> None:
    aus = (*AUS, *(f"AU{k}" for k in range(50, 67)))[:count]
    data, labels = make_data(tmp_path / "data", aus)
    summary = split_data(data)
    assert summary.aus == aus
    assert summary.unnamed == 6, "no video is named in subjects.csv"
    table_path, info, _ = run_check(data)
    table = store.read_table(table_path).to_pandas().sort_values(["video", "frame"])
    assert list(table.columns[5:]) == list(aus)
    # a blank last line of a file with a single AU is no row
    expected = [
        row for video in labels for row in (video if count > 1 else np.trim_zeros(video[:, 0] + 1, "b")[:, None] - 1)
    ]
    np.testing.assert_array_equal(table[list(aus)].to_numpy(), np.array(expected))
    counts = store.read_json(info)["counts"]
    for k, au in enumerate(aus):
        assert sum(c["labelled"][au] for c in counts.values()) == (labels[:, :, k] >= 0).sum()
        assert sum(c["positives"][au] for c in counts.values()) == (labels[:, :, k] == 1).sum()
    assert store.read_json(info)["aus"] == list(aus)


def test_people_are_divided_into_three_splits(tmp_path: Path) -> None:
    data, _ = make_data(tmp_path / "data", videos=10)
    write_text(data / "subjects.csv", "video,subject\n" + "".join(f"v{k},p{k // 2}\n" for k in range(10)))
    summary = split_data(data, select=0.3, validation=0.4)
    assert [c.subjects for c in summary.counts] == [2, 1, 2]
    assert summary.unnamed == 0
    assert [c.videos for c in summary.counts] == [4, 2, 4]
    header, *rows = summary.table()
    assert header[-3:] == AUS
    assert " of " in rows[0][-1], "positives of labelled frames"


def test_too_few_people_for_three_splits(tmp_path: Path) -> None:
    data, _ = make_data(tmp_path / "data", videos=2)
    with pytest.raises(
        DataError, match=r"too few subjects to split: .*, got 2, expected at least 3, one for each split"
    ):
        split_data(data)


def test_missing_labels_are_reported_early(tmp_path: Path) -> None:
    data, labels = make_data(tmp_path / "data")
    write_text(
        data / "splits.csv",
        "video,subject,split\nv0,a,fit\nv1,b,fit\nv2,c,fit\nv3,d,select\nv4,e,select\nv5,f,validation\n",
    )
    path = data / "annotations" / "occurrence" / "v5.csv"
    write_text(path, ",".join(AUS) + "\n" + "".join(f"{row[0]},,{row[2]}\n" for row in labels[5]))
    log = Listener()
    run_check(data, log)
    assert any(line == "1 AUs have no label in validation, so that they cannot be scored: AU12L" for line in log.lines)
    assert any(line.startswith("3 AUs are not labelled in all of ") for line in log.lines)
    for k in range(3):
        path = data / "annotations" / "occurrence" / f"v{k}.csv"
        write_text(path, ",".join(AUS) + "\n" + "".join(f"{row[0]},,{row[2]}\n" for row in labels[k]))
    with pytest.raises(DataError, match=r"an AU without a positive: .*got AU12L: 0 of 0 annotated frames of fit"):
        run_check(data)


def test_some_of_the_aus_are_learned(tmp_path: Path) -> None:
    data, labels = make_data(tmp_path / "data")
    split_data(data)
    places = {key: tmp_path / "out" / key for key in ("labels", "info", "data_docs")}
    check_data(data=data, **places, params=parse_params({"aus": ["smile", "AU9"], "check_data": {"few_positives": 0}}))
    table = store.read_table(places["labels"])
    assert table.column_names[5:] == ["AU9", "smile"], "in the order of the files"
    for k in range(len(labels)):
        write_faces(tmp_path / "faces" / f"v{k}.arrow", [b""] * ROWS)
    frames = load_frames(places["labels"], tmp_path / "faces")
    assert frames.aus == ("AU9", "smile")
    np.testing.assert_array_equal(frames.labels.reshape(len(labels), ROWS, 2), labels[:, :, [0, 2]])
    np.testing.assert_array_equal(frames.labelled, frames.labels >= 0)
    with pytest.raises(DataError, match=r"an AU without annotations: .*got AU4, expected AU9,AU12L,smile"):
        check_data(data=data, **places, params=parse_params({"aus": "AU9,AU4"}))
