"""A network compiled for training, where the params ask for it and the machine can."""

from itertools import islice

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from aupair.log import Log
from aupair.ranking.sampling import Sampler

LOOK = 8
"""batches whose sizes are looked at"""


class CompiledForward:
    """A network whose full batches go through what torch.compile makes of it; the network itself stays as it is.

    A batch of another size takes the plain way: each size would be compiled for itself, for a minute. Which size is
    the full one depends on the sampler alone, so that a fit that is taken up computes each step as it would have.
    Dropout draws what it draws without compiling. On a GPU the kernels of a step are recorded once and replayed as a
    CUDA graph: Python has 2.4 ms to do in a step of 12 ms instead of 8.4, and lets the thread that makes the next batch
    have its turn (docs/log.md, 2026-11-26).

    Args:
        size: frames of a full batch, all processes together.
        log: is told in one line if it cannot be compiled here; then every batch takes the plain way. What a GPU cannot
            record it raises at the second full batch.
    """

    def __init__(self, network: nn.Module, size: int, log: Log) -> None:
        self._network, self._size, self._log = network, size, log
        on_gpu = next(network.parameters()).is_cuda
        # one graph or none: a network that is compiled in parts could fail in the midst of a step
        self._fast = torch.compile(
            network, fullgraph=True, dynamic=False, options={"fallback_random": True, "triton.cudagraphs": on_gpu}
        )

    def __call__(self, x: Tensor, count: int) -> Tensor:
        """Forward this process's share of a batch of `count` frames: (b, ...) -> (b, A)."""
        if count != self._size:
            return self._network(x)
        try:
            return self._fast(x)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            self._log.line(f"not compiled: {reason[:160]}")
            self._size = 0
            return self._network(x)


def full_batch_size(sampler: Sampler, steps: int) -> int:
    """Give the size of a full batch: the largest of the first few."""
    return max(len(sampler(step)[0]) for step in islice(range(steps), LOOK))
