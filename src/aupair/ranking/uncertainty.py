"""h: the uncertainty of a pseudo-intensity, fitted where f is honest (paper: section 3.2; see docs/method.md)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.log import SILENT, Log
from aupair.params import FitUncertainty, Params
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.fit import Faces, FitJob, fit, forward_all
from aupair.ranking.losses import UNCERTAINTY_LOSSES, PairBatch, uncertainty_loss
from aupair.ranking.networks import AUNetwork, Factors, SecondHead, build_factors, build_network, pick_device
from aupair.ranking.pairs import Pairs
from aupair.ranking.pseudo_intensity import TrainingSet, make_pair_batch


class Sigma(nn.Module):
    """sigma = floor + softplus(h(x) + b); b, which is trained too, starts where h = 0 gives a constant for each AU.

    Args:
        network: images (B, 3, S, S), or what stands for them -> (B, A).
        start: (A,) sigma where the network says 0.
        floor: smallest sigma.
    """

    def __init__(self, network: nn.Module, start: np.ndarray, floor: float) -> None:
        super().__init__()
        self.network, self.floor = network, floor
        above = torch.as_tensor(start, dtype=torch.float32).clamp(min=floor + 1e-3) - floor
        self.offset = nn.Parameter(torch.log(torch.expm1(above)))

    def forward(self, x: Tensor) -> Tensor:
        """What the network takes, such as RGB (B, 3, S, S) in 0..255 -> (B, A), at least `floor`."""
        return self.floor + nn.functional.softplus(self.network(x).float() + self.offset)


@dataclass(frozen=True)
class Uncertainty:
    """What training h gives: models (`final`, one a fold), sigma (N, A) float32 out of fold on fit, curves."""

    models: dict[str, Sigma | SecondHead]
    sigma: np.ndarray
    curves: list[dict[str, Any]]

    def score(self, name: str, data: TrainingSet, faces: Faces, device: torch.device, log: Log) -> None:
        """Give the frames that a network never saw their sigma."""
        rows = np.flatnonzero(data.scoring_mask(name) & data.frames.ok)
        self.sigma[rows] = forward_all(self.models[name], faces, rows, device, log, f"scoring frames by h.{name}")


LoadF = Callable[[str], tuple[AUNetwork, np.ndarray, np.ndarray]]
"""a network of f by its name, with its center and scale, (A,) float32 each"""


def train_h(
    data: TrainingSet, y_hat: np.ndarray, f: LoadF, params: Params, seed: int,
    log: Log = SILENT, checkpoints: Checkpoints | None = None,
) -> Uncertainty:  # fmt: skip
    """Train h on frozen y_hat, and one for each fold of people, then give every frame a sigma.

    Args:
        y_hat: (N, A) float32, standardised, out of fold on fit: f is never forwarded for a pair.
        f: gives f's network of a name, whose trunk kind `factors` reads: a fold's, and so it never saw who is held out.
            Kind `integrated` takes its second head, and nothing is left to train.
        checkpoints: where the state of each network is kept while it is fitted; what is found there is taken up.
    """
    device = pick_device(params.train_uncertainty.device)
    result = Uncertainty({}, np.full((len(data.frames), len(AUS)), np.nan, np.float32), [])
    if params.train_uncertainty.kind == "integrated":
        for name in data.training_masks():
            with_two_heads, _, scale = f(name)
            result.models[name] = SecondHead(with_two_heads, scale)
            result.score(name, data, data.images, device, log)
        return result
    section: FitUncertainty = params.train_uncertainty
    frozen = torch.from_numpy(y_hat)

    def batch_loss(outputs: Tensor, rows: np.ndarray, pairs: PairBatch) -> Tensor:
        mine = frozen[rows].to(outputs.device, non_blocking=True)
        return uncertainty_loss(mine, outputs, pairs, section.loss, section.margin, section.log_sigma_penalty)

    for k, (name, trained) in enumerate(data.training_masks().items()):
        start = best_constant_sigma(data.pairs["fit"], y_hat, trained, section)
        network, faces = build_h_network(data, f, name, section, seed * 1000 + 500 + k, log)
        model = result.models[name] = Sigma(network, start, section.floor)
        job = FitJob(
            images=faces, sampler=data.sampler(trained, section.optimiser, (seed, 100 + k)), batch_loss=batch_loss,
            evaluate_on_select=partial(evaluate_h, data=data, faces=faces, y_hat=y_hat, params=section),
            seed=seed * 1000 + 500 + k, name=f"h.{name}", augment=section.augment if section.kind == "network" else 0.0,
            precision=section.precision, compile=section.kind == "network" and section.compile, device=device,
            checkpoint=checkpoints.for_network(f"h.{name}") if checkpoints else None,
        )  # fmt: skip
        steps = section.optimiser.steps if name == "final" else section.optimiser.fold_steps
        result.curves.extend(fit(model, job, section.optimiser, steps, log))
        result.score(name, data, faces, device, log)
    return result


def build_h_network(
    data: TrainingSet, f: LoadF, name: str, section: FitUncertainty, seed: int, log: Log
) -> tuple[nn.Module, Faces]:
    """Make a network of h, and what it is fed: the faces, or phi of every face, forwarded once.

    phi is standardised on the frames that this network may see.
    """
    if section.kind == "network":
        network = build_network(section.network, data.images.size, seed)
        for head in network.heads():  # h starts as the constant
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        return network, data.images
    factors = build_factors(f(name)[0], section.block, section.factors, seed)
    rows = np.flatnonzero(data.frames.ok)
    device = pick_device(section.device)
    phi = np.zeros((len(data.frames), len(factors.center)), np.float32)
    phi[rows] = forward_all(_Phi(factors), data.images, rows, device, log, f"reading f's trunk for h.{name}")
    seen = phi[data.training_masks()[name] & data.frames.ok]
    factors.center.copy_(torch.from_numpy(seen.mean(0, dtype=np.float64)))
    factors.scale.copy_(torch.from_numpy(np.maximum(seen.std(0, dtype=np.float64), 1e-3)))
    return factors, phi.__getitem__


class _Phi(nn.Module):
    """`Factors.describe` as a module: images -> phi."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)."""
        return self.factors.phi(images)


