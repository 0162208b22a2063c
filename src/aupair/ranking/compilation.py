"""Compilation of forward passes with torch.compile, for training steps and for scoring."""

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn

from aupair.log import Log
from aupair.ranking.distributed import SharedBatchNorm
from aupair.ranking.sampling import Sampler

Forward = Callable[[Tensor, int], Tensor]
"""(this process's share of a batch (b, ...), number of frames in the whole batch) -> outputs (b, A)"""

SAMPLED_BATCHES = 8
"""number of batches that are sampled to find the size of a full batch"""


def compile_forward(network: nn.Module, sampler: Sampler, steps: int, log: Log) -> Forward:
    """Return the compiled forward pass, or the plain one with a line in the log if compiling is not possible."""
    if any(isinstance(module, SharedBatchNorm) for module in network.modules()):
        log.line("not compiled: the batch norms exchange statistics with other processes")
        return lambda x, frames: network(x)
    return _CompiledForward(network, full_batch_size(sampler, steps), log)


class _CompiledForward:
    """The forward pass of a network for full batches, compiled by torch.compile; the network itself is not changed.

    Batches of other sizes use the plain forward pass, since compiling takes a minute for each size. The size of a full
    batch depends only on the sampler, so that a resumed fit computes each step as an uninterrupted one does. Dropout
    draws the same masks as without compiling. On a GPU the kernels of a step are recorded once and replayed as a CUDA
    graph: Python is then busy for 2.4 ms of a step of 12 ms instead of 8.4, which leaves time for the thread that
    prepares the next batch (docs/log, 2026-11-26).

    Args:
        size: number of frames of a full batch, over all processes.
        log: receives one line if compiling fails; every batch then uses the plain forward pass. An operation that cannot
            be recorded in a CUDA graph raises an error at the second full batch.
    """

    def __init__(self, network: nn.Module, size: int, log: Log) -> None:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # slow to import

        self._failures = (TorchDynamoException, FailOnRecompileLimitHit)
        self._network, self._size, self._log = network, size, log
        on_gpu = next(network.parameters()).is_cuda
        # fullgraph: a network that is compiled in parts could fail in the middle of a step
        self._compiled = torch.compile(
            network, fullgraph=True, dynamic=False, options={"fallback_random": True, "triton.cudagraphs": on_gpu}
        )

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        """Forward this process's share of a batch with this many frames: (b, ...) -> (b, A)."""
        if frames != self._size:
            return self._network(x)
        try:
            return self._compiled(x)
        except self._failures as error:
            self._log.line(f"not compiled: {_reason(error)}")
            self._size = 0
            return self._network(x)


class CompiledScoring:
    """The forward pass of a network in eval mode for chunks of one size, compiled by torch.compile.

    If compiling fails, one line is logged and the plain forward pass is used. CUDA graphs are not used, since the outputs
    of the next chunk would overwrite those of this one.
    """

    def __init__(self, network: nn.Module, log: Log) -> None:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # slow to import

        self._failures = (TorchDynamoException, FailOnRecompileLimitHit)
        self._network, self._log = network, log
        self._forward = torch.compile(network, fullgraph=True, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Forward a chunk: (n, ...) -> (n, A)."""
        try:
            return self._forward(x)
        except self._failures as error:
            self._log.line(f"not compiled: {_reason(error)}")
            self._forward = self._network
            return self._forward(x)


def _reason(error: Exception) -> str:
    """Return the first line of an error of torch.compile, shortened."""
    lines = (line.strip() for line in str(error).splitlines() if line.strip())
    return next(lines, type(error).__name__)[:160]


def full_batch_size(sampler: Sampler, steps: int) -> int:
    """Return the number of frames of a full batch, the largest of the first SAMPLED_BATCHES."""
    return max(len(sampler(step)[0]) for step in islice(range(steps), SAMPLED_BATCHES))
