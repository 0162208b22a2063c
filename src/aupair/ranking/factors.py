"""Training of an h that reads f's trunks (`train_uncertainty.kind: factors`).

Ours: f's trunk already represents whether a face is hidden, turned or blurred. log sigma is a linear function of x, the
principal components of phi, the features of the trunk, and the signals of a frame (`ranking.signals`):

    log sigma_a = b_a + x . (w + v_a),      prior: |w|^2 + sum_a |v_a|^2

w is shared by all AUs, and v_a is specific to an AU. The prior shrinks both toward 0, that is sigma toward a constant. Its
strength is chosen by cross-fitting. The fit converges (L-BFGS on all pairs at once), so that no number of steps has to be
chosen.

`ranking.heads` determines the people and the pairs of frames that each fit learns from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.log import Log
from aupair.ranking.distributed import broadcast_from_main
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.fit import forward_all
from aupair.ranking.guard import fit_constants
from aupair.ranking.heads import Head, draw_training_pairs, plan_heads
from aupair.ranking.losses import UNCERTAINTY_LOSSES, PairBatch
from aupair.ranking.networks import AUNetwork, pick_device
from aupair.ranking.pairs import Pairs, cell_weights
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sigma import FactorReader, MemberScorer, Reader, add_signals, phi_of_map
from aupair.ranking.signals import CLIP
from aupair.training_params import FitFactors

LoadF = Callable[[Member], tuple[AUNetwork, np.ndarray, np.ndarray]]
"""member -> its network of f, center and scale, (A,) float32 each"""

_STEPS = 40
"""maximum number of iterations of L-BFGS, which converges in fewer"""
_UNIQUE = 1e-3
"""weight of the mean squared deviation of log sigma from its start; without it, b_a of an AU whose pairs are all ordered
correctly would be unbounded"""


@dataclass(frozen=True)
class Weights:
    """The weights of a head: log sigma = bias (A,) + components (K,) . of_phi (K, A) + signals (Q,) . of_signals (Q, A)."""

    bias: np.ndarray
    of_phi: np.ndarray
    of_signals: np.ndarray

    @classmethod
    def mean(cls, weights: Sequence["Weights"]) -> "Weights":
        """Return the mean of several weights, whose log sigma is the mean of theirs."""
        return cls(*(np.mean([getattr(w, key) for w in weights], axis=0) for key in ("bias", "of_phi", "of_signals")))


@dataclass(frozen=True)
class Inputs:
    """The inputs of the heads of one network of f, for the frames of the pairs of training and validation.

    Attributes:
        rows: (n,) sorted frames.
        phi: (n, K) float64, principal components of phi.
        signals: (n, Q) float64, standardised.
        center, scale: (D,) the standardisation of phi.
        basis: (D, K), maps standardised phi to components, of which the first has a standard deviation of 1.
    """

    rows: np.ndarray
    phi: np.ndarray
    signals: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    basis: np.ndarray


Heads = Sequence[tuple[Head, Weights]]


@dataclass(frozen=True)
class FactorTraining:
    """The training of all heads.

    Attributes:
        signals: (N, Q) float64, standardised.
        start: maps the frames that a fit may use, (N,) bool, to its initial sigma, (A,).
    """

    data: TrainingSet
    ensemble: Ensemble
    signals: np.ndarray
    load_f: LoadF
    section: FitFactors
    start: Callable[[np.ndarray], np.ndarray]
    log: Log

    def fit(self, seed: int) -> tuple[Heads, dict[Member, Inputs], list[dict[str, Any]]]:
        """Fit all heads with the prior that has the lowest loss out of fold.

        Returns:
            The heads with their weights, the inputs of each network's heads, and a row of the curve for each prior.
        """
        heads = plan_heads(self.data, self.ensemble, self.section.inner_folds, seed)
        pairs = draw_training_pairs(self.data.frames, seed)
        inputs = {m: self._prepare(m, heads, pairs) for m in dict.fromkeys(head.member for head in heads)}
        best: list[Weights] = []
        curves: list[dict[str, Any]] = []
        for step, prior in enumerate(self.section.priors, 1):
            weights = [self._fit_head(head, inputs[head.member], pairs, prior) for head in heads]
            loss = self._loss_out_of_fold(list(zip(heads, weights)), inputs)
            if not curves or loss < min(row["loss"] for row in curves):
                best = weights
            curves.append({"network": "h", "step": step, "prior": prior, "loss": loss})
            self.log.metrics(step, **{"h.loss": loss, "h.prior": prior})
        return list(zip(heads, broadcast_from_main(best))), inputs, curves

    def _prepare(self, member: Member, heads: Sequence[Head], pairs: Pairs) -> Inputs:
        """Compute the inputs of the heads of one network, standardised on the frames that the heads learn from."""
        own = [head for head in heads if head.member == member]
        trained = np.logical_or.reduce([head.trained for head in own])
        used = np.logical_or.reduce([head.trained | head.scored for head in own])
        of_fit = self.data.pairs["fit"]
        rows = np.unique(np.concatenate([pairs.i, pairs.j, of_fit.i, of_fit.j]))
        rows = rows[used[rows]]
        network = self.load_f(member)[0]
        phi = self._forward(_Phi(network, self.section.block), rows, f"reading the trunk of f.{member.name}")
        training_phi = phi[trained[rows]].astype(np.float64)
        center, scale = training_phi.mean(axis=0), np.maximum(training_phi.std(axis=0), 1e-3)
        standard = np.clip((phi - center) / scale, -CLIP, CLIP)
        basis = _principal_components(standard[trained[rows]], self.section.factors)
        return Inputs(rows, standard @ basis, self.signals[rows], center, scale, basis)

    def _fit_head(self, head: Head, inputs: Inputs, pairs: Pairs, prior: float) -> Weights:
        """Fit the weights of one head to the pairs of the frames that it may learn from."""
        data, rows = self.data, inputs.rows
        own = pairs[head.trained[pairs.i]]
        x = np.hstack([inputs.phi, inputs.signals])
        y = torch.from_numpy(self.ensemble.y_hat[rows].astype(np.float64))
        batch = PairBatch.from_pairs(
            Pairs(np.searchsorted(rows, own.i), np.searchsorted(rows, own.j), own.au, own.r),
            cell_weights(own, data.frames.video),
        )
        people = len(np.unique(data.frames.subject[own.i]))
        start = self.start(head.trained)
        bias, weight = fit_weights(x, y, batch, start, prior / max(people, 1), self.section)
        count = inputs.phi.shape[1]
        return Weights(bias, weight[:count], weight[count:])

    def _loss_out_of_fold(self, heads: Heads, inputs: dict[Member, Inputs]) -> float:
        """Return the mean over AUs of the pair NLL of sigma out of fold, rescaled for each AU, on the fixed pairs of fit."""
        total, number = np.zeros(self.data.frames.labels.shape), np.zeros((len(self.data.frames), 1))
        for head, weights in heads:
            own = inputs[head.member]
            scored = head.scored[own.rows]
            x = own.phi[scored] @ weights.of_phi + own.signals[scored] @ weights.of_signals + weights.bias
            total[own.rows[scored]] += x
            number[own.rows[scored]] += 1
        _, losses = fit_constants(total / np.maximum(number, 1), self.ensemble.y_hat, self.data.pairs["fit"])
        return float(np.nanmean(losses))

    def score(self, heads: Heads, inputs: dict[Member, Inputs]) -> tuple[dict[Member, Reader], np.ndarray, np.ndarray]:
        """Return the readers, the weights of the signals (Q, A), and log sigma (N, A), out of fold for frames of fit."""
        frames, section = self.data.frames, self.section
        total, number = np.zeros(frames.labels.shape), np.zeros((len(frames), 1))
        new = np.flatnonzero(frames.ok & ~frames.of_split("fit"))
        deployed = [weights for head, weights in heads if head.deployed]
        readers: dict[Member, Reader] = {}
        for member, own in inputs.items():
            network = self.load_f(member)[0]
            parts = [(np.flatnonzero(h.scored & frames.ok), w) for h, w in heads if h.member == member]
            if of_new := [w for h, w in heads if h.member == member and h.deployed]:
                parts.append((new, Weights.mean(of_new)))
                readers[member] = build_reader(own, parts[-1][1], section.block)
            for rows, weights in parts:
                scorer = MemberScorer(network, build_reader(own, weights, section.block))
                outputs = self._forward(scorer, rows, f"scoring frames by h on f.{member.name}")
                total[rows] += outputs[:, len(frames.aus) :]
                if rows is not new:
                    total[rows] += add_signals(self.signals[rows], weights.of_signals)
                number[rows] += 1
        of_signals = Weights.mean(deployed).of_signals
        total /= np.maximum(number, 1)
        total[new] += add_signals(self.signals[new], of_signals)
        total[~frames.ok] = np.nan
        return readers, of_signals, total

    def _forward(self, model: nn.Module, rows: np.ndarray, heading: str) -> np.ndarray:
        return forward_all(model, self.data.images, rows, pick_device(self.section.device), self.log, heading)


class _Phi(nn.Module):
    """phi as a module: RGB (B, 3, S, S) in 0..255 -> (B, D)."""

    def __init__(self, f: AUNetwork, block: int) -> None:
        super().__init__()
        self.f, self.layers = f, f.layers_through(block)

    def forward(self, images: Tensor) -> Tensor:
        return phi_of_map(self.f.forward_with_map(images, self.layers)[1])


def _principal_components(x: np.ndarray, count: int) -> np.ndarray:
    """Return the first principal axes of x (n, D), (D, K), scaled so that the first component has a standard deviation of 1."""
    square = x.T @ x / max(len(x), 1)
    values, vectors = np.linalg.eigh(square)  # in ascending order
    basis: np.ndarray = vectors[:, : -count - 1 : -1] / max(np.sqrt(max(values[-1], 0.0)), 1e-6)
    return basis


def fit_weights(
    x: np.ndarray, y_hat: Tensor, pairs: PairBatch, start: np.ndarray, prior: float, section: FitFactors
) -> tuple[np.ndarray, np.ndarray]:
    """Fit log sigma = bias + x . (shared + own) to pairs: bias (A,), and shared + own (D, A).

    Args:
        x: (n, D) inputs.
        y_hat: (n, A) float64.
        pairs: i and j are rows of x.
        start: (A,) initial sigma.
        prior: weight of the squared norm of the weights.
    """
    inputs, constant = torch.from_numpy(x), torch.log(torch.from_numpy(start.astype(np.float64)))
    bias = constant.clone().requires_grad_()
    shared = torch.zeros(x.shape[1], 1, dtype=torch.float64, requires_grad=True)
    own = torch.zeros(x.shape[1], len(start), dtype=torch.float64, requires_grad=True)
    d, weight = pairs.difference(y_hat), pairs.weight.double()
    optimiser = torch.optim.LBFGS(
        [bias, shared, own], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        log_sigma = bias + inputs @ (shared + own)
        terms = UNCERTAINTY_LOSSES[section.loss](d, pairs.spread(torch.exp(log_sigma)), section.margin)
        loss = (weight * terms).sum() + prior * (shared.square().sum() + own.square().sum())
        loss = loss + _UNIQUE * (log_sigma - constant).square().mean()
        loss.backward()
        return loss

    if len(d):
        optimiser.step(closure)
    return bias.detach().numpy(), (shared + own).detach().numpy()


def build_reader(inputs: Inputs, weights: Weights, block: int) -> FactorReader:
    """Return the reader that computes log sigma from a feature map, without the contribution of the signals."""
    reader = FactorReader(block, *(inputs.basis @ weights.of_phi).shape)
    reader.center.copy_(torch.from_numpy(inputs.center))
    reader.scale.copy_(torch.from_numpy(inputs.scale))
    reader.weight.copy_(torch.from_numpy(inputs.basis @ weights.of_phi))
    reader.bias.copy_(torch.from_numpy(weights.bias))
    return reader
