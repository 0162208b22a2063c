"""The output of sample-pairs (fixed pairs, training groups, folds of subjects), and the training set built from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from aupair import store
from aupair.aus import SPLITS, is_one_sided
from aupair.data.frames import Frames, load_frames
from aupair.errors import ArtifactError, DataError
from aupair.params import SamplePairs
from aupair.ranking.embeddings import Embeddings
from aupair.ranking.images import FaceImages
from aupair.ranking.pairs import Pairs, count_pairs, draw_folds, draw_groups, draw_pairs
from aupair.ranking.sampling import GroupSampler, ListSampler, Sampler
from aupair.training_params import Optimiser


@dataclass(frozen=True)
class Samples:
    """The samples that sample-pairs draws.

    Attributes:
        fingerprint: hash of the frames to which the rows refer.
        aus: names of the AUs.
        pairs: fixed pairs of each split.
        groups: (G, K) int64 rows of fit frames; None in reference mode, in which training uses the pairs of fit.
        folds: (subjects,) int8, the fold of each subject of fit, else -1.
        possible: for each split (A,) int64, the number of possible pairs.
    """

    fingerprint: str
    aus: tuple[str, ...]
    pairs: dict[str, Pairs]
    groups: np.ndarray | None
    folds: np.ndarray
    possible: dict[str, np.ndarray]

    def save(self, folder: Path) -> None:
        """Write a folder: pairs.parquet, groups and folds as safetensors, counts.json."""
        with store.atomic(folder) as temporary:
            temporary.mkdir()
            parts = [
                {"split": pa.array([name] * len(p), pa.string()), "i": p.i, "j": p.j, "au": p.au, "r": p.r}
                for name, p in self.pairs.items()
            ]
            store.write_table(temporary / "pairs.parquet", pa.concat_tables([pa.table(part) for part in parts]))
            arrays = {"folds": self.folds} | ({} if self.groups is None else {"groups": self.groups})
            store.write_arrays(temporary / "groups.safetensors", arrays)
            store.write_json(temporary / "counts.json", {"fingerprint": self.fingerprint, "pairs": self.counts()})

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return the numbers of possible and of drawn pairs by split and AU."""
        return {
            split: {
                au: {"possible": int(self.possible[split][a]), "drawn": int((self.pairs[split].au == a).sum())}
                for a, au in enumerate(self.aus)
            }
            for split in SPLITS
        }

    def summary(self) -> list[str]:
        """Return a description of the samples, in lines."""
        lines = [f"{split}: {len(self.pairs[split])} fixed pairs" for split in SPLITS]
        if self.groups is not None:
            lines.append(f"fit: {len(self.groups)} groups of {self.groups.shape[1]} frames")
        if self.folds.max() >= 0:
            lines.append(f"fit: {int(self.folds.max()) + 1} folds of people")
        return [
            *lines,
            "pairs drawn, from all there are (where those are few, some are drawn twice):",
            *_aligned(self.table()),
        ]

    def table(self) -> list[list[str]]:
        """Return a header, then a row for each AU with the numbers of drawn and possible pairs by split."""
        counts = self.counts()
        cells = ([f"{n['drawn']:,} from {n['possible']:,}" for n in (counts[s][au] for s in SPLITS)] for au in self.aus)
        return [["AU", *SPLITS], *([au, *row] for au, row in zip(self.aus, cells))]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells so that columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]


def draw_samples(frames: Frames, params: SamplePairs, seed: int) -> Samples:
    """Draw pairs, groups and folds.

    Raises:
        DataError: fit or select has no pair, an AU is not labelled in any frame of fit with a face, or there are too few
            subjects for that many folds.
    """
    labelled = frames.labelled[frames.ok & frames.of_split("fit")].any(axis=0)
    if not labelled.all():
        missing = ", ".join(au for au, some in zip(frames.aus, labelled) if not some)
        todo = "add subjects with labels and faces to fit, or name the other AUs in `aus`"
        raise DataError("an AU without a labelled face in fit", got=missing, todo=todo)
    groups, counts = None, dict.fromkeys(SPLITS, params.valid_pairs)
    if params.mode == "groups":
        groups = draw_groups(frames, params.frames, params.groups, (seed, 1))
    else:
        counts["fit"] = params.train_pairs
    pairs = {split: draw_pairs(frames, split, counts[split], (seed, 2, k)) for k, split in enumerate(SPLITS)}
    for split in ("fit", "select"):
        if len(pairs[split]) == 0:
            raise DataError(
                f"no pair of frames in {split}", got="no video with a face in which an AU has two levels",
                todo="look at the statuses of preprocess-faces and the positives that `aupair split` prints",
            )  # fmt: skip
    folds = draw_folds(frames, params.folds, (seed, 3))
    _check_folds(frames, pairs["fit"].i if groups is None else groups[:, 0], folds, params.folds)
    return Samples(frames.fingerprint(), frames.aus, pairs, groups, folds, count_pairs(frames))


