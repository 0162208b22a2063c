"""What is it worth to fit the mapping's 24 networks in one batched pass? Against 24 of torch's own, one after another.

Both see the same draws in the same order, start from the same weights, and take an epoch of AdamW steps on one thread.
Torch's own are nn.Dropout and AdamW as it comes. Ours draws masks otherwise and fuses the steps: what is left of the
ratio where the 24 do so, too, stands beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import Row, main, time_in_turn
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.mapping.extractor import columns
from aupair.mapping.fit import make_mapping_optimiser, take_mapping_step
from aupair.mapping.networks import MappingNetworks, dropout
from aupair.params import Params, TrainMapping, load_params

ROOT = Path(__file__).parents[1]
GOAL = 5.0
APART = 1e-9
WIDE = 512
"""The paper's 4096 takes seconds a step here. The wider, the more both are bound by the same multiplications."""


@dataclass(frozen=True)
class Task:
    """An epoch of draws: x (A, n, F), y (A, n); the columns that need no uncertainty, (F,) bool."""

    x: Tensor
    y: Tensor
    plain: Tensor

    @classmethod
    def draw(cls, params: Params, count: int) -> "Task":
        """Draw standardised features of which the first tells the level."""
        torch.manual_seed(0)
        plain = torch.tensor([group == "plain" for _, group in columns(params.extract_features)])
        x = torch.randn(len(AUS), count, len(plain))
        return cls(x, (x[..., 0] + 0.3 * torch.randn(len(AUS), count) > 0).float(), plain)

    def networks(self, params: TrainMapping) -> MappingNetworks:
        """Make the batched networks, always the same."""
        torch.manual_seed(1)
        shape = len(AUS), len(self.plain)
        zeros, ones = torch.zeros(shape), torch.ones(shape)
        return MappingNetworks(self.plain, zeros, ones, params.width, params.dropout).to(self.x.dtype)

    def double(self) -> "Task":
        """Give the same in float64."""
        return Task(self.x.double(), self.y.double(), self.plain)


def measure() -> list[Row]:
    """Fit at the demo's width and at a larger one."""
    torch.set_num_threads(1)
    params = load_params(ROOT / "params.yaml", ())
    demo = params.train_mapping
    return [
        row(Task.draw(params, demo.draws), demo, f"the mapping's 24 networks, an epoch of {demo.draws} draws"),
        row(Task.draw(params, 512), demo.model_copy(update={"width": WIDE}), "the same, 512 draws"),
    ]


def row(task: Task, params: TrainMapping, question: str) -> Row:
    """Compare and time both."""
    same = compare(task.double(), params.model_copy(update={"dropout": 0.0}))
    ours, theirs = time_in_turn(lambda: batched(task, params), lambda: separate(task, params))
    again, alike = time_in_turn(lambda: batched(task, params), lambda: separate(task, params, alike=True))
    same += f"; {alike / again:.2f} x where the 24 have our masks and fused steps"
    return Row(
        question=f"{question}, {params.width} wide", ours=f"{ours:.2f} s", reference=f"one after another: {theirs:.2f} s",
        ratio=theirs / ours, goal=f"{GOAL:g} x", met=theirs / ours >= GOAL, same=same,
    )  # fmt: skip


def batched(task: Task, params: TrainMapping) -> tuple[np.ndarray, MappingNetworks]:
    """Fit as train-mapping does; give the loss of each step, (steps,)."""
    networks = task.networks(params)
    optimiser = make_mapping_optimiser(networks, params)
    batches = zip(task.x.split(params.batch, dim=1), task.y.split(params.batch, dim=1))
    losses = [take_mapping_step(networks, optimiser, *batch) for batch in batches]
    return np.array(losses), networks


class Masks(nn.Dropout):
    """Dropout as ours draws it."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop while training."""
        return dropout(x, self.p) if self.training else x


def separate(task: Task, params: TrainMapping, alike: bool = False) -> tuple[np.ndarray, list[nn.Sequential]]:
    """Fit one network after another; give the loss of each step, a mean over the networks."""
    models = [alone(task.networks(params), k, Masks if alike else nn.Dropout) for k in range(2 * len(AUS))]
    losses = []
    for k, model in enumerate(models):
        rate, decay = params.learning_rate, params.weight_decay
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=alike or None)
        x, y = task.x[k % len(AUS)], task.y[k % len(AUS)]
        x = x * task.plain if k >= len(AUS) else x
        losses.append([])
        for start in range(0, len(x), params.batch):
            part = slice(start, start + params.batch)
            loss = (model(x[part])[:, 0] - y[part]).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses[-1].append(float(loss.detach()))
    return np.mean(losses, axis=0), models


def alone(networks: MappingNetworks, k: int, drop: type[nn.Dropout]) -> nn.Sequential:
    """Make one of the 24 of torch's own layers, with its weights."""
    layers: list[nn.Module] = []
    for layer in networks.layers:
        linear = nn.Linear(*layer.weight.shape[1:], dtype=layer.weight.dtype)
        linear.load_state_dict({"weight": layer.weight[k].detach().T, "bias": layer.bias[k, 0].detach()})
        layers += [linear, nn.ReLU(), drop(networks.dropout)]
    return nn.Sequential(*layers[:-2])


def compare(task: Task, params: TrainMapping) -> str:
    """Fit both without dropout, in float64, and say how far losses and weights are apart.

    In float32 another order of sums is enough for Adam, which divides by a gradient's size, to part the ways.

    Raises:
        AssertionError: further than sums in another order can bring them.
    """
    (ours, networks), (theirs, models) = batched(task, params), separate(task, params)
    loss = float(np.abs(ours - theirs).max())
    weight = max(
        float((mine.weight[k].T - model[3 * n].weight).detach().abs().max())
        for k, model in enumerate(models)
        for n, mine in enumerate(networks.layers)
    )
    assert max(loss, weight) < APART, (loss, weight)
    course = f"{len(ours)} steps in float64 without dropout, loss {ours[0]:.3f} to {ours[-1]:.3f}"
    return f"{course}: losses at most {loss:.0e} apart, weights {weight:.0e}"


if __name__ == "__main__":
    main(measure)
