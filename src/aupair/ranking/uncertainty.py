"""Training of h on y_hat of people on whom f was not trained, and sigma of every frame (paper: section 3.2).

`train_h` implements the stage train-uncertainty; docs/method.md explains its design.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.ensemble import FINAL, Ensemble, Member
from aupair.ranking.factors import FactorTraining, LoadF, build_reader
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.guard import fit_ensemble_scale, fit_guard
from aupair.ranking.losses import UNCERTAINTY_LOSSES, PairBatch, make_pair_batch, uncertainty_loss
from aupair.ranking.networks import build_network, pick_device
from aupair.ranking.pairs import Pairs
from aupair.ranking.prefetch import Faces
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sigma import MemberScorer, Reader, SecondHeadReader, SigmaModel, SigmaNetwork
from aupair.ranking.signals import Signals
from aupair.training_params import FitFactors, FitNetwork, FitUncertainty, UncertaintyHead


@dataclass(frozen=True)
class Uncertainty:
    """The result of training h.

    Attributes:
        model: the model that computes sigma of new frames.
        sigma, unguarded: (N, A) float32, with and without the guard, out of fold on fit; NaN if the frame has no face.
        curves: rows for curves.jsonl.
        members: the networks of f whose mean is y_hat of new frames.
        folds: models that only score the people of a fold, by the name of the fold's network.
    """

    model: SigmaModel
    sigma: np.ndarray
    unguarded: np.ndarray
    curves: list[dict[str, Any]]
    members: tuple[Member, ...]
    folds: dict[str, nn.Module] = field(default_factory=dict)


Trained = tuple[SigmaModel, np.ndarray, list[dict[str, Any]], dict[str, nn.Module]]
"""h without its guard, log sigma (N, A) out of fold on fit, curves, and the models of folds"""


def train_h(
    data: TrainingSet, ensemble: Ensemble, quality: np.ndarray, load_f: LoadF, params: Params, seed: int,
    log: Log = SILENT, checkpoints: Checkpoints | None = None,
) -> Uncertainty:  # fmt: skip
    """Train h on fixed y_hat, and compute sigma of every frame.

    Args:
        ensemble: the networks of f and their y_hat, which are out of fold on fit.
        quality: (N, 3) quality signals, see `data.quality.load_quality`.
        load_f: loads a network of f, of which kind `factors` reads the trunk and kind `integrated` the second head.
        checkpoints: files of the training states of kind `network`; a fit continues from an existing file.
    """
    section = params.train_uncertainty
    if section.kind == "network":
        model, log_sigma, curves, folds = _train_networks(data, ensemble, section, seed, log, checkpoints)
    elif section.kind == "factors":
        model, log_sigma, curves, folds = _train_factors(data, ensemble, quality, load_f, section, seed, log)
    else:
        model, log_sigma, curves, folds = _read_second_heads(data, ensemble, load_f, section, log)
    unguarded = model.to_sigma(log_sigma)
    if not section.guard:
        return Uncertainty(model, unguarded, unguarded, curves, ensemble.members, folds)
    model, guarded = _add_guard(model, log_sigma, data, ensemble.y_hat, log)
    return Uncertainty(model, guarded, unguarded, curves, ensemble.members, folds)


def _add_guard(
    model: SigmaModel, log_sigma: np.ndarray, data: TrainingSet, y_hat: np.ndarray, log: Log
) -> tuple[SigmaModel, np.ndarray]:
    """Return the model with a guard fitted on the people of fit, and guarded sigma of every frame, (N, A)."""
    guard = fit_guard(log_sigma, y_hat, data.pairs["fit"])
    guarded = guard.apply(log_sigma)
    guard = replace(guard, ensemble_scale=fit_ensemble_scale(guarded, y_hat, data.pairs["select"]))
    model = replace(model, guard=guard)
    new = ~data.frames.of_split("fit")
    sigma = model.to_sigma(guarded)
    sigma[new] = model.to_sigma(guard.apply_to_new(log_sigma[new]))
    means = {name: float(np.nanmean(values)) for name, values in guard.nll.items() if np.isfinite(values).any()}
    log.line("h on fit, out of fold: pair NLL " + ", ".join(f"{value:.4f} {name}" for name, value in means.items()))
    constant = [au for au, strength in zip(data.frames.aus, guard.strength) if strength == 0]
    if constant:
        log.line(f"constant sigma, since h is not better out of fold: {', '.join(constant)}")
    return model, sigma


def _train_factors(
    data: TrainingSet, ensemble: Ensemble, quality: np.ndarray, load_f: LoadF, section: FitFactors, seed: int,
    log: Log,
) -> Trained:  # fmt: skip
    """Train an h that reads f's trunks."""
    fit_rows = np.flatnonzero(data.frames.of_split("fit") & data.frames.ok)
    signals = Signals.fit(quality, ensemble.spread, fit_rows)
    start = partial(initial_sigma, data.pairs["fit"], ensemble.y_hat, params=section)
    training = FactorTraining(data, ensemble, signals(quality, ensemble.spread), load_f, section, start, log)
    heads, inputs, curves = training.fit(seed)
    readers, of_signals, log_sigma = training.score(heads, inputs)
    folds: dict[str, nn.Module] = {
        head.member.name: build_reader(inputs[head.member], w, section.block) for head, w in heads if not head.deployed
    }
    return SigmaModel(readers, None, section.floor, signals, of_signals), log_sigma, curves, folds


