"""Tests of the table of frames, against a loop over labels and faces."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aupair import store
from aupair.aus import AFFWILD2, SPLITS
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError

VIDEOS = {"b": (7, 5), "a_left": (4, 4), "c": (3, 6), "a_right": (4, 0)}
"""name: (label rows, decoded frames); the labels of c are fewer, those of b more than the frames"""
SUBJECT = {"a_left": "s2", "a_right": "s1", "b": "s2", "c": "s0"}
SPLIT = {"a_left": "fit", "a_right": "validation", "b": "fit", "c": "select"}


def write_video(path: Path, statuses: list[str]) -> None:
    n = len(statuses)
    blank = {
        "landmarks": [[np.nan] * 136] * n,
        "transform": [[np.nan] * 6] * n,
        "jpeg": [b""] * n,
        "tracked": [False] * n,
    }
    numbers = {key: [np.nan] * n for key in ("detector_score", "pass_disagreement", "procrustes_residual")}
    rows = {"frame": list(range(n)), "time": [k / 25 for k in range(n)], "status": statuses}
    store.write_faces(path, [{name: {**rows, **blank, **numbers}[name] for name in store.FACES_SCHEMA.names}], {})


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    rows = [(video, frame) for video, (labels, _) in VIDEOS.items() for frame in range(labels)]
    rng.shuffle(rows)
    values = rng.integers(0, 2, (len(rows), 12)).astype(np.int8)
    values[::4] = -1
    videos = [video for video, _ in rows]
    table = {
        "video": videos,
        "subject": [SUBJECT[v] for v in videos],
        "split": [SPLIT[v] for v in videos],
        "frame": pa.array([int(frame) for _, frame in rows], pa.int32()),
        "time": [int(frame) / 30 for _, frame in rows],
    }
    store.write_table(
        tmp_path / "labels.parquet", pa.table({**table, **{au: values[:, k] for k, au in enumerate(AFFWILD2)}})
    )
    for video, (_, frames) in VIDEOS.items():
        statuses = [store.STATUSES[int(k)] for k in rng.integers(0, 3, frames)]
        write_video(tmp_path / "faces" / f"{video}.arrow", statuses)
    return tmp_path / "labels.parquet", tmp_path / "faces"


def naive(labels: Path, faces: Path) -> list[tuple[object, ...]]:
    known = {(row["video"], row["frame"]): [row[au] for au in AFFWILD2] for row in store.read_table(labels).to_pylist()}
    result = []
    for video in sorted(VIDEOS):
        for face in store.read_faces(faces / f"{video}.arrow").to_pylist():
            cells = known.get((video, face["frame"]), [-1] * 12)
            ok = face["status"] == "ok"
            result.append((video, SUBJECT[video], SPLIT[video], face["frame"], face["time"], ok, cells))
    return result


def test_equals_a_loop_with_fewer_and_more_labels_than_frames(artifacts: tuple[Path, Path]) -> None:
    frames = load_frames(*artifacts)
    videos = [frames.videos[k] for k in frames.video]
    subjects, splits = [frames.subjects[k] for k in frames.subject], [SPLITS[k] for k in frames.split]
    got = zip(videos, subjects, splits, frames.frame, frames.time, frames.ok, frames.labels.tolist(), strict=True)
    assert list(got) == naive(*artifacts)
    columns = (frames.video, frames.subject, frames.split, frames.frame, frames.time, frames.ok, frames.labels)
    assert [str(c.dtype) for c in columns] == ["int32", "int32", "int8", "int32", "float64", "bool", "int8"]
    assert len(frames) == sum(count for _, count in VIDEOS.values())


def test_usable_split_and_slices(artifacts: tuple[Path, Path]) -> None:
    frames = load_frames(*artifacts)
    for k in range(len(frames)):
        assert frames.usable[k] == (bool(frames.ok[k]) and -1 not in frames.labels[k])
        assert frames.of_split("fit")[k] == (SPLIT[frames.videos[frames.video[k]]] == "fit")
    for index, rows in enumerate(frames.slices()):
        assert np.flatnonzero(frames.video == index).tolist() == list(range(rows.start, rows.stop))
    assert [rows.stop - rows.start for rows in frames.slices()] == [VIDEOS[video][1] for video in sorted(VIDEOS)]


def test_missing_and_corrupt_files(artifacts: tuple[Path, Path]) -> None:
    labels, faces = artifacts
    (faces / "b.arrow").write_bytes(b"no arrow")
    with pytest.raises(ArtifactError, match=r"^the faces of a video are damaged: in .*b\.arrow"):
        load_frames(labels, faces)
    (faces / "b.arrow").unlink()
    with pytest.raises(ArtifactError, match=r"^a labelled video has no faces: in .*b\.arrow; run preprocess-faces"):
        load_frames(labels, faces)
    labels.write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match=r"^not a readable parquet table"):
        load_frames(labels, faces)
