"""h of both kinds: starts at the best constant, learns which frames are noisy, is out of fold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch import nn

from aupair.aus import AFFWILD2
from aupair.log import SILENT
from aupair.params import Params, parse_params
from aupair.ranking.fit import forward_all
from aupair.ranking.networks import AUNetwork, Factors, build_network
from aupair.ranking.pairs import draw_folds, draw_groups
from aupair.ranking.samples import TrainingSet
from aupair.ranking.uncertainty import (
    LoadF,
    Sigma,
    Uncertainty,
    _evaluate_h,
    build_h_network,
    initial_sigma,
    train_h,
)
from aupair.training_params import Network, UncertaintyNetwork
from frame_sets import make_frames
from training_sets import NARROW, SIZE, Faces, RecordingTrainingSet, draw_fixed_pairs, same_weights

LENGTH, CPU = 24, torch.device("cpu")
SPLIT = (0, 0, 0, 0, 1, 1, 2)
KINDS = ("network", "factors")
NETWORK = {**NARROW, "dropout": 0.1}


def make_params(**changes: Any) -> Params:
    optimiser = {"name": "adamw", "learning_rate": 1e-3, "steps": 4, "fold_steps": 3, "batch": 16, "evaluate_every": 2}
    section = {"optimiser": optimiser, **changes}
    if section.get("kind") != "factors":
        section |= {"network": NETWORK, "augment": 0.0}
    return Params.model_validate({"train_uncertainty": section})


def make_f(name: str) -> AUNetwork:
    """Return a network of f: a different one for each name, with its own batch statistics."""
    f = build_network(Network.model_validate(NETWORK), SIZE, ("final", "fold0", "fold1").index(name), 12)
    images = np.random.default_rng(7).integers(0, 256, (16, 3, SIZE, SIZE)).astype(np.float32)
    for _ in range(20):
        f.train()(torch.from_numpy(images))
    return f


def loaded(name: str) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Return the same with center and scale, as `load_f` does."""
    return make_f(name), np.zeros(12), np.ones(12)