def _read_second_heads(
    data: TrainingSet, ensemble: Ensemble, load_f: LoadF, section: UncertaintyHead, log: Log
) -> Trained:
    """Compute sigma by the second heads of those networks of f that were not trained on a frame's person."""
    frames, aus = data.frames, len(data.frames.aus)
    total, number = np.zeros(frames.labels.shape), np.zeros((len(frames), 1))
    readers: dict[Member, Reader] = {}
    fit_rows = frames.of_split("fit")
    for member in (Member(trial, name) for trial in ensemble.trials for name in data.training_masks()):
        network, _, scale = load_f(member)
        reader = SecondHeadReader(scale)
        rows = data.scoring_mask(member.name) & frames.ok
        if member in ensemble.members:
            readers[member] = reader
        else:
            rows &= fit_rows
        heading = f"scoring frames by the second head of f.{member.name}"
        scorer = MemberScorer(network, reader)
        index = np.flatnonzero(rows)
        total[index] += forward_all(scorer, data.images, index, pick_device(section.device), log, heading)[:, aus:]
        number[index] += 1
    return SigmaModel(readers), np.where(number > 0, total / np.maximum(number, 1), np.nan), [], {}


def _train_networks(
    data: TrainingSet, ensemble: Ensemble, section: FitNetwork, seed: int, log: Log,
    checkpoints: Checkpoints | None,
) -> Trained:  # fmt: skip
    """Train h as a separate network (# paper), and one such network per fold of people."""
    device, y_hat = pick_device(section.device), ensemble.y_hat
    log_sigma = np.full(data.frames.labels.shape, np.nan)
    folds: dict[str, nn.Module] = {}
    curves: list[dict[str, Any]] = []
    for k, (name, trained) in enumerate(data.training_masks().items()):
        start = initial_sigma(data.pairs["fit"], y_hat, trained, section)
        model = build_sigma_network(data, start, section, seed * 1000 + 500 + k)
        job = FitJob(
            images=data.images, sampler=data.sampler(trained, section.optimiser, (seed, 100 + k)),
            batch_loss=_make_batch_loss(y_hat, section),
            evaluate=partial(_evaluate_h, data=data, faces=data.images, y_hat=y_hat, params=section),
            seed=seed * 1000 + 500 + k, name=f"h.{name}", **data.augmentation(section.augment),
            precision=section.precision, compile=section.compile, device=device,
            checkpoint=checkpoints.for_network(f"h.{name}") if checkpoints else None,
        )  # fmt: skip
        steps = section.optimiser.steps if name == FINAL else section.optimiser.fold_steps
        curves.extend(fit(model, job, section.optimiser, steps, log))
        rows = data.scoring_mask(name) & data.frames.ok
        if name != FINAL:
            rows &= data.frames.of_split("fit")
        index = np.flatnonzero(rows)
        heading = f"scoring frames by h.{name}"
        log_sigma[index] = np.log(forward_all(model, data.images, index, device, log, heading, section.compile))
        if name == FINAL:
            final = SigmaModel(network=model, floor=section.floor)
        else:
            folds[name] = model
    return final, log_sigma, curves, folds


def build_sigma_network(data: TrainingSet, start: np.ndarray, section: FitNetwork, seed: int) -> SigmaNetwork:
    """Return a network h that initially computes the constant sigma `start`, (A,)."""
    network = build_network(section.network, data.inputs, seed, len(data.frames.aus))
    for head in network.heads():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return SigmaNetwork(network, start, section.floor)


def _make_batch_loss(y_hat: np.ndarray, params: FitNetwork) -> Callable[[Tensor, np.ndarray, PairBatch], Tensor]:
    """Return the loss function of h: sigma (B, A), the rows (B,) of the batch in `y_hat`, and its pairs -> scalar."""
    fixed = torch.from_numpy(y_hat)

    def batch_loss(sigma: Tensor, rows: np.ndarray, pairs: PairBatch) -> Tensor:
        values = fixed[rows].to(sigma.device, non_blocking=True)
        return uncertainty_loss(values, sigma, pairs, params.loss, params.margin, params.log_sigma_penalty)

    return batch_loss


def initial_sigma(pairs: Pairs, y_hat: np.ndarray, trained: np.ndarray, params: FitUncertainty) -> np.ndarray:
    """Return, for each AU, the constant sigma that minimises the loss over the pairs of the frames in `trained`.

    A search over a grid is precise enough, since the result is only the start of training.

    Args:
        trained: (N,) bool, the frames that the network may be trained on.

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
    """Return the mean loss of h on the fixed pairs of `select` and the mean of sigma on their frames."""
    rows, pairs = make_pair_batch(data.pairs["select"])
    sigma = torch.from_numpy(forward_all(model, faces, rows, pick_device(params.device)))
    d, s = pairs.difference(torch.from_numpy(y_hat[rows])), pairs.spread(sigma)
    return {"loss": float(UNCERTAINTY_LOSSES[params.loss](d, s, params.margin).mean()), "sigma": float(sigma.mean())}
