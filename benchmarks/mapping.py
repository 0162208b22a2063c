"""How much faster is it to fit a route's networks in one batched pass than one after another with torch's layers?

There are some for each AU (`train_mapping.seeds`), which here all see the same draws. Both see the same draws in the same order, start from the same weights, and take an epoch of AdamW steps on one thread.
Torch's layers are nn.Dropout and AdamW with its defaults. Ours draws masks in another way and fuses the steps: the
ratio to separate networks that do the same is given as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import Row, main, time_in_turn
from torch import Tensor, nn

from aupair.aus import AFFWILD2
from aupair.mapping.columns import columns
from aupair.mapping.fit import make_mapping_optimiser, take_mapping_step
from aupair.mapping.networks import MappingNetworks, dropout
from aupair.params import Params, TrainMapping, load_params

ROOT = Path(__file__).parents[1]
GOAL = 5.0
TOLERANCE = 1e-9
"""largest difference of losses and weights, in float64 without dropout: in float32 another order of sums changes the
course of Adam, which divides by a gradient's size"""
LARGE_WIDTH = 512
"""the paper's 4096 takes seconds a step here; the wider, the more both are bound by the same multiplications"""


@dataclass(frozen=True)
class Draws:
    """An epoch of draws: x (A, n, F), y (A, n)."""

    x: Tensor
    y: Tensor

    def build_networks(self, params: TrainMapping) -> MappingNetworks:
        """Build the batched networks, always with the same weights."""
        torch.manual_seed(1)
        center = torch.zeros(len(AFFWILD2), self.x.shape[2])
        networks = MappingNetworks(center, center + 1, params.width, params.dropout, seeds=params.seeds)
        return networks.to(self.x.dtype)


def draw_data(params: Params, count: int) -> Draws:
    """Draw standardised features of which the first determines the level, with noise."""
    torch.manual_seed(0)
    x = torch.randn(len(AFFWILD2), count, len(columns(params.extract_features, False)))
    return Draws(x, (x[..., 0] + 0.3 * torch.randn(len(AFFWILD2), count) > 0).float())


def measure() -> list[Row]:
    """Fit at the demo's width and at a larger one."""
    torch.set_num_threads(1)
    params = load_params(ROOT / "params.yaml", ())
    demo = params.train_mapping
    large = demo.model_copy(update={"width": LARGE_WIDTH})
    return [
        compare(
            draw_data(params, demo.draws),
            demo,
            f"a route's {demo.seeds * len(AFFWILD2)} networks, an epoch of {demo.draws} draws",
        ),
        compare(draw_data(params, 512), large, "the same, 512 draws"),
    ]


def compare(data: Draws, params: TrainMapping, question: str) -> Row:
    """Compare the results and the times of both."""
    same = check_same(Draws(data.x.double(), data.y.double()), params.model_copy(update={"dropout": 0.0}))
    ours, reference = time_in_turn(lambda: fit_batched(data, params), lambda: fit_separately(data, params))
    again, alike = time_in_turn(lambda: fit_batched(data, params), lambda: fit_separately(data, params, alike=True))
    ratio = reference / ours
    return Row(
        question=f"{question}, {params.width} wide", ours=f"{ours:.2f} s", reference=f"one after another: {reference:.2f} s",
        ratio=ratio, goal=f"{GOAL:g} x", met=ratio >= GOAL,
        same=f"{same}; {alike / again:.2f} x where they have our masks and fused steps",
    )  # fmt: skip


def fit_batched(data: Draws, params: TrainMapping) -> tuple[np.ndarray, MappingNetworks]:
    """Fit as train-mapping does; return the loss of each step, (steps,), and the networks."""
    networks = data.build_networks(params)
    optimiser = make_mapping_optimiser(networks, params)
    batches = zip(data.x.split(params.batch, dim=1), data.y.split(params.batch, dim=1))
    return np.array([take_mapping_step(networks, optimiser, *batch) for batch in batches]), networks


def fit_separately(data: Draws, params: TrainMapping, alike: bool = False) -> tuple[np.ndarray, list[nn.Sequential]]:
    """Fit one network after another; return the loss of each step, a mean over the networks, and the networks.

    Args:
        alike: draw masks and fuse steps as ours.
    """
    batched = data.build_networks(params)
    models = [
        copy_network(batched, k, OurDropout if alike else nn.Dropout) for k in range(params.seeds * len(AFFWILD2))
    ]
    losses: list[list[float]] = []
    for k, model in enumerate(models):
        rate, decay = params.learning_rate, params.weight_decay
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=alike or None)
        x, y = data.x[k % len(AFFWILD2)], data.y[k % len(AFFWILD2)]
        losses.append([])
        for x_batch, y_batch in zip(x.split(params.batch), y.split(params.batch)):
            loss = (model(x_batch)[:, 0] - y_batch).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses[-1].append(float(loss.detach()))
    return np.mean(losses, axis=0), models


class OurDropout(nn.Dropout):
    """Dropout with masks drawn as ours."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout while training."""
        return dropout(x, self.p) if self.training else x


def copy_network(networks: MappingNetworks, k: int, dropout_layer: type[nn.Dropout]) -> nn.Sequential:
    """Copy one of the batched networks into torch's own layers."""
    layers: list[nn.Module] = []
    for layer in networks.layers:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2], dtype=layer.weight.dtype)
        linear.load_state_dict({"weight": layer.weight[k].detach().T, "bias": layer.bias[k, 0].detach()})
        layers += [linear, nn.ReLU(), dropout_layer(networks.dropout)]
    return nn.Sequential(*layers[:-2])


def check_same(data: Draws, params: TrainMapping) -> str:
    """Check that both fits have the same losses and weights within TOLERANCE, and return a text about it."""
    (ours, networks), (reference, models) = fit_batched(data, params), fit_separately(data, params)
    loss = float(np.abs(ours - reference).max())
    weight = max(
        float((layer.weight[k].T - model[3 * n].weight).detach().abs().max())
        for k, model in enumerate(models)
        for n, layer in enumerate(networks.layers)
    )
    assert max(loss, weight) < TOLERANCE, (loss, weight)
    course = f"{len(ours)} steps in float64 without dropout, loss {ours[0]:.3f} to {ours[-1]:.3f}"
    return f"{course}: losses at most {loss:.0e} apart, weights {weight:.0e}"


if __name__ == "__main__":
    main(measure)
