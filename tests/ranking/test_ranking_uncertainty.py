"""h: starts at the best constant, learns who is noisy, never sees the people whose sigma it gives."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch import nn

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.params import Optimiser, Params, TrainUncertainty
from aupair.ranking.fit import forward_all
from aupair.ranking.pairs import Pairs, assign_folds, draw_groups, draw_pairs
from aupair.ranking.pseudo_intensity import TrainingSet
from aupair.ranking.sampling import Sampler
from aupair.ranking.uncertainty import Sigma, best_constant, judge, train_h

SIZE, LENGTH, CPU = 32, 24, torch.device("cpu")
SPLIT = (0, 0, 0, 0, 1, 1, 2)
NETWORK = {"width": 0.05, "batch_norm": True, "weights": "none", "frozen_convolutions": 0, "dropout": 0.1}


def make_params(**changes: Any) -> Params:
    optimiser = {"name": "adamw", "learning_rate": 1e-3, "steps": 4, "fold_steps": 3, "videos": 2, "evaluate_every": 2}
    section = {"network": NETWORK, "optimiser": optimiser, "augment": 0.0, **changes}
    return Params.model_validate({"train_uncertainty": section})


class Faces:
    """Dark faces; those whose y_hat is noise are bright."""

    size = SIZE

    def __init__(self, bright: np.ndarray) -> None:
        base = np.random.default_rng(0).integers(20, 60, (len(bright), SIZE, SIZE, 3))
        self.pixels = (base + 160 * bright[:, None, None, None]).astype(np.uint8)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]


@dataclass(frozen=True)
class Recording(TrainingSet):
    """A training set that notes the rows of every batch, a list for each network."""

    batches: list[list[np.ndarray]] = field(default_factory=list)

    def sampler(self, trained: np.ndarray, params: Optimiser, seed: tuple[int, ...]) -> Sampler:
        inner, notes = super().sampler(trained, params, seed), []
        self.batches.append(notes)

        def noting(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            batch = inner(step)
            notes.append(batch[0])
            return batch

        return noting


def make_data(folds: int = 2) -> tuple[Recording, np.ndarray, np.ndarray]:
    """A training set, y_hat, and (N,) bool: the frames whose y_hat misses the level."""
    rng = np.random.default_rng(0)
    n = len(SPLIT) * LENGTH
    video = np.repeat(np.arange(len(SPLIT), dtype=np.int32), LENGTH)
    frame = np.tile(np.arange(LENGTH, dtype=np.int32), len(SPLIT))
    labels = (rng.random((n, 12)) < 0.4).astype(np.int8)
    ok = np.arange(n) % 11 != 0
    names = tuple(f"v{v}" for v in range(len(SPLIT)))
    of_video = np.array(SPLIT, np.int8)
    frames = Frames(names, names, video, video, of_video[video], frame, frame / 25.0, ok, labels)
    noisy = np.arange(n) % 3 == 0
    y = np.where(noisy[:, None], 1.5 - 2.0 * labels, 2.0 * labels) + 0.2 * rng.normal(size=(n, 12))
    y_hat = np.where(ok[:, None], y, np.nan).astype(np.float32)
    pairs = {split: draw_pairs(frames, split, 40, (0, 2, k)) for k, split in enumerate(("fit", "select", "validation"))}
    data = Recording(
        frames, Faces(noisy), draw_groups(frames, 8, 6, (0, 1)), pairs, assign_folds(frames, folds, (0, 3))  # type: ignore[arg-type]
    )  # fmt: skip
    return data, y_hat, noisy


class Zero(nn.Module):
    """A network that says 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), len(AUS))


def test_sigma_starts_at_the_constant() -> None:
    start = np.linspace(0.2, 5, 12).astype(np.float32)
    sigma = Sigma(Zero(), start, 0.05)(torch.zeros(3, 3, SIZE, SIZE))
    np.testing.assert_allclose(sigma.numpy(), np.tile(start, (3, 1)), rtol=1e-5)


def test_sigma_keeps_above_its_floor_and_grows_with_the_network() -> None:
    class Say(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1, 0, 0].expand(-1, len(AUS))

    values = torch.tensor([-1000.0, -3.0, 0.0, 3.0, 1000.0])
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    sigma = Sigma(Say(), np.full(12, 0.01), 0.05)(images)  # a constant below the floor is lifted
    assert torch.isfinite(sigma).all()
    assert (sigma >= 0.05).all()
    assert (sigma.diff(dim=0) >= 0).all()
    assert sigma[-1, 0] > 100


NAIVE = {
    "nll": lambda d, s: -norm.logcdf(d / s),
    "nll_margin": lambda d, s: -norm.logcdf((d - 1) / s),
    "misorder": lambda d, s: norm.cdf((1 - d) / s),
}


