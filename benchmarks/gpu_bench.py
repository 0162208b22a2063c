"""A training as gpu.py times it: the device, the settings, and the product's own steps, computed in some way."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_page import Answer
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.log import Log
from aupair.params import Params
from aupair.ranking import distributed
from aupair.ranking.checkpoint import TrainingState
from aupair.ranking.compilation import SAMPLED_BATCHES, compile_forward, full_batch_size
from aupair.ranking.fit import FitJob, build_optimiser, train_step
from aupair.ranking.losses import PairBatch, uncertainty_loss
from aupair.ranking.networks import AUNetwork, build_factors, build_network
from aupair.ranking.prefetch import Batch, batch_loader
from aupair.ranking.pseudo_intensity import make_batch_loss
from aupair.ranking.samples import TrainingSet
from aupair.ranking.uncertainty import Sigma
from aupair.training_params import Network


class Way(NamedTuple):
    """How a step is computed."""

    name: str
    precision: str = "bfloat16"
    channels_last: bool = True
    compile: bool = True
    tf32: bool = False


REFERENCE = Way("float32, eager", "float32", False, False)
COMPILED = Way("float32, channels last, compiled", "float32")
PLAIN = Way("bfloat16, eager", channels_last=False, compile=False)
OURS = Way("bfloat16, channels last, compiled")
AGREE = 0.05
"""relative difference of a gradient that other kernels may make in float32, most of it by values that a ReLU or a pool
decides the other way"""
WAYS = (
    REFERENCE,
    Way("float32 with TF32, eager", "float32", False, False, True),
    PLAIN,
    Way("bfloat16, channels last, eager", compile=False),
    OURS,
)


class Planes(AUNetwork):
    """The network as torch lays it out by itself: plane after plane."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, A)."""
        x = ((images - self.mean) / self.std).contiguous()
        return torch.cat([network(x) for network in self.networks], dim=1)


class Says(Log):
    """Prints lines and keeps them: that something could not be compiled belongs on the page."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def line(self, text: str) -> None:
        """Print one."""
        self.heard.append(text)
        print(f"  {text}", flush=True)


@dataclass
class Bench:
    """What all questions share: the device, the settings, faces and pairs, how many steps are timed, the answers."""

    device: torch.device
    params: Params
    data: TrainingSet
    tiny: bool
    count: int
    answers: list[Answer]
    figures: dict[str, Any]

    def batches(self, part: str, pairs: int | None = None) -> tuple[Any, list[int]]:
        """Give the sampler of a part, and the steps whose batches are full."""
        optimiser = getattr(self.params, f"train_{part}").optimiser
        optimiser = optimiser.model_copy(update={"batch": 2 * pairs if pairs else optimiser.batch})
        sampler = self.data.sampler(np.ones(len(self.data.frames), bool), optimiser, (0, 0))
        size = full_batch_size(sampler, SAMPLED_BATCHES)
        return sampler, [step for step in range(SAMPLED_BATCHES if self.tiny else 60) if len(sampler(step)[0]) == size]

    def network(self, network: Network) -> AUNetwork:
        """Build one without ImageNet's weights, which a bare machine lacks."""
        return build_network(network.model_copy(update={"weights": "none"}), self.data.images.size, 0)

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Forget compiled steps too, whose CUDA graphs keep their memory."""
        torch.compiler.reset()
        self.forget()

    def forget(self) -> None:
        """Give back what nothing holds any more, and measure memory anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float:
        """What was taken from the card at most since `forget`, GiB, the memory of CUDA graphs with it; 0 on a CPU."""
        return torch.cuda.max_memory_reserved(self.device) / 2**30 if self.device.type == "cuda" else 0.0


class Fitting:
    """A network in training, step by step as `fit` takes them."""

    def __init__(self, bench: Bench, model: nn.Module, job: FitJob, way: Way, part: str) -> None:
        bench.clear()
        self.bench, self.way = bench, way
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = way.tf32
        for module in model.modules():
            if isinstance(module, AUNetwork) and not way.channels_last:
                module.__class__ = Planes
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        distributed.share_batch_norms(model.to(bench.device, memory_format=layout))  # type: ignore[call-overload]
        self.job, self.optimiser = job, getattr(bench.params, f"train_{part}").optimiser
        job.precision, job.compile, job.device = way.precision, way.compile and not bench.tiny, bench.device
        self.state = TrainingState(
            model,
            *build_optimiser(model, self.optimiser, 10_000),
            torch.Generator().manual_seed(0),
            bench.device,
        )
        said = Says(bench.figures.setdefault("said", []))
        self.forward = compile_forward(model, job.sampler, 10_000, said) if job.compile else lambda x, _: model(x)
        torch.manual_seed(0)

    def step(self, batch: Batch) -> None:
        """Take one."""
        train_step(self.state, self.job, batch, self.forward)

    def held(self, steps: Sequence[int], count: int) -> Iterable[Batch]:
        """Give so many batches that lie in the device's memory already, some of them again and again."""
        made = batch_loader(self.job.sampler, self.job.images, steps[:8], self.bench.device, 0)
        return islice(cycle([batch.to(self.bench.device) for batch in made]), count)

    def time(self, made: Iterable[Batch]) -> float:
        """Take the steps; give their seconds."""
        self.bench.wait()
        start = time.perf_counter()
        for batch in made:
            self.step(batch)
        self.bench.wait()
        return time.perf_counter() - start

    def measure(self, steps: Sequence[int]) -> dict[str, Any]:
        """Warm up, then time the steps and their memory."""
        first = self.time(self.held(steps, 4))
        self.bench.forget()
        made = list(self.held(steps, self.bench.count))
        seconds = self.time(made) / len(made)
        images = len(made[0].rows)
        return {
            "way": self.way.name, "images": images, "ms": 1000 * seconds, "images_s": images / seconds,
            "peak_gib": self.bench.peak(), "first_four_steps_s": first, "losses": self.state.read_losses(),
        }  # fmt: skip


