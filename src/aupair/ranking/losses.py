"""The losses of f and h, as pure functions of pair differences; the paper's symbols (see docs/method.md).

With d = r_ij (y_i - y_j) and s = sqrt(sigma_i^2 + sigma_j^2):
    ranking     max(0, m - d)                       f: section 3.1
    printed     Phi((d - m) / s)                    h: section 3.2 to the letter, inverted
    misorder    Phi((m - d) / s)                    h: what its sentence says
    nll_margin  -log Phi((d - m) / s)               h: what the authors ran
    nll         -log Phi(d / s)                     h: ours
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aupair.ranking.pairs import Pairs


@dataclass(frozen=True)
class PairBatch:
    """Pairs of a batch as tensors: i, j, au (M,) int64; r, weight (M,) float32, the weights summing to 1."""

    i: Tensor
    j: Tensor
    au: Tensor
    r: Tensor
    weight: Tensor

    @staticmethod
    def from_pairs(pairs: Pairs, weight: np.ndarray, device: torch.device | str = "cpu") -> "PairBatch":
        """Convert pairs and their weights to tensors on a device."""
        index = (torch.from_numpy(np.asarray(a, np.int64)).to(device) for a in (pairs.i, pairs.j, pairs.au))
        numbers = (torch.from_numpy(np.asarray(a, np.float32)).to(device) for a in (pairs.r, weight))
        return PairBatch(*index, *numbers)

    def difference(self, y: Tensor) -> Tensor:
        """Return d = r (y_i - y_j): y (B, A) -> (M,), positive where the order is right."""
        return self.r * (y[self.i, self.au] - y[self.j, self.au])

    def spread(self, sigma: Tensor) -> Tensor:
        """Return s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6): sigma (B, A) -> (M,)."""
        return torch.sqrt(sigma[self.i, self.au] ** 2 + sigma[self.j, self.au] ** 2 + 1e-6)


def make_pair_batch(pairs: Pairs) -> tuple[np.ndarray, PairBatch]:
    """Return the rows that pairs refer to, each once, and the pairs as indices into them, all of the same weight."""
    rows, local = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
    count = len(pairs)
    weight = np.full(count, 1 / max(count, 1), np.float32)
    return rows, PairBatch.from_pairs(Pairs(local[:count], local[count:], pairs.au, pairs.r), weight)


def ranking(d: Tensor, m: float = 1.0) -> Tensor:
    """Return max(0, m - d), elementwise."""
    return torch.relu(m - d)


def printed(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return 1 - 1/2 {1 + erf((m - d) / (sqrt 2 s))} = Phi((d - m) / s), as printed in the paper (# paper).

    It is the probability of the RIGHT order. Minimised, it raises sigma where d > m and lowers it where d < m: an
    ablation, never a default.
    """
    return torch.special.ndtr((d - m) / s)


def misorder(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return Phi((m - d) / s), the probability of the wrong order with the margin, as the paper's sentence says."""
    return torch.special.ndtr((m - d) / s)


def nll_margin(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return -log Phi((d - m) / s) (# authors).

    It is computed by log_ndtr instead of a clamped log, whose gradient is 0 below z = -5.5.
    """
    return -torch.special.log_ndtr((d - m) / s)


def nll(d: Tensor, s: Tensor, m: float = 0.0) -> Tensor:
    """Return -log Phi(d / s), a proper score of P(order) (# ours); `m` is there for the common signature."""
    return -torch.special.log_ndtr(d / s)


UNCERTAINTY_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "nll": nll,
    "nll_margin": nll_margin,
    "misorder": misorder,
    "printed": printed,
}


def ranking_loss(y_hat: Tensor, pairs: PairBatch, margin: float = 1.0) -> Tensor:
    """Return the weighted mean of max(0, m - r (y_i - y_j)) over the pairs of a batch; y_hat (B, A) -> scalar."""
    return (pairs.weight * ranking(pairs.difference(y_hat.float()), margin)).sum()


def level_loss(outputs: Tensor, levels: Tensor, binary: bool) -> Tensor:
    """Return the loss of a network that grades one image, the baseline without pairs: the mean over annotated cells.

    Args:
        outputs: (B, A).
        levels: (B, A) integers, -1 not annotated.
        binary: there are two levels: cross-entropy, with the output as logit. Else the squared distance to the level.
    """
    known = levels >= 0
    values, truth = outputs.float()[known], levels[known].float()
    if binary:
        return torch.nn.functional.binary_cross_entropy_with_logits(values, truth)
    return torch.nn.functional.mse_loss(values, truth)


def uncertainty_loss(
    y_hat: Tensor, sigma: Tensor, pairs: PairBatch, loss: str, margin: float, penalty: float
) -> Tensor:
    """Return the weighted mean of a loss of h over a batch's pairs, plus penalty x mean (log sigma)^2 over its frames.

    Pairs of two levels are bipartite: sigma^2 + c on the active and - c on the inactive frames leaves the likelihood
    as it is. The penalty fixes that gauge.

    Args:
        y_hat: (B, A), frozen; sigma: (B, A) > 0. Both are converted to float32: the tails need it.
    """
    sigma = sigma.float()
    terms = UNCERTAINTY_LOSSES[loss](pairs.difference(y_hat.float()), pairs.spread(sigma), margin)
    return (pairs.weight * terms).sum() + penalty * torch.log(sigma).square().mean()
