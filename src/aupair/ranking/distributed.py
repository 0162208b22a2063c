"""Training of one network by several processes that torchrun starts; in a single process these functions do nothing.

    torchrun --standalone --nproc-per-node 2 -m aupair run train-pseudo-intensity --trial 0

All processes draw the same batch, and each forwards its share of the frames. The outputs are gathered, so that each process
computes the loss of all pairs, but with gradients only for its own frames; the sum of the gradients over the processes is
the gradient of a single process. Batch norms use the statistics of the whole batch. The results equal those of a single
process up to the order of sums, except for dropout, for which each process draws its own masks.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from aupair.errors import ParamsError, Stopped

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""maximum time to wait for a process that hangs; if a process dies, torchrun ends all of them"""

MESSAGE_SECONDS = 2.0
"""time that the first process has to print its error, since torchrun ends all processes as soon as one ends"""


@contextmanager
def process_group() -> Iterator[None]:
    """Connect the processes that torchrun started until the block ends; without torchrun do nothing.

    Raises:
        ParamsError, Stopped: raised inside the block, in the first process; the others exit without a message.
    """
    if not {"RANK", "LOCAL_RANK"} <= os.environ.keys() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    local = int(os.environ["LOCAL_RANK"])
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield
    except (ParamsError, Stopped) as error:
        if is_main():
            raise
        time.sleep(MESSAGE_SECONDS)
        raise SystemExit(error.exit_code) from error
    _any_process(False)  # wait, since the first process is still writing
    dist.destroy_process_group()  # not after an error, when it would wait for processes that hang


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this is the first process, which writes files and messages."""
    return rank() == 0


def check_device(device: torch.device) -> None:
    """Raise a ParamsError if several processes would share a GPU."""
    if world_size() == 1 or device.type != "cuda":
        return
    if device.index is not None:
        raise ParamsError("one GPU for several processes", got=device, expected="device: auto or cuda")
    processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if processes > gpus:
        raise ParamsError(
            "more processes than GPUs", got=processes, expected=f"at most {gpus}", todo="lower --nproc-per-node"
        )


def local_slice(count: int) -> slice:
    """Return this process's share of `count` frames; the sizes of the shares differ by at most one frame.

    Raises:
        ParamsError: there are fewer frames than processes.
    """
    if 0 < count < world_size():
        raise ParamsError(
            "more processes than frames to share", got=world_size(), expected=f"at most {count}",
            todo="lower --nproc-per-node or take larger batches",
        )  # fmt: skip
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def gather_shares(share: Tensor, count: int) -> Tensor:
    """Concatenate the shares of all processes: (share, ...) -> (count, ...); gradients flow to this share only."""
    if world_size() == 1:
        return share
    gathered, part = share.new_zeros(count, *share.shape[1:]), local_slice(count)
    gathered[part] = share.detach()
    dist.all_reduce(gathered)
    return torch.cat([gathered[: part.start], share, gathered[part.stop :]])


def sum_gradients(model: nn.Module) -> None:
    """Replace each gradient by its sum over the processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view(gradient.shape))


def broadcast_from_main(value: T) -> T:
    """Return the value of the first process in all processes, so that all make the same decisions."""
    if world_size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    return values[0]


def _any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes)
    return bool(votes > 0)


def seed_dropout(seed: int, step: int) -> None:
    """Seed the dropout of this process for a step; with a single process do nothing."""
    if world_size() > 1:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)[0]))


@contextmanager
def catch_sigterm() -> Iterator[Callable[[], bool]]:
    """Catch SIGTERM; yield a function that returns whether any process has received it."""
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals only to the main thread
        yield lambda: _any_process(False)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield lambda: _any_process(received.is_set())
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if received.is_set():  # after the last call of that function
        signal.raise_signal(signal.SIGTERM)


class _SharedNormalisation(torch.autograd.Function):
    """A batch norm over the batch of all processes.

    The processes exchange data only once in the forward and once in the backward pass, since waiting takes most time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        """Return y, shaped as x (share, C, H, W), and for the whole batch mean (C,), variance (C,) and values per channel ()."""
        ctx.layout = (
            torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        flat = _flat(x, ctx.layout).float()
        mean = flat.mean((0, 2))
        centred = flat - mean[:, None]
        # y is written through views but is not a view itself; otherwise autograd would copy it for the in-place ReLU.
        y = torch.empty_like(x, dtype=flat.dtype, memory_format=ctx.layout)
        squares = torch.mul(centred, centred, out=_flat(y, ctx.layout))
        parts = _all_gather(torch.cat([mean, squares.sum((0, 2)), mean.new_tensor([x[:, 0].numel()])]))
        means, sums, sizes = parts.split([len(mean), len(mean), 1], 1)  # a row for each process
        count = sizes.sum()
        total = (means * sizes).sum(0) / count
        variance = (sums + sizes * (means - total).square()).sum(0) / count
        shift, scale = mean - total, torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, shift, scale, weight, count)
        ctx.mark_non_differentiable(total, variance, count)
        factor = weight * scale
        torch.addcmul((bias + shift * factor)[:, None], centred, factor[:, None], out=squares)
        return y.to(x.dtype), total, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients from this share of frames; `sum_gradients` later adds those of weight and bias."""
        centred, shift, scale, weight, count = ctx.saved_tensors
        gradient = _flat(gradients[0], ctx.layout).float()
        of_x = torch.empty_like(gradients[0], dtype=gradient.dtype, memory_format=ctx.layout)
        products = torch.mul(centred, gradient, out=_flat(of_x, ctx.layout))
        of_bias = gradient.sum((0, 2))
        of_weight = (products.sum((0, 2)) + shift * of_bias) * scale
        mean_of_weight, mean_of_bias = (_all_gather(torch.stack([of_weight, of_bias])).sum(0) / count).unbind()
        factor = weight * scale
        slope = -factor * scale * mean_of_weight
        constant = shift * slope - factor * mean_of_bias
        torch.addcmul(constant[:, None], centred, slope[:, None], out=products).addcmul_(gradient, factor[:, None])
        return of_x.to(gradients[0].dtype), of_weight, of_bias, None


def _flat(x: Tensor, layout: torch.memory_format) -> Tensor:
    """Return a view of (n, C, H, W) as (n, C, H W), or as (n H W, C, 1) if channels are last in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1) if layout == torch.channels_last else x.flatten(2)


def _all_gather(own: Tensor) -> Tensor:
    """Stack the tensors of all processes: (...) -> (processes, ...), with the same result in all of them."""
    if world_size() == 1:
        return own[None]
    parts = own.new_zeros(world_size(), *own.shape)
    parts[rank()] = own
    dist.all_reduce(parts)
    return parts


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the whole batch (torch's SyncBatchNorm needs GPUs)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (share, C, H, W) by the statistics of the whole batch; in eval mode by the running statistics."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        y, mean, variance, count = _SharedNormalisation.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


def share_batch_norms(model: nn.Module) -> None:
    """Make the batch norms of a model use the statistics of the batch over all processes.

    Parameters and buffers, and their names, stay the same.
    """
    for module in model.modules():
        if world_size() > 1 and type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
