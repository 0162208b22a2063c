"""What a GPU computes with next, made by a thread while it computes: batches of a fit, faces of a scoring."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from aupair.ranking import distributed
from aupair.ranking.losses import PairBatch
from aupair.ranking.sampling import Sampler

T = TypeVar("T")

Faces = Callable[[np.ndarray], np.ndarray]
"""rows (B,) -> faces (B, S, S, 3) uint8, or numbers that stand for them (B, D) float32"""

DEPTH = 2
"""how many are made ahead: one may be ready while the next is in the making"""


def prefetch_depth(device: torch.device) -> int:
    """Say how many to make ahead: none for a CPU, whose cores the step needs itself."""
    return DEPTH if device.type == "cuda" else 0


def prefetch(make: Callable[[int], T], items: Sequence[int], depth: int) -> Generator[T, None, None]:
    """Give `make` of each item, in order; a thread makes up to `depth` of them before they are asked for.

    What `make` raises is raised where its item is asked for. Close it if it isn't asked to the end.
    """
    if depth == 0:
        yield from map(make, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as maker:
        made = deque(maker.submit(make, item) for item in islice(waiting, depth))
        try:
            while made:
                result = made.popleft().result()
                made.extend(maker.submit(make, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in made:
                future.cancel()


@dataclass(frozen=True)
class Batch:
    """What a step computes with.

    Attributes:
        rows: (B,) frames of the batch.
        images: (b, S, S, 3) uint8 or (b, D) float32, of this process's share of them.
        pairs: all pairs of the batch.
    """

    rows: np.ndarray
    images: Tensor
    pairs: PairBatch

    def to(self, device: torch.device) -> "Batch":
        """Copy it to a device; from pinned memory that waits for nothing."""
        pairs = PairBatch(*(tensor.to(device, non_blocking=True) for tensor in vars(self.pairs).values()))
        return Batch(self.rows, self.images.to(device, non_blocking=True), pairs)


def batch_loader(
    sampler: Sampler, faces: Faces, steps: Sequence[int], device: torch.device, depth: int
) -> Generator[Batch, None, None]:
    """Give the batches of some steps, in host memory; the numbers don't depend on `depth`."""

    def make(step: int) -> Batch:
        rows, pairs, weight = sampler(step)
        images = torch.from_numpy(faces(rows[distributed.local_slice(len(rows))]))
        on_host = PairBatch.from_pairs(pairs, weight)
        pinned = PairBatch(*(pin(tensor, device) for tensor in vars(on_host).values()))
        return Batch(rows, pin(images, device), pinned)

    return prefetch(make, steps, depth)


def pin(tensor: Tensor, device: torch.device) -> Tensor:
    """Put a tensor where a device can copy it from while it computes: pinned memory for a GPU."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
