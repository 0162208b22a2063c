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
import time
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


HEARD = 2.0
"""seconds for the first process to say its line: torchrun ends them all as soon as one ends"""


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
        time.sleep(HEARD)
        raise SystemExit(error.exit_code) from error
    any_process(False)  # the first is still writing
    dist.destroy_process_group()  # not after an error: it would wait for those that hang


def world_size() -> int:
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
    """Give this process's share of `count` frames; shares differ by one frame at most.

    Raises:
        ParamsError: there is no frame for some process.
    """
    if 0 < count < world_size():
        raise ParamsError(
            "more processes than frames to share", got=world_size(), expected=f"at most {count}",
            todo="lower --nproc-per-node or take larger batches",
        )  # fmt: skip
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def gather_shares(mine: Tensor, count: int) -> Tensor:
    """Put the shares of all processes together: (share, ...) -> (count, ...); gradients reach this share only."""
    if world_size() == 1:
        return mine
    whole, part = mine.new_zeros(count, *mine.shape[1:]), local_slice(count)
    whole[part] = mine.detach()
    dist.all_reduce(whole)
    return torch.cat([whole[: part.start], mine, whole[part.stop :]])


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
    """Give all processes what the first one has, so that all decide alike."""
    if world_size() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held)
    return held[0]


def any_process(flag: bool) -> bool:
    """Whether any process says yes."""
    if world_size() == 1:
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes)
    return bool(votes > 0)


def seed_dropout(seed: int, step: int) -> None:
    """Seed this process's dropout for a step; a single process goes on with the generator that it has."""
    if world_size() > 1:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)[0]))


@contextmanager
def catch_sigterm() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying of it; give the question whether any process was told to stop."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python hears signals there only
        yield lambda: any_process(False)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda: any_process(told.is_set())
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if told.is_set():  # after the last question
        signal.raise_signal(signal.SIGTERM)


class Normalised(torch.autograd.Function):
    """A batch norm over the batch of all processes: each way they talk once, for a wait at every layer is what costs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        """x (share, C, H, W) -> y like x; the whole batch's mean (C,), variance (C,), number of values a channel ()."""
        ctx.layout = (
            torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        flat = _flat(x, ctx.layout).float()
        mean = flat.mean((0, 2))
        centred = flat - mean[:, None]
        # Through views into y, since y must be none: ReLU works on it in place, and autograd would copy whole maps.
        y = torch.empty_like(x, dtype=flat.dtype, memory_format=ctx.layout)
        squares = torch.mul(centred, centred, out=_flat(y, ctx.layout))
        parts = _of_all(torch.cat([mean, squares.sum((0, 2)), mean.new_tensor([x[:, 0].numel()])]))
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
        """The gradients of this share's frames; those of weight and bias are summed later, with all the others."""
        centred, shift, scale, weight, count = ctx.saved_tensors
        gradient = _flat(gradients[0], ctx.layout).float()
        of_x = torch.empty_like(gradients[0], dtype=gradient.dtype, memory_format=ctx.layout)
        products = torch.mul(centred, gradient, out=_flat(of_x, ctx.layout))
        of_bias = gradient.sum((0, 2))
        of_weight = (products.sum((0, 2)) + shift * of_bias) * scale
        mean_of_weight, mean_of_bias = (_of_all(torch.stack([of_weight, of_bias])).sum(0) / count).unbind()
        factor = weight * scale
        slope = -factor * scale * mean_of_weight
        constant = shift * slope - factor * mean_of_bias
        torch.addcmul(constant[:, None], centred, slope[:, None], out=products).addcmul_(gradient, factor[:, None])
        return of_x.to(gradients[0].dtype), of_weight, of_bias, None


def _flat(x: Tensor, layout: torch.memory_format) -> Tensor:
    """(n, C, H, W) -> (n, C, H W), or (n H W, C, 1) where channels are last in memory: a view of what is laid out so."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1) if layout == torch.channels_last else x.flatten(2)


def _of_all(mine: Tensor) -> Tensor:
    """(...) -> (processes, ...): what each process has, the same in all of them."""
    if world_size() == 1:
        return mine[None]
    parts = mine.new_zeros(world_size(), *mine.shape)
    parts[rank()] = mine
    dist.all_reduce(parts)
    return parts


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
        y, mean, variance, count = Normalised.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


def share_batch_norms(model: nn.Module) -> None:
    """Let the batch norms of a model see the whole batch; parameters, buffers and their names stay."""
    for module in model.modules():
        if world_size() > 1 and type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
