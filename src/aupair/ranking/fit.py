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
from aupair.ranking.augment import augment
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


def fit(model: nn.Module, job: Fit, params: Optimiser, steps: int, log: Log = SILENT) -> list[dict[str, Any]]:
    """Fit a model in place and give its curves; with `keep: best` it ends with the weights of the best look.

    Args:
        steps: optimiser steps.

    Returns:
        A row for each look: network, step, train_loss (mean since the last look), and what `look` gave.
    """
    model.to(job.device)
    optimiser, schedule = make_optimiser(model, params, steps)
    generator = torch.Generator().manual_seed(job.seed)
    curves: list[dict[str, Any]] = []
    best, kept = math.inf, None
    losses: list[float] = []
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        for step in log.progress(range(steps), steps, f"training {job.name}"):
            rows, pairs, weight = job.sampler(step)
            model.train()
            x = to_images(job.images(rows), job.device)
            x = augment(x, job.augment, generator) if job.augment else x
            with autocast(job.precision, job.device):
                outputs = model(x)
            loss = job.loss_of(outputs.float(), rows, PairBatch.of(pairs, weight, job.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if (step + 1) % params.evaluate_every == 0 or step + 1 == steps:
                seen = job.look(model)
                curves.append({"network": job.name, "step": step + 1, "train_loss": float(np.mean(losses)), **seen})
                log.metrics(
                    step + 1, **{f"{job.name}.{k}": v for k, v in curves[-1].items() if k not in ("network", "step")}
                )
                losses = []
                if params.keep == "best" and seen["loss"] < best:
                    best, kept = seen["loss"], {k: v.clone() for k, v in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)
    return curves


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
    """Forward frames in eval mode: (n,) rows -> what the model gives of each, (n, A) or (n, D) float32."""
    model.to(device).eval()
    starts = range(0, len(rows), CHUNK)
    parts = [
        chunked(model, to_images(images(rows[start : start + CHUNK]), device))
        for start in log.progress(starts, len(starts), name)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(AUS)), np.float32)


def chunked(model: nn.Module, x: Tensor) -> np.ndarray:
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
