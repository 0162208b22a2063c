"""The training loop of f and h (`fit`), and their forward pass over many frames (`forward_all`).

The loop consists of a loader, a step and an evaluation. Everything else is in separate modules: `checkpoint` saves and
restores the state, `prefetch` prepares batches in advance, `compilation` compiles the forward pass, and `distributed`
divides the work among processes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.log import SILENT, Log
from aupair.ranking import distributed
from aupair.ranking.augment import augment, draw_mirrors
from aupair.ranking.checkpoint import Checkpoint, TrainingState, resumable
from aupair.ranking.compilation import CompiledScoring, Forward, compile_forward
from aupair.ranking.losses import PairBatch
from aupair.ranking.prefetch import Batch, Faces, batch_loader, pin, prefetch, prefetch_depth
from aupair.ranking.sampling import Sampler
from aupair.training_params import Optimiser

CHUNK, CHUNK_ON_GPU = 8, 32
"""number of frames forwarded at once outside training; a CPU is faster with 8 than with 32, whose maps exceed its cache"""
LOADED = 128
"""number of frames loaded at once outside training"""

BatchLoss = Callable[[Tensor, np.ndarray, PairBatch], Tensor]
"""(outputs (B, A) or (B, 2A), rows (B,), the pairs of the batch) -> scalar"""


@dataclass
class FitJob:
    """Inputs of the training loop besides the model and the optimiser's settings.

    Attributes:
        images: the faces or features of frames.
        sampler: returns the batch of a step.
        batch_loss: returns the loss of a batch.
        evaluate: returns {"loss": ..., other metrics} of the model on held-out people; a lower loss is better.
        seed: seed of augmentation and dropout.
        name: name of the network in curves and log lines.
        augment: strength of the augmentation, 0..1.
        mirror: (N,) int, the video of each frame: the augmentation mirrors all faces of a video or none; None: never.
        draw: (rows of a batch, step, seed) -> the rows of `images` to use instead; None: the same rows.
        precision: float32, or bfloat16 for the forward pass under autocast.
        compile: whether to compile the training step with torch.compile, if the machine supports it.
        checkpoint: file of the training state; None: the state is not saved.
    """

    images: Faces
    sampler: Sampler
    batch_loss: BatchLoss
    evaluate: Callable[[nn.Module], dict[str, float]]
    seed: int
    name: str
    augment: float = 0.0
    mirror: np.ndarray | None = None
    draw: Callable[[np.ndarray, int, int], np.ndarray] | None = None
    precision: str = "float32"
    compile: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint: Checkpoint | None = None

    def drawn_images(self, rows: np.ndarray, step: int) -> np.ndarray:
        """Return the images or features of a training step for some rows."""
        return self.images(rows if self.draw is None else self.draw(rows, step, self.seed))


def fit(model: nn.Module, job: FitJob, params: Optimiser, steps: int, log: Log = SILENT) -> list[dict[str, Any]]:
    """Train a model in place and return its learning curves.

    With `keep: best` the model ends with the weights of its best evaluation. With `patience` training ends after that
    many consecutive evaluations without a lower loss. With a checkpoint, an interrupted fit continues where it stopped and
    gives the same bits as an uninterrupted one. The caller must have checked that no two processes share a GPU
    (`checkpoint.training_settings` does).

    Args:
        steps: maximum number of optimiser steps.

    Returns:
        One row per evaluation: network, step, train_loss (mean over the steps since the last evaluation), and the metrics
        of `job.evaluate`.

    Raises:
        Stopped: the process received SIGTERM; the checkpoint was saved.
    """
    distributed.share_batch_norms(model)
    model.to(job.device)
    generator = torch.Generator().manual_seed(job.seed)
    state = TrainingState(model, *build_optimiser(model, params, steps), generator, job.device)
    with _seeded(job), cudnn_autotuning(), resumable(state, job.checkpoint, job.name, steps, log) as save_if_due:
        forward = compile_forward(model, job.sampler, steps, log) if job.compile else lambda x, frames: model(x)
        depth = prefetch_depth(job.device)
        remaining = range(state.step, state.step if state.out_of_patience(params.patience) else steps)
        with closing(batch_loader(job.sampler, job.drawn_images, remaining, job.device, depth)) as loader:
            for batch in log.progress(loader, steps, f"training {job.name}", state.step):
                train_step(state, job, batch, forward)
                evaluated = state.step % params.evaluate_every == 0 or state.step == steps
                if evaluated:
                    _record_evaluation(state, job, params.keep, log)
                save_if_due(evaluated)
                if evaluated and state.out_of_patience(params.patience):
                    break
        if state.best_weights is not None:
            model.load_state_dict(state.best_weights)
    return state.curves


def train_step(state: TrainingState, job: FitJob, batch: Batch, forward: Forward) -> None:
    """Perform one optimiser step; all processes have the same batch, and each forwards its share of the frames."""
    frames = len(batch.rows)
    distributed.seed_dropout(job.seed, state.step)
    state.model.train()
    batch = batch.to(job.device)
    x = to_network_input(batch.images, job.device)
    if job.augment:
        video = None if job.mirror is None else job.mirror[batch.rows]
        mirrored = draw_mirrors(video, frames, state.generator)
        x = augment(x, job.augment, state.generator, mirrored, distributed.local_slice(frames))
    with autocast(job.precision, job.device):
        outputs = forward(x, frames)
    outputs = distributed.gather_shares(outputs.float(), frames)
    loss = job.batch_loss(outputs, batch.rows, batch.pairs)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.sum_gradients(state.model)
    state.optimiser.step()
    state.schedule.step()
    state.losses.append(loss.detach())
    state.step += 1


def _record_evaluation(state: TrainingState, job: FitJob, keep: str, log: Log) -> None:
    """Evaluate the model, add a row to the curves, and copy the weights if they are the best so far."""
    metrics = distributed.broadcast_from_main(job.evaluate(state.model))
    row = {"train_loss": float(np.mean(state.read_losses())), **metrics}
    state.curves.append({"network": job.name, "step": state.step, **row})
    log.metrics(state.step, **{f"{job.name}.{key}": value for key, value in row.items()})
    state.losses = []
    if keep == "best" and metrics["loss"] < state.best_loss:
        state.best_loss = metrics["loss"]
        state.best_weights = {key: value.clone() for key, value in state.model.state_dict().items()}


def build_optimiser(
    model: nn.Module, params: Optimiser, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Build the optimiser and its schedule; weight decay applies to weights, not to biases and norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    on_gpu = all(p.is_cuda for p in trained)
    optimiser = kind(groups, lr=params.learning_rate, fused=on_gpu or None)  # None: on a CPU, torch chooses
    if params.schedule == "one_cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, params.learning_rate, total_steps=steps + 1)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


@contextmanager
def _seeded(job: FitJob) -> Iterator[None]:
    """Seed torch's generators for dropout inside the block, and restore their state afterwards."""
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        yield


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that computes in bfloat16 if the params require it."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def cudnn_autotuning() -> Iterator[None]:
    """Enable cuDNN's search for the fastest convolution algorithm inside the block; CPUs are not affected."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def to_network_input(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Convert images (B, S, S, 3) uint8 to (B, 3, S, S) float32 in 0..255, channels last; convert features to float32."""
    x = torch.as_tensor(images).to(device, non_blocking=True)  # copied as uint8, a quarter of the bytes of float32
    return x.permute(0, 3, 1, 2).float() if x.ndim == 4 else x.float()


