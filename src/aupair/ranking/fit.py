"""The training loop of f and h, and the forward pass over many frames."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.log import SILENT, Log
from aupair.params import Optimiser
from aupair.ranking import distributed
from aupair.ranking.augment import augment
from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.losses import PairBatch
from aupair.ranking.prefetch import Batch, Faces, batch_loader, pin, prefetch, prefetch_depth
from aupair.ranking.sampling import Sampler

CHUNK = 32
"""frames forwarded at once outside training"""
FETCHED = 4 * CHUNK
"""frames fetched at once there"""

BatchLoss = Callable[[Tensor, np.ndarray, PairBatch], Tensor]
"""(outputs (B, A), rows (B,), pairs) -> scalar."""


@dataclass
class FitJob:
    """What the loop needs besides the model: where images, batches and the judgement come from.

    Attributes:
        images: the faces.
        sampler: the batch of each step.
        batch_loss: the loss of a batch.
        evaluate_on_select: evaluate the model between steps: {"loss": ..., more}; lower loss is better.
        seed: seed of augmentation and dropout.
        name: how the curves call this network.
        compile: let torch.compile make the training step faster, where it can.
        checkpoint: where its state is kept, if anywhere.
    """

    images: Faces
    sampler: Sampler
    batch_loss: BatchLoss
    evaluate_on_select: Callable[[nn.Module], dict[str, float]]
    seed: int
    name: str
    augment: float = 0.0
    precision: str = "float32"
    compile: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint: Checkpoint | None = None


def fit(model: nn.Module, job: FitJob, params: Optimiser, steps: int, log: Log = SILENT) -> list[dict[str, Any]]:
    """Fit a model in place and give its curves; with `keep: best` it ends with the weights of the best look.

    That each process has a GPU of its own is for the caller to see to (`checkpoint.settings` does).
    With a checkpoint it goes on where an earlier call stood, to the bit.

    Args:
        steps: optimiser steps.

    Returns:
        A row for each look: network, step, train_loss (mean since the last look), and what `look` gave.

    Raises:
        Stopped: the process was told to end (SIGTERM) and has a checkpoint; it was saved.
    """
    distributed.share_batch_norms(model)
    model.to(job.device)
    state = TrainingState(model, *build_optimiser(model, params, steps), torch.Generator().manual_seed(job.seed))
    rng = torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else [])
    stopping = distributed.catch_sigterm() if job.checkpoint else nullcontext(lambda: False)
    with rng, cudnn_autotuning(), stopping as stop:
        torch.manual_seed(job.seed)
        if job.checkpoint and (saved := job.checkpoint.load(log)):
            state.take_up(saved, job.device)
            log.line(f"taking up {job.name} at step {state.step} of {steps}")
        left = range(state.step, steps)
        forward = training_forward(model, job, steps, log)
        with closing(batch_loader(job.sampler, job.images, left, job.device, prefetch_depth(job.device))) as made:
            for step in log.progress(left, steps, f"training {job.name}", left.start):
                train_step(state, job, next(made), forward)
                if looked := (step + 1) % params.evaluate_every == 0 or step + 1 == steps:
                    record_evaluation(state, job, params.keep, log)
                stopped = stop()
                if job.checkpoint and (stopped or (step + 1 < steps and (looked or job.checkpoint.due()))):
                    job.checkpoint.save(state.saved(job.device))
                if stopped:
                    at = f"SIGTERM at step {step + 1} of {steps}"
                    raise distributed.Stopped("stopped", where=job.name, got=at, todo="run it again to go on")
        if state.kept is not None:
            model.load_state_dict(state.kept)
        if job.checkpoint and left:
            job.checkpoint.save(state.finished())
    return state.curves


@dataclass
class TrainingState:
    """Where a fit stands: all that its next step depends on.

    Attributes:
        generator: of the augmentation.
        step: steps done.
        losses: of the steps since the last look, left on the device: to read one is to wait for its step.
        best, kept: the lowest loss of a look and the weights it was of.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    best: float = math.inf
    kept: dict[str, Tensor] | None = None

    def read_losses(self) -> list[float]:
        """Wait for the steps, and give their losses."""
        return torch.stack(self.losses).tolist() if self.losses else []

    def finished(self) -> dict[str, Any]:
        """Give what a finished fit is taken up from."""
        return {"step": self.step, "model": self.model.state_dict(), "curves": self.curves}

    def saved(self, device: torch.device) -> dict[str, Any]:
        """Give all of it, as plain values; torch's own generators are part of it."""
        return self.finished() | {
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "losses": self.read_losses(), "best": self.best, "kept": self.kept,
        }  # fmt: skip

    def take_up(self, saved: dict[str, Any], device: torch.device) -> None:
        """Go back to where `saved` or `finished` was called."""
        self.step, self.curves = saved["step"], saved["curves"]
        self.model.load_state_dict(saved["model"])
        if "optimiser" not in saved:
            return
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"] is not None:
            torch.cuda.set_rng_state(saved["cuda"], device)
        self.losses = list(torch.tensor(saved["losses"], device=device))
        self.best, self.kept = saved["best"], saved["kept"]


