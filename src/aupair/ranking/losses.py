"""The losses of f and h, as pure functions of pair differences, in the paper's symbols (see docs/method.md).

r_ij = +1 means that the AU is more intense in frame i than in frame j, r_ij = -1 that it is less intense. m is a margin, Phi
the normal distribution function, d = r_ij (y_i - y_j) and s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6). d > 0 means that f orders
the pair correctly.

    ranking     max(0, m - d)           loss of f, section 3.1
    printed     Phi((d - m) / s)        loss of h as printed in section 3.2; its sign is wrong
    misorder    Phi((m - d) / s)        loss of h as the text of section 3.2 describes it
    nll_margin  -log Phi((d - m) / s)   loss of h in the authors' code
    nll         -log Phi(d / s)         our loss of h, without a margin; the default
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aupair.ranking.pairs import Pairs


@dataclass(frozen=True)
class PairBatch:
    """The M pairs of a batch as tensors.

    Attributes:
        i, j, au: (M,) int64, the rows of the two frames in the batch, and the AU.
        r: (M,) float32, +1 or -1, see `Pairs`.
        weight: (M,) float32, summing to 1.
    """

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
        """Return d = r (y_i - y_j): y (B, A) -> (M,), positive if y orders the pair correctly."""
        return self.r * (y[self.i, self.au] - y[self.j, self.au])

    def spread(self, sigma: Tensor) -> Tensor:
        """Return s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6): sigma (B, A) -> (M,)."""
        return torch.sqrt(sigma[self.i, self.au] ** 2 + sigma[self.j, self.au] ** 2 + 1e-6)


def make_pair_batch(pairs: Pairs) -> tuple[np.ndarray, PairBatch]:
    """Return the sorted rows to which pairs refer, and the pairs as indices into these rows, with equal weights."""
    rows, local = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
    count = len(pairs)
    weight = np.full(count, 1 / max(count, 1), np.float32)
    return rows, PairBatch.from_pairs(Pairs(local[:count], local[count:], pairs.au, pairs.r), weight)


def ranking(d: Tensor, m: float = 1.0) -> Tensor:
    """Return max(0, m - d), elementwise."""
    return torch.relu(m - d)


def printed(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return 1 - 1/2 {1 + erf((m - d) / (sqrt 2 s))} = Phi((d - m) / s), as printed in the paper (# paper).

    This is the probability of the CORRECT order. Minimising it raises sigma if d > m and lowers it if d < m, the opposite of
    the intended effect. The function exists for comparison only.
    """
    return torch.special.ndtr((d - m) / s)


def misorder(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return Phi((m - d) / s), the probability of the wrong order by the margin m, as the paper's text describes it."""
    return torch.special.ndtr((m - d) / s)


def nll_margin(d: Tensor, s: Tensor, m: float = 1.0) -> Tensor:
    """Return -log Phi((d - m) / s) (# authors).

    It is computed with log_ndtr; the gradient of a clamped logarithm would be 0 below z = (d - m) / s = -5.5.
    """
    return -torch.special.log_ndtr((d - m) / s)


def nll(d: Tensor, s: Tensor, m: float = 0.0) -> Tensor:
    """Return -log Phi(d / s), the log score of P(right order), which is a proper scoring rule (# ours).

    `m` is unused; all losses of h share one signature.
    """
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
    """Return the loss of the baseline without pairs, which predicts the level of one image: the mean over annotated cells.

    Args:
        outputs: (B, A) float.
        levels: (B, A) int, -1 where not annotated.
        binary: True for levels 0 and 1: cross-entropy with the outputs as logits. False: squared distance to the level.
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

    With two levels every pair has one active and one inactive frame, so that adding a constant to sigma^2 of all active
    frames and subtracting it from sigma^2 of all inactive ones does not change the likelihood. The penalty makes sigma unique.

    Args:
        y_hat: (B, A), not trained.
        sigma: (B, A), > 0. Both are converted to float32, since half precision is too coarse for small probabilities.
        pairs: the pairs; i and j are rows of y_hat and sigma.
        loss: a key of UNCERTAINTY_LOSSES.
    """
    sigma = sigma.float()
    terms = UNCERTAINTY_LOSSES[loss](pairs.difference(y_hat.float()), pairs.spread(sigma), margin)
    return (pairs.weight * terms).sum() + penalty * torch.log(sigma).square().mean()