def agreement(bench: Bench, start: Callable[[Way], Fitting], part: str) -> tuple[bool, str]:
    """Say whether ours computes what the reference does, and in words how far it is off.

    The gradient of a compiled step is held against the reference's, in float32; in bfloat16 it must be about as far off as
    torch's own. Losses of steps in a row would say little: Adam's first steps are little but signs, so that any two
    paths part by per cents in a dozen of them, whatever made the first small difference.

    Args:
        start: starts a training without dropout, whose masks differ between number formats.
        part: of the params, whose batches are taken.
    """
    _, steps = bench.batches(part)
    exact = gradient_of(start(REFERENCE), steps)
    off = {}
    for way in (COMPILED, PLAIN, OURS):
        off[way.name] = float((gradient_of(start(way), steps) - exact).norm() / exact.norm())
    bench.figures[f"gradient_off.{part}"] = off
    print(f"  gradients off: {off}", flush=True)
    return off[COMPILED.name] < AGREE and off[OURS.name] <= 1.5 * off[PLAIN.name], (
        f"the gradient, compiled: in float32 {off[COMPILED.name]:.1e} off ({AGREE} allowed), in bfloat16"
        f" {off[OURS.name]:.1e}, eager {off[PLAIN.name]:.1e}"
    )


def gradient_of(fitting: Fitting, steps: Sequence[int]) -> Tensor:
    """Give the gradient of the first weights on a batch, (weights,) float32, by a step like those that are timed."""
    model = fitting.state.model
    first = {name: value.clone() for name, value in model.state_dict().items()}
    (batch, *_) = made = list(fitting.held(steps, 4))
    fitting.time(made)  # compiles, and records what is replayed from here on
    model.load_state_dict(first)
    fitting.step(batch)
    return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


def fitting_f(bench: Bench, way: Way, pairs: int | None = None, dropout: float | None = None) -> Fitting:
    """Start a training of f."""
    section = bench.params.train_pseudo_intensity
    network = with_dropout(section.network, dropout)
    sampler, _ = bench.batches("pseudo_intensity", pairs)
    job = FitJob(bench.data.images, sampler, make_batch_loss(bench.data, section), lambda model: {}, seed=0, name="f")
    return Fitting(bench, bench.network(network), job, way, "pseudo_intensity")


def fitting_h(bench: Bench, way: Way, kind: str, dropout: float | None = None) -> Fitting:
    """Start a training of h on values drawn at random."""
    section, rng = bench.params.train_uncertainty, np.random.default_rng(0)
    y_hat = torch.from_numpy(rng.normal(0, 1, (len(bench.data.frames), len(AUS))).astype(np.float32))

    def loss(outputs: Tensor, rows: np.ndarray, pairs: PairBatch) -> Tensor:
        mine = y_hat[rows].to(outputs.device, non_blocking=True)
        return uncertainty_loss(mine, outputs, pairs, section.loss, section.margin, section.log_sigma_penalty)

    network: nn.Module = bench.network(with_dropout(section.network, dropout))
    faces: Any = bench.data.images
    if kind == "factors":
        network = build_factors(bench.network(bench.params.train_pseudo_intensity.network), 5, 2, 0)
        phi = rng.normal(0, 1, (64, network.center.numel())).astype(np.float32)  # type: ignore[operator, union-attr]
        faces = lambda rows: phi[rows % len(phi)]  # noqa: E731
    sampler, _ = bench.batches("uncertainty")
    job = FitJob(faces, sampler, loss, lambda model: {}, seed=0, name="h")
    return Fitting(bench, Sigma(network, np.ones(len(AUS)), section.floor), job, way, "uncertainty")


def with_dropout(network: Network, dropout: float | None) -> Network:
    """Give a network's settings with this dropout, or as they are."""
    return network if dropout is None else network.model_copy(update={"dropout": dropout})
