"""The training loop on a toy problem: it learns, repeats itself to the bit, and keeps the best weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair.log import Log
from aupair.ranking.fit import CHUNK, FitJob, build_optimiser, fit, forward_all, forward_in_chunks, to_network_input
from aupair.ranking.losses import PairBatch, ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import Pairs
from aupair.training_params import Network, Optimiser
from training_sets import NARROW, SIZE, Faces, alternating_labels, make_batch

FRAMES = 48
NETWORK = Network(**NARROW, dropout=0.1)
OPTIMISER = Optimiser(name="adamw", learning_rate=3e-3, schedule="one_cycle", weight_decay=1e-2, evaluate_every=15)
CPU = torch.device("cpu")


LABELS = alternating_labels(FRAMES)
PIXELS = np.random.default_rng(0).integers(60, 120, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
PIXELS[LABELS[:, 0] == 1, 2:14, 8:24] += 120
FACES = Faces(PIXELS)
"""noisy faces; where AU1 is active, the upper half has a bright patch"""


def batch(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
    return make_batch(np.random.default_rng([0, step]).choice(FRAMES, 12, replace=False), LABELS)


def evaluate(model: nn.Module) -> dict[str, float]:
    out = forward_all(model, FACES, np.arange(FRAMES), CPU)[:, 0]
    high, low = out[LABELS[:, 0] == 1], out[LABELS[:, 0] == 0]
    return {
        "loss": float(np.maximum(0, 1 - (high[:, None] - low)).mean()),
        "right": float((high[:, None] > low).mean()),
    }


def job(**changes: Any) -> FitJob:
    values: dict[str, Any] = {
        "images": FACES, "sampler": batch, "evaluate": evaluate, "seed": 3, "name": "toy",
        "augment": 1.0,
        "batch_loss": lambda outputs, rows, pairs: ranking_loss(outputs, pairs, 1.0),
    }  # fmt: skip
    return FitJob(**{**values, **changes})


def test_training_lowers_the_loss_and_ranks() -> None:
    model = build_network(NETWORK, SIZE, 0, 12)
    before = evaluate(model)
    curves = fit(model, job(), OPTIMISER, 60)
    after = evaluate(model)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["right"] > 0.95
    assert [row["step"] for row in curves] == [15, 30, 45, 60]
    assert curves[-1]["train_loss"] < curves[0]["train_loss"]
    assert {"network", "step", "train_loss", "loss", "right"} == set(curves[0])
    assert min(row["loss"] for row in curves) == pytest.approx(after["loss"], abs=1e-6)


def state_after(seed: int, **changes: Any) -> dict[str, torch.Tensor]:
    model = build_network(NETWORK, SIZE, 0, 12)
    fit(model, job(seed=seed, **changes), OPTIMISER, 6)
    return model.state_dict()


def test_the_same_seed_gives_the_same_bits() -> None:
    torch.manual_seed(11)
    one = state_after(3)
    torch.manual_seed(12)
    before = torch.get_rng_state()
    again = state_after(3)
    assert torch.equal(torch.get_rng_state(), before)  # and the caller's generator is left alone
    assert all(torch.equal(one[name], again[name]) for name in one)
    other = state_after(4)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("keep", "expected"), [("best", 1), ("last", 3)])
def test_keep(keep: str, expected: int) -> None:
    states: list[dict[str, torch.Tensor]] = []
    losses = iter([3.0, 1.0, 2.0, 1.5])

    def scripted(model: nn.Module) -> dict[str, float]:
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"loss": next(losses)}

    model = build_network(NETWORK, SIZE, 0, 12)
    params = OPTIMISER.model_copy(update={"keep": keep, "evaluate_every": 1})
    fit(model, job(evaluate=scripted), params, 4)
    final = model.state_dict()
    equal = [all(torch.equal(state[name], final[name]) for name in final) for state in states]
    assert equal == [k == expected for k in range(4)]


@pytest.mark.parametrize(
    ("patience", "losses", "steps"),
    [(0, [3, 4, 5, 6, 7, 8], 6), (1, [3, 2, 2, 1, 0, 0], 3), (2, [3, 4, 2, 3, 3, 1], 5), (2, [3, 4, 2, 3, 1, 1], 6)],
)
def test_patience_ends_a_fit_without_a_better_evaluation(patience: int, losses: list[float], steps: int) -> None:
    scripted = iter(losses)
    params = OPTIMISER.model_copy(update={"patience": patience, "evaluate_every": 1})
    model = build_network(NETWORK, SIZE, 0, 12)
    curves = fit(model, job(evaluate=lambda model: {"loss": float(next(scripted))}), params, 6)
    assert [row["step"] for row in curves] == list(range(1, steps + 1))


def test_frozen_convolutions_do_not_move() -> None:
    model = build_network(NETWORK.model_copy(update={"frozen_convolutions": 2, "batch_norm": False}), SIZE, 0, 12)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    before = [(m.weight.clone(), m.bias.clone()) for m in convolutions if m.bias is not None]
    fit(model, job(), OPTIMISER.model_copy(update={"weight_decay": 0.1, "keep": "last"}), 3)
    moved = [not (torch.equal(m.weight, w) and torch.equal(m.bias, b)) for m, (w, b) in zip(convolutions, before)]
    assert moved == [False, False] + [True] * 11


def test_weight_decay_acts_on_weights_alone() -> None:
    model = build_network(NETWORK, SIZE, 0, 12)
    optimiser, _ = build_optimiser(model, OPTIMISER, 5)
    decayed, spared = optimiser.param_groups
    assert decayed["weight_decay"] == 1e-2
    assert spared["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}
    assert sum(len(group["params"]) for group in (decayed, spared)) == len(list(model.parameters()))


def test_schedules() -> None:
    def rates(schedule: str) -> list[float]:
        model = nn.Linear(2, 2)
        optimiser, scheduler = build_optimiser(model, OPTIMISER.model_copy(update={"schedule": schedule}), 20)
        rates = []
        for _ in range(20):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
        return rates

    assert rates("constant") == [3e-3] * 20
    cycle = rates("one_cycle")
    assert max(cycle) == pytest.approx(3e-3, rel=0.05)
    assert cycle[0] < 0.1 * max(cycle)
    assert cycle[-1] < 0.1 * max(cycle)


def test_dropout_and_augmentation_are_off_outside_training() -> None:
    model = build_network(NETWORK.model_copy(update={"dropout": 0.5}), SIZE, 0, 12)
    model.train()
    rows = np.arange(5)
    one = forward_all(model, FACES, rows, CPU)
    assert (forward_all(model, FACES, rows, CPU) == one).all()
    assert forward_all(model, FACES, rows[:0], CPU).shape == (0, 12)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_frame_has_the_same_bits_in_any_batch(batch_norm: bool) -> None:
    model = build_network(NETWORK.model_copy(update={"batch_norm": batch_norm, "width": 0.1}), SIZE, 0, 12).eval()
    x = to_network_input(PIXELS, CPU)
    with torch.no_grad():
        whole = forward_in_chunks(model, x)
        assert whole.shape == (FRAMES, 12)
        for size in (1, 7, CHUNK, CHUNK + 1):
            parts = [forward_in_chunks(model, x[start : start + size]) for start in range(0, FRAMES, size)]
            assert (np.concatenate(parts) == whole).all()
        order = np.random.default_rng(0).permutation(FRAMES)
        assert (forward_in_chunks(model, x[order]) == whole[order]).all()


def test_images_become_planes() -> None:
    x = to_network_input(PIXELS[:3], CPU)
    assert x.shape == (3, 3, SIZE, SIZE)
    assert x.dtype == torch.float32
    assert (x[1, 2].numpy() == PIXELS[1, :, :, 2]).all()


def test_bfloat16_training_keeps_float32_weights() -> None:
    dtypes: list[torch.dtype] = []

    def batch_loss(outputs: torch.Tensor, rows: np.ndarray, pairs: PairBatch) -> torch.Tensor:
        dtypes.append(outputs.dtype)
        return ranking_loss(outputs, pairs)

    model = build_network(NETWORK, SIZE, 0, 12)
    fit(model, job(precision="bfloat16", batch_loss=batch_loss), OPTIMISER, 2)
    assert dtypes == [torch.float32] * 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_log_gets_the_metrics() -> None:
    received: list[tuple[int, dict[str, float]]] = []

    class Listener(Log):
        def metrics(self, step: int, **values: float) -> None:
            received.append((step, values))

    fit(build_network(NETWORK, SIZE, 0, 12), job(), OPTIMISER.model_copy(update={"evaluate_every": 2}), 4, Listener())
    assert [step for step, _ in received] == [2, 4]
    assert set(received[0][1]) == {"toy.train_loss", "toy.loss", "toy.right"}


def test_images_lie_channels_last_from_the_start() -> None:
    x = to_network_input(PIXELS[:3], CPU)
    assert x.is_contiguous(memory_format=torch.channels_last)  # the network's own .contiguous() copies nothing
    assert not x.is_contiguous()
    assert torch.equal(to_network_input(torch.from_numpy(PIXELS[:3]), CPU), x)
    assert to_network_input(np.ones((3, 5), np.float32), CPU).shape == (3, 5)


def test_the_loss_of_a_curve_is_the_mean_of_its_steps() -> None:
    losses: list[float] = []

    def batch_loss(outputs: torch.Tensor, rows: np.ndarray, pairs: PairBatch) -> torch.Tensor:
        loss = ranking_loss(outputs, pairs)
        losses.append(float(loss.detach()))
        return loss

    curves = fit(
        build_network(NETWORK, SIZE, 0, 12),
        job(batch_loss=batch_loss),
        OPTIMISER.model_copy(update={"evaluate_every": 4}),
        6,
    )
    assert [row["train_loss"] for row in curves] == [float(np.mean(losses[:4])), float(np.mean(losses[4:]))]
