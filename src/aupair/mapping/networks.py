"""The networks of the mapping: several small fully connected networks for each AU, computed in one batched pass."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _BatchedLinear(nn.Module):
    """K independent linear layers, (K, B, inputs) -> (K, B, outputs), initialised as torch's Linear."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all K layers in one matrix product."""
        return torch.baddbmm(self.bias, x, self.weight)


class MappingNetworks(nn.Module):
    """Networks in - W - ReLU - dropout - W - ReLU - dropout - out, several for each AU (paper: section 3.3).

    The networks of an AU differ only in their weights. Ours: the mapping is their mean, since F1 varies by .005 with the
    random initialisation and samples of a single network.

    Args:
        center, scale: (A, F), mean and standard deviation of the features on fit.
        width: W, 4096 in the paper.
        dropout: dropout rate, in [0, 1).
        outputs: 1 for the level, trained by L1 (the paper), or a class for each level, trained by cross-entropy (2020).
        seeds: S, the number of networks for each AU.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, center: Tensor, scale: Tensor, width: int, dropout: float, outputs: int = 1, *, seeds: int = 1
    ) -> None:
        super().__init__()
        aus, features = center.shape
        self.width, self.dropout, self.outputs, self.seeds = width, dropout, outputs, seeds
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.layers = nn.ModuleList(
            [
                _BatchedLinear(seeds * aus, features, width),
                _BatchedLinear(seeds * aus, width, width),
                _BatchedLinear(seeds * aus, width, outputs),
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the unclamped levels of each network; with classes, the expected levels sum_k k P(k).

        Args:
            features: (A, B, F), the same for all seeds, or (S, A, B, F), separate ones for each seed.

        Returns:
            (S, A, B).
        """
        out = self._out(features)
        if self.outputs == 1:
            return out.squeeze(-1)
        return out.softmax(-1) @ torch.arange(self.outputs, dtype=out.dtype, device=out.device)

    def loss(self, features: Tensor, levels: Tensor) -> Tensor:
        """Return the L1 loss or cross-entropy of every frame, (S, A, B), for levels (A, B) or (S, A, B)."""
        if self.outputs == 1:
            return (self(features) - levels).abs()
        out = self._out(features)
        truth = levels.long().expand(out.shape[:-1])
        return F.cross_entropy(out.flatten(0, -2), truth.flatten(), reduction="none").view_as(truth)

    def _out(self, features: Tensor) -> Tensor:
        """Return the outputs of the last layer, (S, A, B, outputs)."""
        x = (features - self.center[:, None]) / self.scale[:, None]
        x = x.expand(self.seeds, *x.shape[-3:]).flatten(0, 1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
            x = dropout(x, self.dropout) if self.training else x
        return self.layers[-1](x).unflatten(0, (self.seeds, -1))


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set values to zero with probability `rate`, in [0, 1), and scale the others up, as F.dropout does.

    On a CPU, F.dropout takes twice as long, since it draws its mask by torch's Bernoulli generator.
    """
    if rate == 0:
        return x
    remaining = 1 - rate
    return x * torch.rand_like(x).lt_(remaining).div_(remaining)
