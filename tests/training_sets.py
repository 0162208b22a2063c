"""Frames, faces and training sets of f and h in memory, which the tests of the ranking share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights, draw_folds, draw_groups, draw_pairs
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sampling import Sampler
from aupair.training_params import Optimiser
from frame_sets import make_frames

SIZE, LENGTH = 32, 12
SPLIT = (0, 0, 0, 0, 0, 1, 1, 2)
NARROW = {"width": 0.05, "batch_norm": True, "weights": "none", "frozen_convolutions": 0}


class Faces:
    """Faces in memory: (n, S, S, 3) uint8."""

    size = SIZE

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels.astype(np.uint8)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]


@dataclass(frozen=True)
class RecordingTrainingSet(TrainingSet):
    """A training set that records the rows of every batch, in one list per network."""

    batches: list[list[np.ndarray]] = field(default_factory=list)

    def sampler(self, trained: np.ndarray, params: Optimiser, seed: tuple[int, ...]) -> Sampler:
        sampler, record = super().sampler(trained, params, seed), []
        self.batches.append(record)

        def recording(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            batch = sampler(step)
            record.append(batch[0])
            return batch

        return recording


def draw_fixed_pairs(frames: Frames, count: int) -> dict[str, Pairs]:
    """Return so many pairs for each AU and split."""
    return {split: draw_pairs(frames, split, count, (0, 2, k)) for k, split in enumerate(SPLITS)}


def small_training_set(faces_of: Callable[[np.ndarray], Any], levels: int = 2, folds: int = 2) -> TrainingSet:
    """Return videos of a person each, random labels (n, 12), every seventh frame without a face; faces of the labels."""
    n = len(SPLIT) * LENGTH
    labels = np.random.default_rng(0).integers(0, levels, (n, 12)).astype(np.int8)
    labels[3] = -1
    frames = make_frames(SPLIT, labels, ok=np.arange(n) % 7 != 0)
    groups = draw_groups(frames, 6, 4, (0, 1))
    return TrainingSet(
        frames, faces_of(labels), groups, draw_fixed_pairs(frames, 40), draw_folds(frames, folds, (0, 3))
    )


def make_batch(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Pairs, np.ndarray]:
    """Return rows of one video with all pairs among them and their weights, as a sampler does."""
    video = np.zeros(len(rows), np.int64)
    pairs = all_pairs(labels[rows], video)
    return rows, pairs, cell_weights(pairs, video)


def alternating_labels(count: int) -> np.ndarray:
    """Return labels (count, 12) of which AU1 alone is annotated, active in every other frame."""
    labels = np.full((count, 12), -1, np.int8)
    labels[:, 0] = np.arange(count) % 2
    return labels


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two networks have the same bits."""
    state, again = one.state_dict(), other.state_dict()
    return state.keys() == again.keys() and all((state[key] == again[key]).all() for key in state)


def same_fit(one: tuple[dict[str, np.ndarray], Any], other: tuple[dict[str, np.ndarray], Any]) -> bool:
    """Return whether two fits have the same curves, and the same bits as weights."""
    weights, again = one[0], other[0]
    return (
        one[1] == other[1] and weights.keys() == again.keys() and all((weights[k] == again[k]).all() for k in weights)
    )
