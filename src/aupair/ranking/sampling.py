"""What a training step sees: rows of frames and the pairs among them, from groups or from an explicit list."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from aupair.data.frames import Frames
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights


class Sampler(Protocol):
    """Gives the batch of a step; the same step of the same sampler is always the same batch."""

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        """Give rows (B,), pairs whose i and j point into them, and the pairs' weights."""


@dataclass(frozen=True)
class GroupSampler:
    """Batches of `videos` groups, each of another video, with every pair of a video (# ours).

    Attributes:
        frames: all frames.
        groups: (G, K) rows; groups of one video stand together.
        videos: groups in a batch; fewer where there are fewer videos.
        seed: seed of the order.
    """

    frames: Frames
    groups: np.ndarray
    videos: int
    seed: tuple[int, ...]

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        video_of_group = self.frames.video[self.groups[:, 0]]
        _, first, counts = np.unique(video_of_group, return_index=True, return_counts=True)
        per_batch = min(self.videos, len(first))
        batches = len(first) // per_batch  # an epoch shows each video once; the rest waits for the next order
        epoch, batch = divmod(step, batches)
        order = np.random.default_rng([*self.seed, epoch]).permutation(len(first))
        chosen = order[batch * per_batch : (batch + 1) * per_batch]
        pick = np.random.default_rng([*self.seed, epoch, batch]).integers(counts[chosen])
        rows = self.groups[first[chosen] + pick].ravel()
        pairs = all_pairs(self.frames.labels[rows], self.frames.video[rows])
        return rows, pairs, cell_weights(pairs, self.frames.video[rows])


@dataclass(frozen=True)
class ListSampler:
    """Batches of explicit pairs in a new order each epoch, averaged over pairs (# authors)."""

    pairs: Pairs
    size: int
    seed: tuple[int, ...]

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        size = min(self.size, len(self.pairs))
        epoch, batch = divmod(step, len(self.pairs) // size)
        order = epoch_order(self.seed, epoch, len(self.pairs))
        part = self.pairs[order[batch * size : (batch + 1) * size]]
        rows, local = np.unique(np.concatenate([part.i, part.j]), return_inverse=True)
        weight = np.full(len(part), 1 / len(part), np.float32)
        return rows, Pairs(local[: len(part)], local[len(part) :], part.au, part.r), weight


@lru_cache(maxsize=16)
def epoch_order(seed: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """Give the order of an epoch's pairs, (count,) int64. Drawn once: of 120,000 that is most of what a batch takes to draw."""
    order = np.random.default_rng([*seed, epoch]).permutation(count)
    order.flags.writeable = False
    return order