def unused(name: str) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Fail: this kind of h needs no f."""
    raise AssertionError(name)


def load_f_for(kind: str) -> LoadF:
    return loaded if kind == "factors" else unused


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
    sigma = Sigma(Zero(), start, 0.05)(torch.zeros(3, 3, SIZE, SIZE))
    np.testing.assert_allclose(sigma.detach().numpy(), np.tile(start, (3, 1)), rtol=1e-5)


def test_sigma_keeps_above_its_floor_and_grows_with_the_network() -> None:
    class Say(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1, 0, 0].expand(-1, len(AFFWILD2))

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


@pytest.mark.parametrize("kind", KINDS)
def test_h_starts_at_the_best_constant(kind: str) -> None:
    data, y_hat, _ = make_data()
    params = make_params(kind=kind)
    start = initial_sigma(data.pairs["fit"], y_hat, data.training_masks()["fold0"], params.train_uncertainty)
    network, faces = build_h_network(data, load_f_for(kind), "fold0", params.train_uncertainty, 3, SILENT)
    rows = np.flatnonzero(data.frames.ok)
    sigma = forward_all(Sigma(network, start, 0.05), faces, rows, CPU)
    np.testing.assert_allclose(sigma, np.tile(start, (len(rows), 1)), rtol=1e-4 if kind == "network" else 0.03)
    assert (np.ptp(sigma, axis=0) > 0).any() == (kind == "factors")  # down is not zero, or up would not learn


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> Any:
    data, y_hat, _ = make_data()
    return data, y_hat, train_h(data, y_hat, load_f_for(request.param), make_params(kind=request.param), 0)


def kind_of(result: Uncertainty) -> str:
    return "factors" if isinstance(result.models["final"].network, Factors) else "network"


def again_with(result: Uncertainty, data: TrainingSet, y_hat: np.ndarray) -> Uncertainty:
    """Train once more with the settings behind a result."""
    kind = kind_of(result)
    return train_h(data, y_hat, load_f_for(kind), make_params(kind=kind), 0)


def test_no_batch_holds_a_held_out_person_or_another_split(trained: Any) -> None:
    data, _, result = trained
    assert list(result.models) == ["final", "fold0", "fold1"]
    assert [len(batches) for batches in data.batches] == [4, 3, 3]
    assert len(data.batches[0][0]) == 2 * 8  # its own number of videos
    for name, batches in zip(result.models, data.batches):
        rows = np.concatenate(batches)
        assert data.frames.of_split("fit")[rows].all()
        assert set(data.frames.subject[rows].tolist()).isdisjoint(data.frames.subject[data.scoring_mask(name)].tolist())


def test_sigma_comes_from_the_right_network(trained: Any) -> None:
    data, _, result = trained
    assert (np.isnan(result.sigma).all(axis=1) == ~data.frames.ok).all()
    assert (np.isnan(result.sigma).any(axis=1) == ~data.frames.ok).all()
    assert np.nanmin(result.sigma) >= 0.05
    for name, model in result.models.items():
        rows = np.flatnonzero(data.scoring_mask(name) & data.frames.ok)
        np.testing.assert_array_equal(result.sigma[rows], forward_all(model, data.images, rows, CPU))


def test_validation_leaves_no_trace_and_a_seed_repeats(trained: Any) -> None:
    data, y_hat, result = trained
    again, _, noisy = make_data()
    hidden = data.frames.of_split("validation")
    altered, other_y = make_faces(noisy), y_hat.copy()
    altered.pixels[hidden] = 255 - altered.pixels[hidden]
    other_y[hidden] *= -3
    other = again_with(result, replace(again, images=altered), other_y)
    assert all(same_weights(model, other.models[name]) for name, model in result.models.items())
    np.testing.assert_array_equal(result.sigma[~hidden], other.sigma[~hidden])
    assert result.curves == other.curves


def test_scores_of_held_out_people_do_not_reach_their_network(trained: Any) -> None:
    data, y_hat, result = trained
    other_y = y_hat.copy()
    other_y[data.scoring_mask("fold0")] *= -3
    other = again_with(result, make_data()[0], other_y)
    same = [same_weights(model, other.models[name]) for name, model in result.models.items()]
    assert same == [False, True, False]


def test_faces_of_held_out_people_do_not_reach_their_network(trained: Any) -> None:
    data, y_hat, result = trained
    again, _, noisy = make_data()
    altered = make_faces(noisy)
    altered.pixels[data.scoring_mask("fold0")] = 255 - altered.pixels[data.scoring_mask("fold0")]
    other = again_with(result, replace(again, images=altered), y_hat)
    same = [same_weights(model, other.models[name]) for name, model in result.models.items()]
    assert same == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_f_is_frozen(kind: str) -> None:
    data, y_hat, _ = make_data(folds=1)
    before, f = y_hat.copy(), make_f("final")
    train_h(data, y_hat, lambda name: (f, np.zeros(12), np.ones(12)), make_params(kind=kind), 0)
    np.testing.assert_array_equal(y_hat, before)
    assert same_weights(f, make_f("final"))


@pytest.mark.parametrize("trained", ["factors"], indirect=True)
def test_each_h_reads_the_trunk_of_its_own_f_and_leaves_it_as_it_is(trained: Any) -> None:
    result = trained[2]
    trunks = {name: dict(model.network.trunk.state_dict()) for name, model in result.models.items()}
    assert any("running_mean" in key for key in trunks["final"])
    for name, trunk in trunks.items():
        of_f = make_f(name).networks[0].features.state_dict()
        assert trunk.keys() == of_f.keys()  # the default is the last block
        assert all(torch.equal(value, of_f[key]) for key, value in trunk.items()), name
    assert not torch.equal(trunks["final"]["0.weight"], trunks["fold0"]["0.weight"])
    assert not any(p.requires_grad for model in result.models.values() for p in model.network.trunk.parameters())


@pytest.mark.parametrize("trained", ["factors"], indirect=True)
def test_phi_is_standardised_on_the_frames_that_h_may_see(trained: Any) -> None:
    data, _, result = trained
    for name, model in result.models.items():
        rows = np.flatnonzero(data.training_masks()[name] & data.frames.ok)
        images = torch.from_numpy(data.images(rows)).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            phi = model.eval().network.phi(images).numpy().astype(np.float64)
        np.testing.assert_allclose(model.network.center.numpy(), phi.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.network.scale.numpy(), np.maximum(phi.std(axis=0), 1e-3), rtol=1e-3, atol=1e-5)


def test_offset_and_factors_learn(trained: Any) -> None:
    data, y_hat, result = trained
    kind = kind_of(result)
    for name, model in result.models.items():
        params = make_params(kind=kind)
        start = initial_sigma(data.pairs["fit"], y_hat, data.training_masks()[name], params.train_uncertainty)
        assert not torch.equal(model.offset, Sigma(Zero(), start, 0.05).offset)
    moved = [name for name, p in result.models["final"].named_parameters() if p.requires_grad]
    if kind == "factors":
        assert sorted(moved) == ["network.down", "network.up", "offset"]
    else:
        assert len(moved) > 30


STEPS = {"network": (3e-3, 40), "factors": (3e-2, 150)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("loss", "noisy_is_higher"), [("nll", True), ("printed", False)])
def test_h_learns_which_faces_are_noise_and_the_printed_loss_the_reverse(
    kind: str, loss: str, noisy_is_higher: bool
) -> None:
    data, y_hat, noisy = make_data(folds=1)
    rate, steps = STEPS[kind]
    optimiser = {"name": "adamw", "learning_rate": rate, "steps": steps, "batch": 24, "evaluate_every": steps}
    params = make_params(kind=kind, loss=loss, optimiser={**optimiser, "keep": "last"})
    result = train_h(data, y_hat, load_f_for(kind), params, 0)
    ok = data.frames.ok & data.frames.of_split("validation")
    high, low = result.sigma[ok & noisy].mean(), result.sigma[ok & ~noisy].mean()
    assert (high > 1.2 * low) if noisy_is_higher else (low > 1.2 * high)


def test_evaluation_on_select_equals_a_loop(trained: Any) -> None:
    data, y_hat, result = trained
    model, section = result.models["final"], make_params(device="cpu").train_uncertainty
    sigma = result.sigma  # select is scored by the final network
    losses = []
    pairs = data.pairs["select"]
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        d = float(r) * float(y_hat[i, au] - y_hat[j, au])
        s = np.sqrt(float(sigma[i, au]) ** 2 + float(sigma[j, au]) ** 2 + 1e-6)
        losses.append(-norm.logcdf(d / s))
    assert _evaluate_h(model, data, data.images, y_hat, section)["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