Forward = Callable[[Tensor, int], Tensor]
"""this process's share of a batch (b, ...), and the frames of the whole batch -> outputs (b, A)"""


def training_forward(model: nn.Module, job: FitJob, steps: int, log: Log) -> Forward:
    """Give what forwards a batch while training."""
    shared = any(isinstance(module, distributed.SharedBatchNorm) for module in model.modules())
    if job.compile and shared:
        log.line(f"not compiled: {job.name} has batch norms that talk to other processes")
    if not job.compile or shared:
        return lambda x, count: model(x)
    from aupair.ranking.compilation import CompiledForward, full_batch_size  # slow to import

    return CompiledForward(model, full_batch_size(job.sampler, steps), log)


def train_step(state: TrainingState, job: FitJob, batch: Batch, forward: Forward) -> None:
    """Take the next step: all processes have the same batch, and each forwards its share of the frames."""
    count = len(batch.rows)
    distributed.seed_dropout(job.seed, state.step)
    state.model.train()
    batch = batch.to(job.device)
    x = to_network_input(batch.images, job.device)
    x = augment(x, job.augment, state.generator, count, distributed.local_slice(count)) if job.augment else x
    with autocast(job.precision, job.device):
        outputs = forward(x, count)
    outputs = distributed.gather_shares(outputs.float(), count)
    loss = job.batch_loss(outputs, batch.rows, batch.pairs)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.sum_gradients(state.model)
    state.optimiser.step()
    state.schedule.step()
    state.losses.append(loss.detach())
    state.step += 1


def record_evaluation(state: TrainingState, job: FitJob, keep: str, log: Log) -> None:
    """Judge the model, add a row to the curves, and keep the weights if they are the best so far."""
    seen = distributed.broadcast_from_main(job.evaluate_on_select(state.model))
    row = {"train_loss": float(np.mean(state.read_losses())), **seen}
    state.curves.append({"network": job.name, "step": state.step, **row})
    log.metrics(state.step, **{f"{job.name}.{key}": value for key, value in row.items()})
    state.losses = []
    if keep == "best" and seen["loss"] < state.best:
        state.best, state.kept = seen["loss"], {k: v.clone() for k, v in state.model.state_dict().items()}


def build_optimiser(
    model: nn.Module, params: Optimiser, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Make the optimiser and its schedule; weight decay acts on weights, never on biases or norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    on_gpu = all(p.is_cuda for p in trained)
    optimiser = kind(groups, lr=params.learning_rate, fused=on_gpu or None)  # None, and the CPU computes as ever
    if params.schedule == "one_cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, params.learning_rate, total_steps=steps + 1)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


def to_network_input(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 in 0..255, channels last in memory; (B, D) stays as it is."""
    x = torch.as_tensor(images).to(device, non_blocking=True)  # a quarter of the bytes as long as they are uint8
    return x.permute(0, 3, 1, 2).float() if x.ndim == 4 else x.float()


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where the params ask for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def cudnn_autotuning() -> Iterator[None]:
    """Let cuDNN try which of its convolutions is fastest for each size; the CPU has no part in it."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@torch.no_grad()
def forward_all(
    model: nn.Module, images: Faces, rows: np.ndarray, device: torch.device, log: Log = SILENT, name: str = ""
) -> np.ndarray:
    """Forward frames in eval mode: (n,) rows -> what the model gives of each, (n, A) or (n, D) float32.

    Several processes share them, and each gets them all.
    """
    model.to(device).eval()
    mine = rows[distributed.local_slice(len(rows))]
    starts = range(0, len(mine), FETCHED)

    def fetch(start: int) -> Tensor:
        return pin(torch.from_numpy(images(mine[start : start + FETCHED])), device)

    with closing(prefetch(fetch, starts, prefetch_depth(device))) as fetched:
        parts = [
            forward_in_chunks(model, to_network_input(x, device)) for x in log.progress(fetched, len(starts), name)
        ]
    outputs = np.concatenate(parts) if parts else np.zeros((0, len(AUS)), np.float32)
    return distributed.gather_shares(torch.from_numpy(outputs), len(rows)).numpy()


def forward_in_chunks(model: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Forward (n, ...) in chunks of always the same size, the last one filled up: (n, A) or (n, D) float32.

    A convolution sums in another order for another batch size: with one size a frame's numbers are the same
    whatever the batch it came in.
    """
    parts = []
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        full = torch.cat([part, part.new_zeros(CHUNK - len(part), *part.shape[1:])]) if len(part) < CHUNK else part
        parts.append(model(full)[: len(part)].float())
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, len(AUS)), np.float32)
