"""An h that is a network of its own: starts at the best constant, learns which frames are noisy, is out of fold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch import nn

from aupair.aus import AFFWILD2
from aupair.params import Params, parse_params
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.fit import forward_all
from aupair.ranking.networks import AUNetwork
from aupair.ranking.pairs import draw_folds, draw_groups
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sigma import SigmaNetwork
from aupair.ranking.uncertainty import Uncertainty, _evaluate_h, build_sigma_network, initial_sigma, train_h
from aupair.training_params import UncertaintyNetwork
from frame_sets import make_frames
from training_sets import NARROW, SIZE, Faces, RecordingTrainingSet, draw_fixed_pairs, same_weights

LENGTH, CPU = 24, torch.device("cpu")
SPLIT = (0, 0, 0, 0, 1, 1, 2)
NETWORK = {**NARROW, "dropout": 0.1}


def make_params(**changes: Any) -> Params:
    optimiser = {"name": "adamw", "learning_rate": 1e-3, "steps": 4, "fold_steps": 3, "batch": 16, "evaluate_every": 2}
    section = {"optimiser": optimiser, "network": NETWORK, "augment": 0.0, **changes}
    return Params.model_validate({"train_uncertainty": section})


def no_f(member: Member) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Fail: this kind of h needs no f."""
    raise AssertionError(member)


def train(data: TrainingSet, y_hat: np.ndarray, **changes: Any) -> Uncertainty:
    folds = tuple(Member(0, name) for name in data.training_masks())
    quality = np.full((len(y_hat), 3), np.nan, np.float32)
    return train_h(data, Ensemble((0,), folds, y_hat, None), quality, no_f, make_params(**changes), 0)


def held_out(data: TrainingSet) -> np.ndarray:
    """Return the frames of fit whose people the network of the first fold has not seen: (N,) bool."""
    return data.frames.of_split("fit") & ~data.training_masks()["fold0"]


def models_of(result: Uncertainty) -> dict[str, Any]:
    return {"final": result.model.network, **result.folds}


def make_faces(bright: np.ndarray) -> Faces:
    """Return dark faces, and bright ones where y_hat is noise."""
    base = np.random.default_rng(0).integers(20, 60, (len(bright), SIZE, SIZE, 3))
    return Faces(base + 160 * bright[:, None, None, None])


def make_data(folds: int = 2) -> tuple[RecordingTrainingSet, np.ndarray, np.ndarray]:
    """Return a training set, y_hat, and (N,) bool: the frames whose y_hat misses the level."""
    rng, n = np.random.default_rng(0), len(SPLIT) * LENGTH
    labels, ok = (rng.random((n, 12)) < 0.4).astype(np.int8), np.arange(n) % 11 != 0
    frames = make_frames(SPLIT, labels, ok=ok)
    noisy = np.arange(n) % 3 == 0
    y = np.where(noisy[:, None], 1.5 - 2.0 * labels, 2.0 * labels) + 0.2 * rng.normal(size=(n, 12))
    y_hat = np.where(ok[:, None], y, np.nan).astype(np.float32)
    groups, folds_of = draw_groups(frames, 8, 6, (0, 1)), draw_folds(frames, folds, (0, 3))
    data = RecordingTrainingSet(frames, make_faces(noisy), groups, draw_fixed_pairs(frames, 40), folds_of)
    return data, y_hat, noisy


