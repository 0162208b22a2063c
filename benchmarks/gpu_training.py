"""The training steps that gpu.py times: the product's own steps on generated faces, computed in several ways."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from harness import Row, make_frames, write_faces
from torch import Tensor, nn

from aupair import store
from aupair.aus import AFFWILD2
from aupair.log import Log
from aupair.params import Params
from aupair.ranking import distributed
from aupair.ranking.checkpoint import TrainingState
from aupair.ranking.compilation import SAMPLED_BATCHES, compile_forward, full_batch_size
from aupair.ranking.fit import FitJob, build_optimiser, train_step
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import PairBatch, uncertainty_loss
from aupair.ranking.networks import AUNetwork, build_network
from aupair.ranking.pairs import draw_pairs
from aupair.ranking.prefetch import Batch, batch_loader
from aupair.ranking.pseudo_intensity import make_batch_loss
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sampling import Sampler
from aupair.ranking.sigma import SigmaNetwork
from aupair.training_params import AnyNetwork

VIDEOS, FACES = 8, 256
"""generated videos, and different faces; the frames repeat the faces, each with a JPEG of its own row"""
STEPS_OF_SCHEDULE = 10_000
TOLERANCE = 0.05
"""relative difference of a gradient that other kernels may make in float32, most of it by values that a ReLU or a pool
decides the other way"""


class Variant(NamedTuple):
    """A way to compute a training step."""

    name: str
    precision: str = "bfloat16"
    channels_last: bool = True
    compile: bool = True
    tf32: bool = False


REFERENCE = Variant("float32, eager", "float32", False, False)
REFERENCE_TF32 = Variant("float32 with TF32, eager", "float32", False, False, True)
FLOAT32_COMPILED = Variant("float32, channels last, compiled", "float32")
BFLOAT16_EAGER = Variant("bfloat16, eager", channels_last=False, compile=False)
OURS = Variant("bfloat16, channels last, compiled")
VARIANTS = (
    REFERENCE, REFERENCE_TF32, BFLOAT16_EAGER, Variant("bfloat16, channels last, eager", compile=False), OURS,
)  # fmt: skip


def generate_training_set(folder: Path, size: int, count: int, pairs_per_au: int) -> TrainingSet:
    """Write `count` images of about the bytes of a face, and draw pairs with random labels.

    No image stays in memory once it is decoded.
    """
    rng = np.random.default_rng(0)
    jpegs = []
    for coarse in rng.integers(40, 180, (FACES, size // 8, size // 8, 3), np.uint8):
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        jpegs.append(store.encode_jpeg((smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)))
    labels = (rng.random((VIDEOS, count // VIDEOS, len(AFFWILD2))) < 0.2).astype(np.int8)
    frames = make_frames([*labels], np.zeros(VIDEOS, np.int8))
    for name in frames.videos:
        write_faces(folder / f"{name}.arrow", [jpegs[k] for k in rng.integers(FACES, size=count // VIDEOS)])
    pairs = {"fit": draw_pairs(frames, "fit", pairs_per_au, (0,))}
    return TrainingSet(frames, FaceImages(folder, frames, cache_bytes=0), None, pairs, np.full(VIDEOS, -1, np.int8))


@dataclass
class Bench:
    """The device, settings and data of all questions, and the answers so far."""

    device: torch.device
    params: Params
    data: TrainingSet
    tiny: bool
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of steps that are timed."""
        return 4 if self.tiny else 30

    def batches(self, part: str) -> tuple[Sampler, list[int]]:
        """Return the sampler of a part of the params, and the steps whose batches are full."""
        optimiser = getattr(self.params, f"train_{part}").optimiser
        sampler = self.data.sampler(np.ones(len(self.data.frames), bool), optimiser, (0, 0))
        size = full_batch_size(sampler, SAMPLED_BATCHES)
        return sampler, [step for step in range(SAMPLED_BATCHES if self.tiny else 60) if len(sampler(step)[0]) == size]

    def build_network(self, network: AnyNetwork, dropout: float | None = None) -> AUNetwork:
        """Build a network with random weights: a bare machine lacks ImageNet's. `dropout` replaces that of the params."""
        changes = {"weights": "none"} | ({} if dropout is None else {"dropout": dropout})
        return build_network(network.model_copy(update=changes), self.data.images.size, 0, len(self.data.frames.aus))

    def synchronise(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset(self) -> None:
        """Free the memory of compiled steps too, whose CUDA graphs keep it."""
        torch.compiler.reset()
        self.reset_memory()

    def reset_memory(self) -> None:
        """Free unused memory and start a new measurement of the peak."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> float:
        """Return the most memory reserved since `reset_memory`, GiB, CUDA graphs included; 0 on a CPU."""
        return torch.cuda.max_memory_reserved(self.device) / 2**30 if self.device.type == "cuda" else 0.0


class ContiguousNetwork(AUNetwork):
    """A network in torch's default memory layout instead of channels last."""

    def normalise(self, images: Tensor) -> Tensor:
        """Standardise RGB (B, 3, S, S) in 0..255."""
        return ((images - self.mean) / self.std).contiguous()


class RecordingLog(Log):
    """A log whose lines are printed and added to a list: the page shows that something could not be compiled."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def line(self, text: str) -> None:
        """Print and add a line."""
        self.lines.append(text)
        print(f"  {text}", flush=True)


class TimedTraining:
    """A network in training, of which single steps are taken as `fit` takes them."""

    def __init__(self, bench: Bench, model: nn.Module, job: FitJob, variant: Variant, part: str) -> None:
        bench.reset()
        self.bench, self.variant, self.job = bench, variant, job
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = variant.tf32
        for module in model.modules():
            if isinstance(module, AUNetwork) and not variant.channels_last:
                module.__class__ = ContiguousNetwork
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        distributed.share_batch_norms(model.to(bench.device, memory_format=layout))  # type: ignore[call-overload]
        job.precision, job.compile, job.device = variant.precision, variant.compile and not bench.tiny, bench.device
        optimiser = build_optimiser(model, getattr(bench.params, f"train_{part}").optimiser, STEPS_OF_SCHEDULE)
        self.state = TrainingState(model, *optimiser, torch.Generator().manual_seed(0), bench.device)
        log = RecordingLog(bench.figures.setdefault("log", []))
        self.forward = (
            compile_forward(model, job.sampler, STEPS_OF_SCHEDULE, log) if job.compile else lambda x, _: model(x)
        )
        torch.manual_seed(0)

    def batches_on_device(self, steps: Sequence[int], count: int) -> Iterable[Batch]:
        """Return `count` batches in the memory of the device, of which there are eight different ones."""
        batches = batch_loader(self.job.sampler, self.job.drawn_images, steps[:8], self.bench.device, 0)
        return islice(cycle([batch.to(self.bench.device) for batch in batches]), count)

    def time_steps(self, batches: Iterable[Batch]) -> float:
        """Take a step for each batch and return the seconds."""
        self.bench.synchronise()
        start = time.perf_counter()
        for batch in batches:
            train_step(self.state, self.job, batch, self.forward)
        self.bench.synchronise()
        return time.perf_counter() - start

    def measure(self, steps: Sequence[int]) -> dict[str, Any]:
        """Warm up, then measure the time and memory of a step, print and return them."""
        first = self.time_steps(self.batches_on_device(steps, 4))
        self.bench.reset_memory()
        batches = list(self.batches_on_device(steps, self.bench.steps))
        seconds, images = self.time_steps(batches) / len(batches), len(batches[0].rows)
        row = {
            "way": self.variant.name, "images": images, "ms": 1000 * seconds, "images_s": images / seconds,
            "peak_gib": self.bench.peak_memory(), "tflops": self.bench.figures.get("tflop_of_a_step", 0.0) / seconds,
            "first_four_steps_s": first, "losses": self.state.read_losses(),
        }  # fmt: skip
        print(f"  {row['way']}: {row['ms']:.2f} ms, {row['images_s']:.0f} images/s, {row['peak_gib']:.1f} GiB,"
              f" {row['tflops']:.1f} TFLOP/s; first steps {first:.0f} s", flush=True)  # fmt: skip
        return row

    def gradient(self, steps: Sequence[int]) -> Tensor:
        """Return the gradient of the initial weights on a batch, (weights,) float32, by a step as it is timed."""
        model = self.state.model
        initial = {name: value.clone() for name, value in model.state_dict().items()}
        batches = list(self.batches_on_device(steps, 4))
        self.time_steps(batches)  # compiles, and records the CUDA graph that is replayed from here on
        model.load_state_dict(initial)
        self.time_steps(batches[:1])
        return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


Start = Callable[..., TimedTraining]


def start_f(bench: Bench, variant: Variant, *, dropout: float | None = None) -> TimedTraining:
    """Start a training of f, with another dropout if given."""
    section = bench.params.train_pseudo_intensity
    sampler, _ = bench.batches("pseudo_intensity")
    job = FitJob(bench.data.images, sampler, make_batch_loss(bench.data, section), lambda model: {}, seed=0, name="f")
    return TimedTraining(bench, bench.build_network(section.network, dropout), job, variant, "pseudo_intensity")


def start_h(bench: Bench, variant: Variant, *, dropout: float | None = None) -> TimedTraining:
    """Start a training of h on random y_hat."""
    section, rng = bench.params.train_uncertainty, np.random.default_rng(0)
    y_hat = torch.from_numpy(rng.normal(0, 1, (len(bench.data.frames), len(AFFWILD2))).astype(np.float32))

    def batch_loss(sigma: Tensor, rows: np.ndarray, pairs: PairBatch) -> Tensor:
        values = y_hat[rows].to(sigma.device, non_blocking=True)
        return uncertainty_loss(values, sigma, pairs, section.loss, section.margin, section.log_sigma_penalty)

    sampler, _ = bench.batches("uncertainty")
    job = FitJob(bench.data.images, sampler, batch_loss, lambda model: {}, seed=0, name="h")
    model = SigmaNetwork(bench.build_network(section.network, dropout), np.ones(len(AFFWILD2)), section.floor)
    return TimedTraining(bench, model, job, variant, "uncertainty")


def check_gradients(bench: Bench, start: Start, part: str) -> tuple[bool, str]:
    """Return whether our step computes what the reference does, and a text with the differences.

    The gradient of a compiled step is compared with the reference's, in float32; in bfloat16 it must be about as far
    off as torch's own. The losses of several steps would not show it: Adam's first steps are little more than signs,
    so that any small difference grows to per cents within a dozen steps. There is no dropout here, whose masks differ
    between number formats.
    """
    _, steps = bench.batches(part)
    exact = start(bench, REFERENCE, dropout=0.0).gradient(steps)
    off = {}
    for variant in (FLOAT32_COMPILED, BFLOAT16_EAGER, OURS):
        off[variant] = float((start(bench, variant, dropout=0.0).gradient(steps) - exact).norm() / exact.norm())
    bench.figures[f"gradient_off.{part}"] = {variant.name: value for variant, value in off.items()}
    return off[FLOAT32_COMPILED] < TOLERANCE and off[OURS] <= 1.5 * off[BFLOAT16_EAGER], (
        f"the gradient, compiled: in float32 {off[FLOAT32_COMPILED]:.1e} off ({TOLERANCE} allowed), in bfloat16"
        f" {off[OURS]:.1e}, eager {off[BFLOAT16_EAGER]:.1e}"
    )