def best_constant_sigma(pairs: Pairs, y_hat: np.ndarray, trained: np.ndarray, params: FitUncertainty) -> np.ndarray:
    """Find, for each AU, the single sigma that minimises the loss over the fixed fit pairs a network may see.

    A grid is enough: it is where training starts, not a result.

    Returns:
        (A,) float32; 1 for an AU without pairs.
    """
    pairs = pairs[trained[pairs.i]]
    grid = torch.logspace(math.log10(max(params.floor * 1.05, 0.06)), 1, 60)
    d = torch.from_numpy(pairs.r * (y_hat[pairs.i, pairs.au] - y_hat[pairs.j, pairs.au]))
    constants = np.ones(len(AUS), np.float32)
    for au in np.unique(pairs.au):
        mine = d[torch.from_numpy(pairs.au == au)][:, None]
        terms = UNCERTAINTY_LOSSES[params.loss](mine, math.sqrt(2) * grid[None], params.margin).mean(0)
        constants[au] = float(grid[terms.argmin()])
    return constants


def evaluate_h(
    model: nn.Module, data: TrainingSet, faces: Faces, y_hat: np.ndarray, params: FitUncertainty
) -> dict[str, float]:
    """Judge h on the fixed pairs of `select`: its loss there, a mean over pairs."""
    rows, batch = make_pair_batch(data.pairs["select"])
    sigma = torch.from_numpy(forward_all(model, faces, rows, pick_device(params.device)))
    d, s = batch.difference(torch.from_numpy(y_hat[rows])), batch.spread(sigma)
    return {"loss": float(UNCERTAINTY_LOSSES[params.loss](d, s, params.margin).mean()), "sigma": float(sigma.mean())}