@pytest.mark.parametrize("loss", list(NAIVE))
def test_best_constant_against_scipy(loss: str) -> None:
    data, y_hat, _ = make_data()
    section = TrainUncertainty(loss=loss)  # type: ignore[arg-type]
    trained = data.networks()["fold0"]
    got = best_constant(data.pairs["fit"], y_hat, trained, section)
    assert got.shape == (12,)
    assert got.dtype == np.float32
    pairs = data.pairs["fit"]
    for au in range(12):
        d = [
            float(r) * float(y_hat[i, a] - y_hat[j, a])
            for i, j, a, r in zip(pairs.i, pairs.j, pairs.au, pairs.r)
            if a == au and trained[i]
        ]

        def mean_loss(log_sigma: float, d: list[float] = d) -> float:
            return float(NAIVE[loss](np.array(d), np.sqrt(2) * np.exp(log_sigma)).mean())

        found = minimize_scalar(mean_loss, bounds=(np.log(0.06), np.log(10)), method="bounded")
        assert mean_loss(float(np.log(got[au]))) < found.fun + 2e-3


def test_best_constant_of_an_au_without_a_pair_is_one() -> None:
    data, y_hat, _ = make_data()
    pairs = data.pairs["fit"]
    got = best_constant(pairs[pairs.au != 4], y_hat, data.frames.of_split("fit"), TrainUncertainty())
    assert got[4] == 1
    assert got[3] != 1


@pytest.fixture(scope="module")
def trained() -> Any:
    data, y_hat, _ = make_data()
    return data, y_hat, train_h(data, y_hat, make_params(), 0)


def test_no_batch_holds_a_held_out_person_or_another_split(trained: Any) -> None:
    data, _, result = trained
    assert list(result.models) == ["final", "fold0", "fold1"]
    assert [len(batches) for batches in data.batches] == [4, 3, 3]
    assert len(data.batches[0][0]) == 2 * 8  # its own number of videos
    for name, batches in zip(result.models, data.batches):
        rows = np.concatenate(batches)
        assert data.frames.of_split("fit")[rows].all()
        assert set(data.frames.subject[rows].tolist()).isdisjoint(data.frames.subject[data.unseen(name)].tolist())


def test_sigma_comes_from_the_right_network(trained: Any) -> None:
    data, _, result = trained
    assert (np.isnan(result.sigma).all(axis=1) == ~data.frames.ok).all()
    assert (np.isnan(result.sigma).any(axis=1) == ~data.frames.ok).all()
    assert np.nanmin(result.sigma) >= 0.05
    for name, model in result.models.items():
        rows = np.flatnonzero(data.unseen(name) & data.frames.ok)
        np.testing.assert_array_equal(result.sigma[rows], forward_all(model, data.images, rows, CPU))


def test_validation_leaves_no_trace_and_a_seed_repeats(trained: Any) -> None:
    data, y_hat, result = trained
    again, _, noisy = make_data()
    hidden = data.frames.of_split("validation")
    altered, other_y = Faces(noisy), y_hat.copy()
    altered.pixels[hidden] = 255 - altered.pixels[hidden]
    other_y[hidden] *= -3
    other = train_h(replace(again, images=altered), other_y, make_params(), 0)  # type: ignore[arg-type]
    for name, model in result.models.items():
        state, same = model.state_dict(), other.models[name].state_dict()
        assert all(torch.equal(state[key], same[key]) for key in state)
    np.testing.assert_array_equal(result.sigma[~hidden], other.sigma[~hidden])
    assert result.curves == other.curves


def test_scores_of_held_out_people_do_not_reach_their_network(trained: Any) -> None:
    data, y_hat, result = trained
    other_y = y_hat.copy()
    other_y[data.unseen("fold0")] *= -3
    other = train_h(make_data()[0], other_y, make_params(), 0)

    def same(name: str) -> bool:
        one, two = result.models[name].state_dict(), other.models[name].state_dict()
        return all(torch.equal(one[key], two[key]) for key in one)

    assert [same(name) for name in ("final", "fold0", "fold1")] == [False, True, False]


def test_f_is_frozen() -> None:
    data, y_hat, _ = make_data(folds=1)
    before = y_hat.copy()
    train_h(data, y_hat, make_params(), 0)
    np.testing.assert_array_equal(y_hat, before)


@pytest.mark.parametrize(("loss", "noisy_is_higher"), [("nll", True), ("printed", False)])
def test_h_learns_which_faces_are_noise_and_the_printed_loss_the_reverse(loss: str, noisy_is_higher: bool) -> None:
    data, y_hat, noisy = make_data(folds=1)
    optimiser = {"name": "adamw", "learning_rate": 3e-3, "steps": 40, "videos": 3, "evaluate_every": 40, "keep": "last"}
    result = train_h(data, y_hat, make_params(loss=loss, optimiser=optimiser), 0)
    ok = data.frames.ok & data.frames.of_split("validation")
    high, low = result.sigma[ok & noisy].mean(), result.sigma[ok & ~noisy].mean()
    assert (high > 1.2 * low) if noisy_is_higher else (low > 1.2 * high)


def test_judge_equals_a_loop(trained: Any) -> None:
    data, y_hat, result = trained
    model, section = result.models["final"], make_params().train_uncertainty
    sigma = result.sigma  # select is scored by the final network
    losses = []
    pairs = data.pairs["select"]
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        d = float(r) * float(y_hat[i, au] - y_hat[j, au])
        s = np.sqrt(float(sigma[i, au]) ** 2 + float(sigma[j, au]) ** 2 + 1e-6)
        losses.append(-norm.logcdf(d / s))
    assert judge(model, data, y_hat, section, CPU)["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
