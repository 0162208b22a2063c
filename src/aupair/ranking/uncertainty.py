"""The training of h, on y_hat of people that f was not trained on, and sigma of every frame (paper: section 3.2).

`train_h` is the body of the stage train-uncertainty; docs/method.md gives the reasons for its design.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.losses import UNCERTAINTY_LOSSES, PairBatch, make_pair_batch, uncertainty_loss
from aupair.ranking.networks import AUNetwork, Factors, SecondHead, build_factors, build_network, pick_device
from aupair.ranking.pairs import Pairs
from aupair.ranking.prefetch import Faces
from aupair.ranking.samples import TrainingSet
from aupair.training_params import FitUncertainty


class Sigma(nn.Module):
    """A network h with the output transformed to sigma = floor + softplus(h(x) + b).

    The offset b is trained too; it is initialised so that h(x) = 0 gives the constant `start` for each AU.

    Args:
        network: images (B, 3, S, S), or numbers computed from them -> (B, A).
        start: (A,) sigma where the network returns 0.
        floor: smallest sigma.
    """

    def __init__(self, network: nn.Module, start: np.ndarray, floor: float) -> None:
        super().__init__()
        self.network, self.floor = network, floor
        above = torch.as_tensor(start, dtype=torch.float32).clamp(min=floor + 1e-3) - floor
        self.offset = nn.Parameter(torch.log(torch.expm1(above)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute sigma from the network's input, such as RGB (B, 3, S, S) in 0..255: (B, A), at least `floor`."""
        return self.floor + nn.functional.softplus(self.network(x).float() + self.offset)


@dataclass(frozen=True)
class Uncertainty:
    """The result of training h: models (`final`, one per fold), sigma (N, A) float32 out of fold on fit, curves."""

    models: dict[str, Sigma | SecondHead]
    sigma: np.ndarray
    curves: list[dict[str, Any]]


LoadF = Callable[[Member], tuple[AUNetwork, np.ndarray, np.ndarray]]
"""network of f -> the network, its center and its scale, (A,) float32 each"""


def train_h(
    data: TrainingSet, ensemble: Ensemble, f: LoadF, params: Params, seed: int,
    log: Log = SILENT, checkpoints: Checkpoints | None = None,
) -> Uncertainty:  # fmt: skip
    """Train h on frozen y_hat, and one network per fold of people, and compute sigma of every frame.

    Args:
        ensemble: the networks of f and their y_hat, out of fold on fit: f is never forwarded for a pair.
        f: loads a network of f. Kind `factors` reads the trunk of the same fold's network, which was not trained on the
            people who are held out; kind `integrated` uses its second head, and nothing is trained.
        checkpoints: files of the training states; a fit continues from an existing one.
    """
    section, y_hat = params.train_uncertainty, ensemble.y_hat
    device = pick_device(section.device)
    result = Uncertainty({}, np.full(data.frames.labels.shape, np.nan, np.float32), [])
    for k, (name, trained) in enumerate(data.training_masks().items()):
        faces: Faces = data.images
        if section.kind == "integrated":
            network, _, scale = f(Member(ensemble.trials[0], name))
            result.models[name] = SecondHead(network, scale)
        else:
            start = initial_sigma(data.pairs["fit"], y_hat, trained, section)
            member = Member(ensemble.trials[0], name)
            h, faces = build_h_network(data, f, member, section, seed * 1000 + 500 + k, log)
            model = result.models[name] = Sigma(h, start, section.floor)
            job = FitJob(
                images=faces, sampler=data.sampler(trained, section.optimiser, (seed, 100 + k)),
                batch_loss=_make_batch_loss(y_hat, section),
                evaluate_on_select=partial(_evaluate_h, data=data, faces=faces, y_hat=y_hat, params=section),
                seed=seed * 1000 + 500 + k, name=f"h.{name}",
                augment=section.augment if section.kind == "network" else 0.0, mirror=data.mirror, precision=section.precision,
                compile=section.kind == "network" and section.compile, device=device,
                checkpoint=checkpoints.for_network(f"h.{name}") if checkpoints else None,
            )  # fmt: skip
            steps = section.optimiser.steps if name == "final" else section.optimiser.fold_steps
            result.curves.extend(fit(model, job, section.optimiser, steps, log))
        rows = np.flatnonzero(data.scoring_mask(name) & data.frames.ok)
        if name != "final":
            rows = rows[data.frames.of_split("fit")[rows]]
        heading = f"scoring frames by h.{name}"
        result.sigma[rows] = forward_all(result.models[name], faces, rows, device, log, heading)
    return result


