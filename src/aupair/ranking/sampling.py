"""Samplers: the frames of a training step and the pairs among them, from groups or from an explicit list."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from aupair.data.frames import Frames
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights


class Sampler(Protocol):
    """A deterministic function from the number of a step to its batch."""

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        """Return rows (B,) int64, pairs with i and j as indices into the rows, and the pairs' weights (M,) float32."""


@dataclass(frozen=True)
class GroupSampler:
    """A sampler of batches with one group of each of `videos` videos and all pairs inside each group (# ours).

    Attributes:
        frames: all frames.
        groups: (G, K), rows of `frames`; the groups of one video are adjacent.
        videos: number of groups in a batch, at most the number of videos.
        seed: seed of the order in which videos and groups are drawn.
    """

    frames: Frames
    groups: np.ndarray
    videos: int
    seed: tuple[int, ...]

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        video_of_group = self.frames.video[self.groups[:, 0]]
        _, first, counts = np.unique(video_of_group, return_index=True, return_counts=True)
        per_batch = min(self.videos, len(first))
        batches = len(first) // per_batch  # an epoch has each video at most once
        epoch, batch = divmod(step, batches)
        order = np.random.default_rng([*self.seed, epoch]).permutation(len(first))
        chosen = order[batch * per_batch : (batch + 1) * per_batch]
        pick = np.random.default_rng([*self.seed, epoch, batch]).integers(counts[chosen])
        rows = self.groups[first[chosen] + pick].ravel()
        pairs = all_pairs(self.frames.labels[rows], self.frames.video[rows])
        return rows, pairs, cell_weights(pairs, self.frames.video[rows])


@dataclass(frozen=True)
class ListSampler:
    """A sampler of an explicit list of pairs of equal weight, in a new order in each epoch (# authors)."""

    pairs: Pairs
    size: int
    seed: tuple[int, ...]

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        size = min(self.size, len(self.pairs))
        epoch, batch = divmod(step, len(self.pairs) // size)
        order = _epoch_order(self.seed, epoch, len(self.pairs))
        part = self.pairs[order[batch * size : (batch + 1) * size]]
        rows, local = np.unique(np.concatenate([part.i, part.j]), return_inverse=True)
        weight = np.full(len(part), 1 / len(part), np.float32)
        return rows, Pairs(local[: len(part)], local[len(part) :], part.au, part.r), weight


@lru_cache(maxsize=16)
def _epoch_order(seed: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """Return the order of an epoch's pairs, (count,) int64; cached, since drawing it takes longer than a batch."""
    order = np.random.default_rng([*seed, epoch]).permutation(count)
    order.flags.writeable = False
    return order
