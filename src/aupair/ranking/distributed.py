"""Several processes that fit one network together, as torchrun starts them; one process passes through untouched.

    torchrun --standalone --nproc-per-node 2 -m aupair run train-pseudo-intensity --trial 0

All draw the same batch, and each forwards its share of the frames. The outputs are gathered, so that each knows the
loss of all pairs, but its gradients come from its own frames only: their sum over the processes is one process's
gradient. Batch norms take the statistics of the whole batch. What one process computes is met up to the order of sums;
but for dropout, whose masks are drawn anew by each process at each step.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from aupair.errors import AupairError, ParamsError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""how long a process waits for the others: torchrun ends them all when one dies, this is for one that hangs"""


class Stopped(AupairError):
    """The machine asked the process to end (SIGTERM); a checkpoint was written before it did."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started and leave them together; without torchrun do nothing.

    Raises:
        ParamsError, Stopped: in the first process; the others, where it is the same, end without a word.
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
        raise SystemExit(error.exit_code) from error
    any_of(False)  # the first is still writing
    dist.destroy_process_group()  # not after an error: it would wait for those that hang


def world() -> int:
    """How many processes fit the network."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and talks."""
    return rank() == 0


def check_device(device: torch.device) -> None:
    """Make sure that each process has a GPU of its own, where they use some.

    Raises:
        ParamsError: they would share one.
    """
    if world() == 1 or device.type != "cuda":
        return
    if device.index is not None:
        raise ParamsError("one GPU for several processes", got=device, expected="device: auto or cuda")
    processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if processes > gpus:
        raise ParamsError(
            "more processes than GPUs", got=processes, expected=f"at most {gpus}", todo="lower --nproc-per-node"
        )


def share(count: int) -> slice:
    """Give this process's share of `count` frames; shares differ by one frame at most.

    Raises:
        ParamsError: there is no frame for some process.
    """
    if 0 < count < world():
        raise ParamsError(
            "more processes than frames to share", got=world(), expected=f"at most {count}",
            todo="lower --nproc-per-node or take larger batches",
        )  # fmt: skip
    return slice(count * rank() // world(), count * (rank() + 1) // world())


def gather(mine: Tensor, count: int) -> Tensor:
    """Put the shares of all processes together: (share, ...) -> (count, ...); gradients reach this share only."""
    if world() == 1:
        return mine
    whole, part = mine.new_zeros(count, *mine.shape[1:]), share(count)
    whole[part] = mine.detach()
    dist.all_reduce(whole)
    return torch.cat([whole[: part.start], mine, whole[part.stop :]])


def sum_gradients(model: nn.Module) -> None:
    """Replace each gradient by its sum over the processes."""
    if world() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view(gradient.shape))


def from_main(value: T) -> T:
    """Give all processes what the first one has, so that all decide alike."""
    if world() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held)
    return held[0]


def any_of(flag: bool) -> bool:
    """Whether any process says yes."""
    if world() == 1:
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes)
    return bool(votes > 0)


def seed_step(seed: int, step: int) -> None:
    """Seed this process's dropout for a step; a single process goes on with the generator that it has."""
    if world() > 1:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)[0]))


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying of it; give the question whether any process was told to stop."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python hears signals there only
        yield lambda: any_of(False)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda: any_of(told.is_set())
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if told.is_set():  # after the last question
        signal.raise_signal(signal.SIGTERM)


class Total(torch.autograd.Function):
    """The sum over the processes; the gradient of each one's part is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(...) -> (...), the same in all processes."""
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Sum what each process's share of the frames makes of it."""
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the whole batch (torch's SyncBatchNorm needs GPUs)."""

    def forward(self, x: Tensor) -> Tensor:
        """(share, C, H, W) -> the same shape and dtype; outside training it is torch's own."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = x.float()
        sums = Total.apply(torch.cat([wide.sum((0, 2, 3)), wide.new_tensor([wide[:, 0].numel()])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(-1, 1, 1)
        variance = Total.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)


def share_batch_norms(model: nn.Module) -> None:
    """Let the batch norms of a model see the whole batch; parameters, buffers and their names stay."""
    for module in model.modules():
        if world() > 1 and type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
