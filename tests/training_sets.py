"""A small training set of f and h, with any faces: what several tests of the ranking learn from."""

from collections.abc import Callable
from typing import Any

import numpy as np

from aupair.data.frames import Frames
from aupair.ranking.pairs import assign_folds, draw_groups, draw_pairs
from aupair.ranking.samples import TrainingSet

SIZE, LENGTH, VIDEOS = 32, 12, 8
SPLIT = np.array((0, 0, 0, 0, 0, 1, 1, 2), np.int8)


def small_training_set(faces_of: Callable[[np.ndarray], Any], levels: int = 2, folds: int = 2) -> TrainingSet:
    """Videos of a person each, random labels (n, 12), every seventh frame without a face; faces of the labels."""
    n = VIDEOS * LENGTH
    video = np.repeat(np.arange(VIDEOS, dtype=np.int32), LENGTH)
    frame = np.tile(np.arange(LENGTH, dtype=np.int32), VIDEOS)
    labels = np.random.default_rng(0).integers(0, levels, (n, 12)).astype(np.int8)
    labels[3] = -1
    ok = np.ones(n, bool)
    ok[::7] = False
    names = tuple(f"v{v}" for v in range(VIDEOS))
    frames = Frames(names, names, video, video, SPLIT[video], frame, frame / 25.0, ok, labels)
    pairs = {split: draw_pairs(frames, split, 40, (0, 2, k)) for k, split in enumerate(("fit", "select", "validation"))}
    groups = draw_groups(frames, 6, 4, (0, 1))
    return TrainingSet(frames, faces_of(labels), groups, pairs, assign_folds(frames, folds, (0, 3)))