def _check_folds(frames: Frames, rows: np.ndarray, folds: np.ndarray, count: int) -> None:
    """Raise a DataError if a fold has no subjects, or if all training rows are in one fold."""
    if count < 2:
        return
    people = np.unique(frames.subject[frames.usable & frames.of_split("fit")])
    if len(np.unique(folds[people])) < count:
        raise DataError("too few people for cross-fitting", got=len(people), expected=f"at least {count} in fit")
    if len(np.unique(folds[frames.subject[rows]])) < 2:
        raise DataError(
            "too few people for cross-fitting", got="all pairs of fit are from one fold",
            expected="pairs in at least two folds", todo="add subjects, or set sample_pairs.folds: 1",
        )  # fmt: skip


def load_samples(folder: Path, frames: Frames) -> Samples:
    """Load the folder that `Samples.save` wrote.

    Raises:
        ArtifactError: a file is missing or corrupt, or faces, labels or splits have changed since it was written.
    """
    fingerprint = frames.fingerprint()
    counts = store.read_record(Path(folder) / "counts.json", _Counts)
    drawn_from = counts.fingerprint
    if drawn_from != fingerprint:
        raise ArtifactError(
            "pairs of other faces, labels or splits", where=folder, got=drawn_from[:12], expected=fingerprint[:12],
            todo="run sample-pairs again",
        )  # fmt: skip
    pairs = _read_pairs(Path(folder) / "pairs.parquet", frames)
    path = Path(folder) / "groups.safetensors"
    arrays = store.read_arrays(path)
    folds = store.check_array(arrays.get("folds"), "folds", (len(frames.subjects),), "i", path)
    groups = arrays.get("groups")
    if groups is not None:
        groups = store.check_array(groups, "groups", (None, None), "i", path)
        _check_range("groups", groups, len(frames), path)
    with store.fitting(Path(folder) / "counts.json"):
        possible = {s: np.array([counts.pairs[s][au].possible for au in frames.aus]) for s in SPLITS}
    return Samples(fingerprint, frames.aus, pairs, groups, folds, possible)


class _Count(store.Artifact):
    """The number of pairs of one AU and split."""

    possible: Annotated[int, Field(ge=0)]


class _Counts(store.Artifact):
    """The content of counts.json: the fingerprint of the frames, and counts by split and AU."""

    fingerprint: str = ""  # older versions did not write it
    pairs: dict[str, dict[str, _Count]]


def _read_pairs(path: Path, frames: Frames) -> dict[str, Pairs]:
    """Read the pairs of each split.

    Raises:
        ArtifactError: the file is missing or corrupt, or an index is out of range.
    """
    table = store.read_table(path)
    with store.fitting(path):
        split = table["split"].to_numpy(zero_copy_only=False)
        columns = {key: table[key].to_numpy() for key in ("i", "j", "au", "r")}
    for key, count in (("i", len(frames)), ("j", len(frames)), ("au", len(frames.aus))):
        _check_range(key, store.check_array(columns[key], key, (None,), "i", path), count, path)
    _check_range("r", store.check_array(columns["r"], "r", (None,), "i", path) + 1, 3, path)
    return {name: Pairs(**columns)[split == name] for name in SPLITS}


def _check_range(name: str, values: np.ndarray, count: int, path: Path) -> None:
    """Raise an ArtifactError unless all values are in 0..count - 1."""
    if len(values) and not (values.min() >= 0 and values.max() < count):
        got, expected = f"{name} from {values.min()} to {values.max()}", f"0 to {count - 1}"
        todo = "run sample-pairs again"
        raise ArtifactError("an index out of range", where=path, got=got, expected=expected, todo=todo)