@torch.no_grad()
def forward_all(
    model: nn.Module, images: Faces, rows: np.ndarray, device: torch.device, log: Log = SILENT, name: str = "",
    compiled: bool = False,
) -> np.ndarray:  # fmt: skip
    """Forward frames in eval mode; several processes divide the work, and each returns the outputs of all frames.

    Args:
        rows: (n,) frames.
        name: heading of the progress lines.
        compiled: whether to compile the forward pass on a GPU; on a CPU compiling takes longer than it saves.

    Returns:
        (n, A) or (n, D) float32, the model's outputs.
    """
    model.to(device).eval()
    forward = CompiledScoring(model, log) if compiled and device.type == "cuda" else model
    own_rows = rows[distributed.local_slice(len(rows))]
    starts = range(
        0, max(len(own_rows), 1), LOADED
    )  # without rows, one empty batch determines the width of the outputs

    def load(start: int) -> Tensor:
        return pin(torch.from_numpy(images(own_rows[start : start + LOADED])), device)

    with closing(prefetch(load, starts, prefetch_depth(device))) as loader:
        parts = [
            forward_in_chunks(forward, to_network_input(x, device)) for x in log.progress(loader, len(starts), name)
        ]
    return distributed.gather_shares(torch.from_numpy(np.concatenate(parts)), len(rows)).numpy()


def forward_in_chunks(model: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Forward (n, ...) in chunks of a fixed size, the last one padded: (n, A) or (n, D) float32.

    A convolution sums in another order for another batch size. With a fixed size, a frame's numbers do not depend on the
    batch that contains it.
    """
    size = CHUNK_ON_GPU if x.is_cuda else CHUNK
    parts = []
    for start in range(0, max(len(x), 1), size):
        part = x[start : start + size]
        full = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])]) if len(part) < size else part
        parts.append(model(full)[: len(part)].float())
    return torch.cat(parts).cpu().numpy()
