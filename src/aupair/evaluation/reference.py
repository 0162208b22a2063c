"""The training reference: detection of videos that differ from those that the model was trained on.

A frame has signals in five groups (`GROUPS`). In each group, the distance of a frame is the Mahalanobis distance from the
frames of `fit`, divided by the square root of the number of signals; the distance of a video is the median over its frames.
The limit of a group is calibrated on the videos of `select`, on which the networks were not trained: it is the upper
prediction limit for the distance of one more such video, with log-normally distributed distances. A video differs if it
exceeds the limit of any group, as about one in a hundred videos like those of training does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aupair import store
from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.data.quality import load_quality
from aupair.evaluation.selection import Outputs
from aupair.faces.appearance import describe_faces
from aupair.log import SILENT, Log

GROUPS = ("appearance", "landmarks", "face size", "pseudo-intensity", "uncertainty")
"""appearance: colour, contrast and sharpness of the aligned face; landmarks: the three quality signals"""
FALSE_ALARMS = 0.01
"""The expected share of videos like those of training that are reported as different."""
KEY = "training_reference"
"""The key of the reference in selection.json."""
_FRAMES = 50
"""The number of frames of a video that are read, evenly spaced."""
_VIDEOS = 3
"""The minimum number of videos of `select` from which a limit is computed."""
_OFFSETS = np.array([0.01, 1.01, 0.01])
"""Constants that keep the logarithms of the quality signals finite; the detector's score is subtracted from its constant."""
_RIDGE = 0.01
"""The share of each variance that is added to it, so that the covariance of dependent signals can be inverted."""

Signals = Mapping[str, np.ndarray]
"""by group (n, D) float, a row for each frame, NaN where unknown"""


def build_signals(y_hat: np.ndarray, unguarded: np.ndarray, quality: np.ndarray, seen: np.ndarray) -> Signals:
    """Return the signals of n frames by group.

    Args:
        y_hat, unguarded: (n, A), the pseudo-intensities, and sigma without the guard of h.
        quality: (n, 3), see `load_quality`.
        seen: (n, 15), the appearance of the face and the logarithm of its size.
    """
    sign = np.array([1, -1, 1])
    landmarks = np.log(np.maximum(_OFFSETS + sign * quality, 1e-3))
    values = (seen[:, :-1], landmarks, seen[:, -1:], y_hat, np.log(unguarded))
    return {group: np.asarray(part, np.float64) for group, part in zip(GROUPS, values)}


@dataclass(frozen=True)
class Group:
    """The frames of `fit` in one group of D signals.

    Attributes:
        center: (D,) the mean.
        precision: (D, D) the inverse of the covariance.
        limit: the distance beyond which a video differs; infinite without a limit.
    """

    center: np.ndarray
    precision: np.ndarray
    limit: float = np.inf

    @classmethod
    def from_frames(cls, values: np.ndarray) -> "Group | None":
        """Return the group of frames (n, D); None if the signals are unknown."""
        known = values[np.isfinite(values).all(axis=1)]
        if len(known) <= values.shape[1]:
            return None
        covariance = np.atleast_2d(np.cov(known.T))
        covariance[np.diag_indices_from(covariance)] += _RIDGE * np.diag(covariance) + 1e-6
        return cls(known.mean(axis=0), np.linalg.inv(covariance))

    def distance(self, values: np.ndarray) -> float:
        """Return the distance of a video with signals (n, D); NaN if they are unknown in all frames."""
        known = values[np.isfinite(values).all(axis=1)] - self.center
        if not len(known):
            return np.nan
        squares = np.einsum("ni,ij,nj->n", known, self.precision, known) / len(self.center)
        return float(np.median(np.sqrt(np.maximum(squares, 1e-12))))


@dataclass(frozen=True)
class Reference:
    """The training reference.

    Attributes:
        synthetic: whether the training faces are synthetic.
        groups: those whose signals are known.
    """

    synthetic: bool
    groups: Mapping[str, Group]

    def differing(self, signals: Signals) -> dict[str, float]:
        """Return the groups in which a video differs, with its distance as a multiple of the limit."""
        ratios = {name: group.distance(signals[name]) / group.limit for name, group in self.groups.items()}
        return {name: ratio for name, ratio in ratios.items() if ratio > 1}

    def to_json(self) -> dict[str, Any]:
        """Return the reference as a tree for selection.json."""
        groups = {name: vars(group) for name, group in self.groups.items()}
        return {"synthetic": self.synthetic, "false_alarms": FALSE_ALARMS, "groups": groups}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Reference | None":
        """Return the reference stored in the content of selection.json; None if an older version wrote it."""
        if KEY not in tree:
            return None
        groups = {}
        for name, own in tree[KEY]["groups"].items():
            limit = np.inf if own["limit"] is None else float(own["limit"])
            groups[name] = Group(np.array(own["center"]), np.array(own["precision"]), limit)
        return cls(tree[KEY]["synthetic"], groups)


def fit_reference(frames: Frames, outputs: Outputs, faces: Path, synthetic: bool, log: Log = SILENT) -> Reference:
    """Fit the reference to the videos of `fit`, with limits from those of `select`; log how many of `validation` differ.

    Args:
        faces: the folder with a file of faces for each video.
        synthetic: whether the faces are synthetic.
    """
    quality = load_quality(faces, frames)
    videos: dict[str, list[Signals]] = {split: [] for split in SPLITS}
    for name, rows in zip(frames.videos, frames.slices()):
        known = rows.start + np.flatnonzero(frames.ok[rows])
        if len(known):
            sample = known[np.unique(np.linspace(0, len(known) - 1, _FRAMES).astype(int))]
            seen = _read_seen(faces / f"{name}.arrow", sample - rows.start)
            signals = build_signals(outputs.y_hat[sample], outputs.unguarded[sample], quality[sample], seen)
            videos[SPLITS[frames.split[rows.start]]].append(signals)
    fitted = {name: Group.from_frames(np.concatenate([own[name] for own in videos["fit"]])) for name in GROUPS}
    groups = {name: group for name, group in fitted.items() if group is not None}
    for name, group in groups.items():
        distances = np.array([group.distance(own[name]) for own in videos["select"]])
        groups[name] = replace(group, limit=_prediction_limit(distances, FALSE_ALARMS / len(groups)))
    reference = Reference(synthetic, groups)
    others = [reference.differing(own) for own in videos["validation"]]
    log.line(f"{sum(map(bool, others))} of {len(others)} videos of validation differ from those of fit")
    return reference


def _read_seen(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return the appearance and the logarithm of the size of the faces in some rows of a file of faces: (n, 15)."""
    table = store.read_faces(path).take(rows)
    images = [store.decode_jpeg(jpeg, path) for jpeg in table["jpeg"].to_pylist()]
    transforms = np.array(table["transform"].to_pylist(), np.float64).reshape(-1, 2, 3)
    return describe_faces(images, transforms)


def _prediction_limit(distances: np.ndarray, level: float) -> float:
    """Return the limit that the distance of one more video exceeds with probability `level`; infinity for too few videos.

    With mean m and standard deviation s of n logarithms: exp(m + t s sqrt(1 + 1/n)), t being the quantile of Student's t
    with n - 1 degrees of freedom (Hahn and Meeker, Statistical Intervals, 1991, chapter 4).
    """
    logs = np.log(distances[np.isfinite(distances)])
    if len(logs) < _VIDEOS:
        return np.inf
    from scipy.special import stdtrit

    t = stdtrit(len(logs) - 1, 1 - level)
    return float(np.exp(logs.mean() + t * logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))))