class Zero(nn.Module):
    """A network whose output is 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), len(AFFWILD2))


def test_sigma_starts_at_the_constant() -> None:
    start = np.linspace(0.2, 5, 12).astype(np.float32)
    sigma = SigmaNetwork(Zero(), start, 0.05)(torch.zeros(3, 3, SIZE, SIZE))
    np.testing.assert_allclose(sigma.detach().numpy(), np.tile(start, (3, 1)), rtol=1e-5)


def test_sigma_keeps_above_its_floor_and_grows_with_the_network() -> None:
    class Say(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1, 0, 0].expand(-1, len(AFFWILD2))

    values = torch.tensor([-1000.0, -3.0, 0.0, 3.0, 1000.0])
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    sigma = SigmaNetwork(Say(), np.full(12, 0.01), 0.05)(images)  # a constant below the floor is lifted
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
    section = parse_params({"train_uncertainty": {"loss": loss}}).train_uncertainty
    trained = data.training_masks()["fold0"]
    got = initial_sigma(data.pairs["fit"], y_hat, trained, section)
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

        best = minimize_scalar(mean_loss, bounds=(np.log(0.06), np.log(10)), method="bounded")
        assert mean_loss(float(np.log(got[au]))) < best.fun + 2e-3


def test_best_constant_of_an_au_without_a_pair_is_one() -> None:
    data, y_hat, _ = make_data()
    pairs = data.pairs["fit"]
    got = initial_sigma(pairs[pairs.au != 4], y_hat, data.frames.of_split("fit"), UncertaintyNetwork())
    assert got[4] == 1
    assert got[3] != 1


def test_h_starts_at_the_best_constant() -> None:
    data, y_hat, _ = make_data()
    section = make_params().train_uncertainty
    start = initial_sigma(data.pairs["fit"], y_hat, data.training_masks()["fold0"], section)
    rows = np.flatnonzero(data.frames.ok)
    sigma = forward_all(build_sigma_network(data, start, section, 3), data.images, rows, CPU)
    np.testing.assert_allclose(sigma, np.tile(start, (len(rows), 1)), rtol=1e-4)


@pytest.fixture(scope="module")
def trained() -> Any:
    data, y_hat, _ = make_data()
    return data, y_hat, train(data, y_hat)


def test_no_batch_holds_a_held_out_person_or_another_split(trained: Any) -> None:
    data, _, result = trained
    assert list(models_of(result)) == ["final", "fold0", "fold1"]
    assert [len(batches) for batches in data.batches] == [4, 3, 3]
    assert len(data.batches[0][0]) == 2 * 8  # its own number of videos
    for name, batches in zip(models_of(result), data.batches):
        rows = np.concatenate(batches)
        assert data.frames.of_split("fit")[rows].all()
        assert set(data.frames.subject[rows].tolist()).isdisjoint(data.frames.subject[data.scoring_mask(name)].tolist())


def test_sigma_comes_from_the_right_network(trained: Any) -> None:
    data, _, result = trained
    assert (np.isnan(result.sigma).all(axis=1) == ~data.frames.ok).all()
    assert (np.isnan(result.sigma).any(axis=1) == ~data.frames.ok).all()
    assert np.nanmin(result.sigma) >= 0.05
    guard, fit = result.model.guard, data.frames.of_split("fit")
    for name, model in models_of(result).items():
        mask = ~fit if name == "final" else fit & (data.folds[data.frames.subject] == int(name[-1]))
        rows = np.flatnonzero(mask & data.frames.ok)
        outputs = forward_all(model, data.images, rows, CPU)
        np.testing.assert_allclose(result.unguarded[rows], outputs, rtol=1e-6)
        apply = guard.apply_to_new if name == "final" else guard.apply
        np.testing.assert_allclose(result.sigma[rows], np.exp(apply(np.log(outputs))).clip(0.05), rtol=1e-5)


def test_validation_leaves_no_trace_and_a_seed_repeats(trained: Any) -> None:
    data, y_hat, result = trained
    again, _, noisy = make_data()
    hidden = data.frames.of_split("validation")
    altered, other_y = make_faces(noisy), y_hat.copy()
    altered.pixels[hidden] = 255 - altered.pixels[hidden]
    other_y[hidden] *= -3
    other = train(replace(again, images=altered), other_y)
    assert all(same_weights(model, models_of(other)[name]) for name, model in models_of(result).items())
    np.testing.assert_array_equal(result.sigma[~hidden], other.sigma[~hidden])
    assert result.curves == other.curves


def test_scores_of_held_out_people_do_not_reach_their_network(trained: Any) -> None:
    data, y_hat, result = trained
    other_y = y_hat.copy()
    other_y[held_out(data)] *= -3
    other = train(make_data()[0], other_y)
    same = [same_weights(model, models_of(other)[name]) for name, model in models_of(result).items()]
    assert same == [False, True, False]


def test_faces_of_held_out_people_do_not_reach_their_network(trained: Any) -> None:
    data, y_hat, result = trained
    again, _, noisy = make_data()
    altered = make_faces(noisy)
    altered.pixels[held_out(data)] = 255 - altered.pixels[held_out(data)]
    other = train(replace(again, images=altered), y_hat)
    same = [same_weights(model, models_of(other)[name]) for name, model in models_of(result).items()]
    assert same == [False, True, False]


def test_offset_and_weights_learn(trained: Any) -> None:
    data, y_hat, result = trained
    for name, model in models_of(result).items():
        start = initial_sigma(data.pairs["fit"], y_hat, data.training_masks()[name], make_params().train_uncertainty)
        assert not torch.equal(model.offset, SigmaNetwork(Zero(), start, 0.05).offset)
    assert sum(p.requires_grad for p in result.model.network.parameters()) > 30


@pytest.mark.parametrize(("loss", "noisy_is_higher"), [("nll", True), ("printed", False)])
def test_h_learns_which_faces_are_noise_and_the_printed_loss_the_reverse(loss: str, noisy_is_higher: bool) -> None:
    data, y_hat, noisy = make_data(folds=1)
    optimiser = {"name": "adamw", "learning_rate": 3e-3, "steps": 40, "batch": 24, "evaluate_every": 40, "keep": "last"}
    result = train(data, y_hat, loss=loss, optimiser=optimiser, guard=False)
    ok = data.frames.ok & data.frames.of_split("validation")
    high, low = result.sigma[ok & noisy].mean(), result.sigma[ok & ~noisy].mean()
    assert (high > 1.2 * low) if noisy_is_higher else (low > 1.2 * high)
    np.testing.assert_array_equal(result.sigma, result.unguarded)
    assert result.model.guard is None


def test_the_guard_turns_a_reversed_sigma_into_a_constant() -> None:
    data, y_hat, _ = make_data()
    optimiser = {
        "name": "adamw", "learning_rate": 3e-3, "steps": 40, "fold_steps": 40, "batch": 24, "evaluate_every": 40,
        "keep": "last",
    }  # fmt: skip
    result = train(data, y_hat, loss="printed", optimiser=optimiser)
    assert (result.model.guard.strength == 0).sum() >= 11
    assert (np.nanmax(result.unguarded, axis=0) > 1.2 * np.nanmin(result.unguarded, axis=0)).all()


def test_evaluation_on_select_equals_a_loop(trained: Any) -> None:
    data, y_hat, result = trained
    model, section = result.model.network, make_params(device="cpu").train_uncertainty
    sigma = result.unguarded  # select is scored by the final network
    losses = []
    pairs = data.pairs["select"]
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        d = float(r) * float(y_hat[i, au] - y_hat[j, au])
        s = np.sqrt(float(sigma[i, au]) ** 2 + float(sigma[j, au]) ** 2 + 1e-6)
        losses.append(-norm.logcdf(d / s))
    assert _evaluate_h(model, data, data.images, y_hat, section)["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
