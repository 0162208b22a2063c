"""The training loop of f and h, and the forward pass over many frames."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from aupair.ranking.sampling import Sampler

CHUNK = 32
"""frames forwarded at once outside training"""

Faces = Callable[[np.ndarray], np.ndarray]
"""rows (B,) -> faces (B, S, S, 3) uint8, or numbers that stand for them (B, D) float32"""

LossOf = Callable[[Tensor, np.ndarray, PairBatch], Tensor]
"""(outputs (B, A), rows (B,), pairs) -> scalar."""


@dataclass
class Fit:
    """What the loop needs besides the model: where images, batches and the judgement come from.

    Attributes:
        images: the faces.
        sampler: the batch of each step.
        loss_of: the loss of a batch.
        look: judge the model between steps: {"loss": ..., more}; lower loss is better.
        seed: seed of augmentation and dropout.
        name: how the curves call this network.
        checkpoint: where its state is kept, if anywhere.
    """

    images: Faces
    sampler: Sampler
    loss_of: LossOf
    look: Callable[[nn.Module], dict[str, float]]
    seed: int
    name: str
    augment: float = 0.0
    precision: str = "float32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint: Checkpoint | None = None


def fit(model: nn.Module, job: Fit, params: Optimiser, steps: int, log: Log = SILENT) -> list[dict[str, Any]]:
    """Fit a model in place and give its curves; with `keep: best` it ends with the weights of the best look.

    With a checkpoint it goes on where an earlier call stood, to the bit.

    Args:
        steps: optimiser steps.

    Returns:
        A row for each look: network, step, train_loss (mean since the last look), and what `look` gave.

    Raises:
        Stopped: the process was told to end (SIGTERM) and has a checkpoint; it was saved.
    """
    distributed.check_device(job.device)
    distributed.share_batch_norms(model)
    model.to(job.device)
    state = State(model, *make_optimiser(model, params, steps), torch.Generator().manual_seed(job.seed))
    stopping = distributed.stop_signal() if job.checkpoint else nullcontext(lambda: False)
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []), stopping as stop:
        torch.manual_seed(job.seed)
        if job.checkpoint and (saved := job.checkpoint.load(log)):
            state.take_up(saved, job.device)
            log.line(f"taking up {job.name} at step {state.step} of {steps}")
        left = range(state.step, steps)
        for step in log.progress(left, len(left), f"training {job.name}"):
            take_step(state, job)
            if looked := (step + 1) % params.evaluate_every == 0 or step + 1 == steps:
                take_look(state, job, params.keep, log)
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
class State:
    """Where a fit stands: all that its next step depends on.

    Attributes:
        generator: of the augmentation.
        step: steps done.
        losses: of the steps since the last look.
        best, kept: the lowest loss of a look and the weights it was of.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    step: int = 0
    losses: list[float] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    best: float = math.inf
    kept: dict[str, Tensor] | None = None

    def finished(self) -> dict[str, Any]:
        """Give what a finished fit is taken up from."""
        return {"step": self.step, "model": self.model.state_dict(), "curves": self.curves}

    def saved(self, device: torch.device) -> dict[str, Any]:
        """Give all of it, as plain values; torch's own generators are part of it."""
        return self.finished() | {
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "losses": self.losses, "best": self.best, "kept": self.kept,
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
        self.losses, self.best, self.kept = saved["losses"], saved["best"], saved["kept"]


def take_step(state: State, job: Fit) -> None:
    """Take the next step: all processes draw the same batch, and each forwards its share of the frames."""
    rows, pairs, weight = job.sampler(state.step)
    part = distributed.share(len(rows))
    distributed.seed_step(job.seed, state.step)
    state.model.train()
    x = to_images(job.images(rows[part]), job.device)
    x = augment(x, job.augment, state.generator, len(rows), part) if job.augment else x
    with autocast(job.precision, job.device):
        outputs = state.model(x)
    outputs = distributed.gather(outputs.float(), len(rows))
    loss = job.loss_of(outputs, rows, PairBatch.of(pairs, weight, job.device))
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.sum_gradients(state.model)
    state.optimiser.step()
    state.schedule.step()
    state.losses.append(float(loss.detach()))
    state.step += 1


def take_look(state: State, job: Fit, keep: str, log: Log) -> None:
    """Judge the model, add a row to the curves, and keep the weights if they are the best so far."""
    seen = distributed.from_main(job.look(state.model))
    row = {"train_loss": float(np.mean(state.losses)), **seen}
    state.curves.append({"network": job.name, "step": state.step, **row})
    log.metrics(state.step, **{f"{job.name}.{key}": value for key, value in row.items()})
    state.losses = []
    if keep == "best" and seen["loss"] < state.best:
        state.best, state.kept = seen["loss"], {k: v.clone() for k, v in state.model.state_dict().items()}


def make_optimiser(
    model: nn.Module, params: Optimiser, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Make the optimiser and its schedule; weight decay acts on weights, never on biases or norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    optimiser = kind(groups, lr=params.learning_rate)
    if params.schedule == "one_cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, params.learning_rate, total_steps=steps + 1)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


def to_images(images: np.ndarray, device: torch.device) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 in 0..255; (B, D) stays as it is."""
    x = torch.from_numpy(images).to(device)
    return x.permute(0, 3, 1, 2).float() if x.ndim == 4 else x.float()


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where the params ask for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


@torch.no_grad()
def forward_all(
    model: nn.Module, images: Faces, rows: np.ndarray, device: torch.device, log: Log = SILENT, name: str = ""
) -> np.ndarray:
    """Forward frames in eval mode: (n,) rows -> what the model gives of each, (n, A) or (n, D) float32.

    Several processes share them, and each gets them all.
    """
    model.to(device).eval()
    mine = rows[distributed.share(len(rows))]
    starts = range(0, len(mine), CHUNK)
    parts = [
        chunked(model, to_images(images(mine[start : start + CHUNK]), device))
        for start in log.progress(starts, len(starts), name)
    ]
    outputs = np.concatenate(parts) if parts else np.zeros((0, len(AUS)), np.float32)
    return distributed.gather(torch.from_numpy(outputs), len(rows)).numpy()


def chunked(model: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Forward (n, ...) in chunks of always the same size, the last one filled up: (n, A) or (n, D) float32.

    A convolution sums in another order for another batch size: with one size a frame's numbers are the same
    whatever the batch it came in.
    """
    parts = []
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        full = torch.cat([part, part.new_zeros(CHUNK - len(part), *part.shape[1:])]) if len(part) < CHUNK else part
        parts.append(model(full)[: len(part)].float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(AUS)), np.float32)