def _make_batch_loss(y_hat: np.ndarray, params: FitUncertainty) -> Callable[[Tensor, np.ndarray, PairBatch], Tensor]:
    """Return the function that computes the loss of h for a batch.

    It takes sigma (B, A), the rows (B,) of the batch in `y_hat`, and its pairs. y_hat is not trained.
    """
    frozen = torch.from_numpy(y_hat)

    def batch_loss(sigma: Tensor, rows: np.ndarray, pairs: PairBatch) -> Tensor:
        values = frozen[rows].to(sigma.device, non_blocking=True)
        return uncertainty_loss(values, sigma, pairs, params.loss, params.margin, params.log_sigma_penalty)

    return batch_loss


def build_h_network(
    data: TrainingSet, f: LoadF, member: Member, section: FitUncertainty, seed: int, log: Log
) -> tuple[nn.Module, Faces]:
    """Return one network h and its input.

    The input is the faces (`kind: network`), or phi, the features of f's frozen trunk, computed once for every face. phi is
    standardised on the training frames of this network.
    """
    if section.kind == "network":
        network = build_network(section.network, data.images.size, seed, len(data.frames.aus))
        for head in network.heads():  # h starts as a constant
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        return network, data.images
    factors = build_factors(f(member)[0], section.block, section.factors, seed)
    rows = np.flatnonzero(data.frames.ok)
    device, name = pick_device(section.device), member.name
    phi = np.zeros((len(data.frames), len(factors.center)), np.float32)
    phi[rows] = forward_all(_Phi(factors), data.images, rows, device, log, f"reading f's trunk for h.{name}")
    trained = phi[data.training_masks()[name] & data.frames.ok]
    factors.center.copy_(torch.from_numpy(trained.mean(0, dtype=np.float64)))
    factors.scale.copy_(torch.from_numpy(np.maximum(trained.std(0, dtype=np.float64), 1e-3)))
    return factors, phi.__getitem__


class _Phi(nn.Module):
    """`Factors.phi` as a module: images (B, 3, S, S) -> (B, D)."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, images: Tensor) -> Tensor:
        return self.factors.phi(images)


def initial_sigma(pairs: Pairs, y_hat: np.ndarray, trained: np.ndarray, params: FitUncertainty) -> np.ndarray:
    """Return, for each AU, the single sigma that minimises the loss over the fixed fit pairs a network may see.

    A grid is precise enough, since this is only the start of training.

    Args:
        trained: (N,) bool, the frames that the network may see.

    Returns:
        (A,) float32; 1 for an AU without pairs.
    """
    pairs = pairs[trained[pairs.i]]
    grid = torch.logspace(math.log10(max(params.floor * 1.05, 0.06)), 1, 60)
    d = torch.from_numpy(pairs.r * (y_hat[pairs.i, pairs.au] - y_hat[pairs.j, pairs.au]))
    constants = np.ones(y_hat.shape[1], np.float32)
    for au in np.unique(pairs.au):
        d_of_au = d[torch.from_numpy(pairs.au == au)][:, None]
        losses = UNCERTAINTY_LOSSES[params.loss](d_of_au, math.sqrt(2) * grid[None], params.margin).mean(0)
        constants[au] = float(grid[losses.argmin()])
    return constants


def _evaluate_h(
    model: nn.Module, data: TrainingSet, faces: Faces, y_hat: np.ndarray, params: FitUncertainty
) -> dict[str, float]:
    """Return the loss of h on the fixed pairs of `select`, a mean over pairs, and its mean sigma there."""
    rows, pairs = make_pair_batch(data.pairs["select"])
    sigma = torch.from_numpy(forward_all(model, faces, rows, pick_device(params.device)))
    d, s = pairs.difference(torch.from_numpy(y_hat[rows])), pairs.spread(sigma)
    return {"loss": float(UNCERTAINTY_LOSSES[params.loss](d, s, params.margin).mean()), "sigma": float(sigma.mean())}