@dataclass(frozen=True)
class TrainingSet:
    """The data that f and h are trained on.

    Attributes:
        frames: all frames of all splits.
        images: their faces, or the features of their faces from a frozen trunk.
        groups: (G, K) rows of fit frames (groups mode), or None.
        pairs: fixed pairs of each split; those of fit are the training list in reference mode.
        folds: (subjects,) int8, the fold of each fit subject, -1 without cross-fitting.
    """

    frames: Frames
    images: FaceImages | Embeddings
    groups: np.ndarray | None
    pairs: dict[str, Pairs]
    folds: np.ndarray

    @property
    def inputs(self) -> int:
        """Return the input size of a network: the side of its images in pixels, or its number of features."""
        return self.images.features if isinstance(self.images, Embeddings) else self.images.size

    def augmentation(self, strength: float) -> dict[str, Any]:
        """Return the arguments of FitJob for the augmentation.

        Features of a frozen trunk cannot be augmented in training; instead, each step uses one of the copies of a video.
        """
        if not isinstance(self.images, Embeddings):
            return {"augment": strength, "mirror": self.mirror}
        return {"draw": self.images.draw_copies} if self.images.copies else {}

    @property
    def mirror(self) -> np.ndarray | None:
        """Return the video of each frame, (N,) int32: the augmentation mirrors all faces of a video, or none.

        None, for no mirroring, if an AU belongs to one side of the face, since mirroring would change its label.
        """
        return None if any(map(is_one_sided, self.frames.aus)) else self.frames.video

    def training_masks(self) -> dict[str, np.ndarray]:
        """Return the fit frames on which each network is trained, (N,) bool; `final` first, then `fold0` ..."""
        fit_rows = self.frames.of_split("fit")
        fold = self.folds[self.frames.subject]
        return {"final": fit_rows} | {f"fold{k}": fit_rows & (fold != k) for k in range(int(self.folds.max()) + 1)}

    def scoring_mask(self, name: str) -> np.ndarray:
        """Return the frames that a network scores, (N,) bool.

        All networks score the splits select and validation. In fit, the network of a fold scores the frames of that
        fold, on which it was not trained; `final` scores fit only without cross-fitting.
        """
        fit_rows, fold = self.frames.of_split("fit"), self.folds[self.frames.subject]
        if name == "final":
            return ~fit_rows if self.folds.max() >= 0 else np.ones(len(fit_rows), bool)
        return ~fit_rows | (fold == int(name.removeprefix("fold")))

    def held_out_pairs(self, name: str) -> Pairs:
        """Return the fixed pairs that a network is evaluated on: those of `select`, or for a fold's network of its fold.

        They decide when training ends (`keep: best`, `patience`). Since the network of a fold then scores the same people,
        its y_hat is slightly better there than on new people. In reference mode, in which the list of pairs of fit is
        long, it is thinned out to about the length of that of `select`.
        """
        if name == "final":
            return self.pairs["select"]
        pairs = self.pairs["fit"][self.scoring_mask(name)[self.pairs["fit"].i]]
        return pairs[:: max(1, len(pairs) // max(1, len(self.pairs["select"])))]

    def sampler(self, trained: np.ndarray, params: Optimiser, seed: tuple[int, ...]) -> Sampler:
        """Return the sampler of a network's batches; `trained` (N,) bool marks the fit frames that it may use."""
        if self.groups is None:
            pairs = self.pairs["fit"]
            return ListSampler(pairs[trained[pairs.i]], params.batch // 2, seed)
        videos = max(1, params.batch // self.groups.shape[1])
        return GroupSampler(self.frames, self.groups[trained[self.groups[:, 0]]], videos, seed)


def load_training_set(labels: Path, faces: Path, pairs: Path, embeddings: Path | None = None) -> TrainingSet:
    """Load the training set from the artifacts of the first stages.

    Args:
        embeddings: the folder of the features of a frozen trunk, to train only heads; None: train networks on the faces.
    """
    frames = load_frames(labels, faces)
    samples = load_samples(pairs, frames)
    images = FaceImages(faces, frames) if embeddings is None else Embeddings(embeddings, frames)
    return TrainingSet(frames, images, samples.groups, samples.pairs, samples.folds)
