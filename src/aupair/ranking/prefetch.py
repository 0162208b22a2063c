"""Preparation of batches and faces in a thread while networks compute."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from aupair.ranking import distributed
from aupair.ranking.losses import PairBatch
from aupair.ranking.sampling import Sampler

T = TypeVar("T")

Faces = Callable[[np.ndarray], np.ndarray]
"""rows (B,) -> faces (B, S, S, 3) uint8, or features (B, D) float32"""

DEPTH = 2
"""number of items prepared in advance: one may be ready while the next is being prepared"""


def prefetch_depth(device: torch.device) -> int:
    """Return the number of items to prepare in advance: none for a CPU, whose cores are busy with the step itself."""
    return DEPTH if device.type == "cuda" else 0


def prefetch(make: Callable[[int], T], items: Iterable[int], depth: int) -> Generator[T, None, None]:
    """Yield `make(item)` for each item, in order; a thread prepares up to `depth` results in advance.

    An exception of `make` is raised when its item is requested. The caller must exhaust or close the generator.
    """
    if depth == 0:
        yield from map(make, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        pending = deque(thread.submit(make, item) for item in islice(waiting, depth))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(thread.submit(make, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def prefetch_items(items: Iterable[T], size: int, depth: int = DEPTH) -> Generator[T, None, None]:
    """Yield items in order; a thread reads up to `depth` groups of `size` items in advance."""
    iterator = iter(items)
    with closing(prefetch(lambda _: list(islice(iterator, size)), count(), depth)) as groups:
        for group in groups:
            if not group:
                return
            yield from group


@dataclass(frozen=True)
class Batch:
    """The input of a training step.

    Attributes:
        rows: (B,) frames of the batch.
        images: (b, S, S, 3) uint8 or (b, D) float32, for this process's share of the frames.
        pairs: all pairs of the batch.
    """

    rows: np.ndarray
    images: Tensor
    pairs: PairBatch

    def to(self, device: torch.device) -> "Batch":
        """Return a copy on a device; copying from pinned memory does not block."""
        pairs = PairBatch(*(tensor.to(device, non_blocking=True) for tensor in vars(self.pairs).values()))
        return Batch(self.rows, self.images.to(device, non_blocking=True), pairs)


def batch_loader(
    sampler: Sampler, faces: Callable[[np.ndarray, int], np.ndarray], steps: Sequence[int], device: torch.device,
    depth: int,
) -> Generator[Batch, None, None]:  # fmt: skip
    """Yield the batch of each step, in CPU memory; `depth` has no effect on the results.

    Args:
        faces: (rows, step) -> images or features, see `Faces`.
    """

    def make(step: int) -> Batch:
        rows, pairs, weight = sampler(step)
        images = torch.from_numpy(faces(rows[distributed.local_slice(len(rows))], step))
        pair_batch = PairBatch.from_pairs(pairs, weight)
        pinned = PairBatch(*(pin(tensor, device) for tensor in vars(pair_batch).values()))
        return Batch(rows, pin(images, device), pinned)

    return prefetch(make, steps, depth)


def pin(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to pinned memory if the device is a GPU, so that copying overlaps with computing."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
