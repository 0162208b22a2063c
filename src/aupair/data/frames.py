"""The frames of all videos as rows of flat arrays, which the stages from sample-pairs on read."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupair import store
from aupair.aus import NOT_ANNOTATED, SPLITS
from aupair.errors import ArtifactError

LABEL_COLUMNS = ("video", "subject", "split", "frame", "time")
"""The columns of the labels table that precede the columns of the AUs."""


@dataclass(frozen=True)
class Frames:
    """N frames, sorted by video, then by frame, with a row for every decoded frame.

    Attributes:
        aus: names of the A Action Units.
        videos: V names.
        subjects: names of persons.
        video: (N,) int32, index into videos.
        subject: (N,) int32, index into subjects.
        split: (N,) int8, index into SPLITS.
        frame: (N,) int32, 0-based.
        time: (N,) float64, seconds from the start of the video.
        ok: (N,) bool, whether the frame has an aligned face.
        labels: (N, A) int8, the level of each AU, -1 where the AU is not annotated.
    """

    aus: tuple[str, ...]
    videos: tuple[str, ...]
    subjects: tuple[str, ...]
    video: np.ndarray
    subject: np.ndarray
    split: np.ndarray
    frame: np.ndarray
    time: np.ndarray
    ok: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def of_split(self, split: str) -> np.ndarray:
        """Return which frames belong to a split: (N,) bool."""
        return self.split == SPLITS.index(split)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all values on which the sampling of pairs and groups depends."""
        total = hashlib.sha256("\0".join(self.aus + self.videos + self.subjects).encode())
        for values in (self.video, self.subject, self.split, self.frame, self.ok, self.labels):
            total.update(np.ascontiguousarray(values).tobytes())
        return total.hexdigest()

    @property
    def labelled(self) -> np.ndarray:
        """Return which AUs are annotated in each frame, (N, A) bool."""
        return self.labels != NOT_ANNOTATED

    @property
    def usable(self) -> np.ndarray:
        """Return which frames have a face and the label of at least one AU, (N,) bool; only these may be sampled."""
        return self.ok & self.labelled.any(axis=1)

    def slices(self) -> list[slice]:
        """Return the rows of each video, in the order of `videos`."""
        edges = np.searchsorted(self.video, np.arange(len(self.videos) + 1))
        return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _read_labels(path: Path) -> pa.Table:
    """Read the labels table that check-data writes.

    Raises:
        ArtifactError: the file is missing or corrupt, or has other columns or values.
    """
    table, todo = store.read_table(path), "run check-data again"
    types = dict(zip(table.column_names, table.schema.types))
    aus = [name for name in types if name not in LABEL_COLUMNS]
    kinds = {
        "video": _is_text,
        "subject": _is_text,
        "split": _is_text,
        "frame": pa.types.is_integer,
        "time": pa.types.is_floating,
    }
    wrong = [
        name for name, fits in (kinds | dict.fromkeys(aus, pa.types.is_integer)).items() if not fits(types.get(name))
    ]
    if wrong or not aus:
        got = f"no or another {', '.join(wrong)}" if wrong else "no AU"
        raise ArtifactError(
            "not a table of labels", where=path, got=got, expected=f"{', '.join(LABEL_COLUMNS)}, AUs", todo=todo
        )
    splits = set(table["split"].unique().to_pylist())
    gaps = [name for name in types if table[name].null_count]
    if gaps or not splits <= set(SPLITS) or (len(table) and pc.min(table["frame"]).as_py() < 0):
        got = (
            f"empty cells in {', '.join(gaps)}"
            if gaps
            else f"splits {', '.join(map(str, splits))}, or a negative frame"
        )
        raise ArtifactError("wrong values in the labels", where=path, got=got, todo=todo)
    return table


def _is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def load_frames(labels: Path, faces: Path) -> Frames:
    """Join the labels with the faces, with a row for every decoded frame of every labelled video.

    The labels of frames without a label row are -1. Label rows without a frame are dropped; check-data warns of them.

    Raises:
        ArtifactError: a labelled video has no file of faces, the labels table is empty, or a file is corrupt.
    """
    table = _read_labels(labels)
    if len(table) == 0:
        raise ArtifactError("there is no label", where=labels, got="an empty table", todo="run check-data again")
    names = sorted(table["video"].unique().to_pylist())
    row_video = pc.index_in(table["video"], pa.array(names)).to_numpy()
    order = np.argsort(row_video, kind="stable")
    edges = np.searchsorted(row_video[order], np.arange(len(names) + 1))
    subject_of, split_of = (table[key].take(order[edges[:-1]]).to_pylist() for key in ("subject", "split"))
    subjects, subject_index = np.unique(subject_of, return_inverse=True)
    row_frame = table["frame"].to_numpy()
    aus = tuple(name for name in table.column_names if name not in LABEL_COLUMNS)
    row_labels = np.stack([table[au].to_numpy().astype(np.int8) for au in aus], axis=1)
    parts: list[dict[str, np.ndarray]] = []
    for index, name in enumerate(names):
        path = Path(faces) / f"{name}.arrow"
        if not path.exists():
            raise ArtifactError("a labelled video has no faces", where=path, todo="run preprocess-faces")
        rows = store.read_faces(path)
        n = len(rows)
        label_rows = order[edges[index] : edges[index + 1]]
        label_rows = label_rows[row_frame[label_rows] < n]
        matrix = np.full((n, len(aus)), NOT_ANNOTATED, np.int8)
        matrix[row_frame[label_rows]] = row_labels[label_rows]
        parts.append(
            {
                "video": np.full(n, index, np.int32),
                "subject": np.full(n, subject_index[index], np.int32),
                "split": np.full(n, SPLITS.index(split_of[index]), np.int8),
                "frame": rows["frame"].to_numpy(),
                "time": rows["time"].to_numpy(),
                "ok": pc.equal(rows["status"], "ok").to_numpy(),
                "labels": matrix,
            }
        )
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Frames(aus=aus, videos=tuple(names), subjects=tuple(map(str, subjects)), **columns)
