"""Each loss against a loop over scipy's normal distribution, and which way it moves sigma."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from aupair.ranking.losses import (
    UNCERTAINTY_LOSSES,
    PairBatch,
    misorder,
    nll,
    nll_margin,
    printed,
    ranking,
    ranking_loss,
    uncertainty_loss,
)
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights

M = 0.7
B, A, COUNT = 6, 4, 40

NAIVE = {
    "printed": lambda d, s, m: norm.cdf((d - m) / s),
    "misorder": lambda d, s, m: norm.cdf((m - d) / s),
    "nll_margin": lambda d, s, m: -norm.logcdf((d - m) / s),
    "nll": lambda d, s, m: -norm.logcdf(d / s),
}

SIGNS = {  # of dL/ds at s = 1, m = 1 (method.md, section 2); + : minimising lowers sigma
    "printed": "+ + + + 0 - - -",
    "nll_margin": "- - - - 0 + + +",
    "misorder": "- - - - 0 + + +",
    "nll": "- - 0 + + + + +",
}
D = (-3.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def random_pairs(seed: int) -> tuple[torch.Tensor, torch.Tensor, Pairs, np.ndarray]:
    rng = np.random.default_rng(seed)
    i, j, au = rng.integers(B, size=COUNT), rng.integers(B, size=COUNT), rng.integers(A, size=COUNT)
    pairs = Pairs(i, j, au, rng.choice(np.array([-1, 1], np.int8), COUNT))
    weight = rng.random(COUNT)
    y, sigma = torch.from_numpy(rng.normal(size=(B, A)) * 2), torch.from_numpy(rng.uniform(0.05, 3, (B, A)))
    return y, sigma, pairs, (weight / weight.sum()).astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_loss_equals_a_loop(seed: int, dtype: torch.dtype) -> None:
    y, _, pairs, weight = random_pairs(seed)
    expected = 0.0
    for i, j, au, r, w in zip(pairs.i, pairs.j, pairs.au, pairs.r, weight):
        expected += float(w) * max(0.0, M - float(r) * float(y[i, au] - y[j, au]))
    got = ranking_loss(y.to(dtype), PairBatch.from_pairs(pairs, weight), M)
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(NAIVE))
@pytest.mark.parametrize("seed", range(3))
def test_uncertainty_loss_equals_a_loop(seed: int, name: str, dtype: torch.dtype) -> None:
    y, sigma, pairs, weight = random_pairs(seed)
    expected = 0.0
    for i, j, au, r, w in zip(pairs.i, pairs.j, pairs.au, pairs.r, weight):
        d = float(r) * float(y[i, au] - y[j, au])
        s = math.sqrt(float(sigma[i, au]) ** 2 + float(sigma[j, au]) ** 2 + 1e-6)
        expected += float(w) * float(NAIVE[name](d, s, M))
    logs = [math.log(float(value)) ** 2 for row in sigma for value in row]
    expected += 0.01 * sum(logs) / len(logs)
    got = uncertainty_loss(y.to(dtype), sigma.to(dtype), PairBatch.from_pairs(pairs, weight), name, M, 0.01)
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", list(NAIVE))
def test_elementwise_in_float64(name: str) -> None:
    rng = np.random.default_rng(0)
    d, s = rng.normal(size=200) * 4, rng.uniform(0.1, 3, 200)
    got = UNCERTAINTY_LOSSES[name](torch.from_numpy(d), torch.from_numpy(s), M)
    np.testing.assert_allclose(got.numpy(), [NAIVE[name](a, b, M) for a, b in zip(d, s)], rtol=1e-9, atol=1e-12)
    assert ranking(torch.tensor([0.2, 5.0]), M).tolist() == pytest.approx([0.5, 0.0])


def test_printed_is_the_printed_formula() -> None:
    d, s = torch.linspace(-3, 3, 25, dtype=torch.float64), torch.full((25,), 0.8, dtype=torch.float64)
    formula = 1 - 0.5 * (1 + torch.erf((M - d) / (s * math.sqrt(2))))
    torch.testing.assert_close(printed(d, s, M), formula)
    torch.testing.assert_close(misorder(d, s, M), 1 - formula)


@pytest.mark.parametrize("name", list(SIGNS))
@pytest.mark.parametrize(("d", "column"), list(zip(D, range(len(D)))))
def test_sign_of_the_derivative_by_s(name: str, d: float, column: int) -> None:
    s = torch.tensor(1.0, requires_grad=True)
    UNCERTAINTY_LOSSES[name](torch.tensor(d), s, 1.0).backward()
    assert s.grad is not None
    gradient = float(s.grad)
    sign = "0" if abs(gradient) < 1e-7 else "+" if gradient > 0 else "-"
    assert sign == SIGNS[name].split()[column]


@pytest.mark.parametrize("z", [-5.0, -30.0, -100.0])
@pytest.mark.parametrize("loss", [nll, nll_margin])
def test_gradient_is_alive_in_the_tail(loss: object, z: float) -> None:
    """A clamped log would give exactly 0 below z = -5.5, where the worst pairs are."""
    s = torch.tensor(1.0, requires_grad=True)
    margin = 0.0 if loss is nll else 1.0
    assert callable(loss)
    value = loss(torch.tensor(z + margin), s, 1.0)
    value.backward()
    hazard = math.exp(norm.logpdf(z) - norm.logcdf(z))
    assert float(value.detach()) == pytest.approx(-norm.logcdf(z), rel=1e-5)
    assert s.grad is not None
    assert float(s.grad) == pytest.approx(hazard * z, rel=1e-3)


def noisy_frames() -> tuple[torch.Tensor, PairBatch, np.ndarray]:
    """60 frames of one AU; y_hat is the level twice over, but misses it on every third frame."""
    level = np.arange(60) % 2
    noisy = np.arange(60) % 3 == 0
    y = np.where(noisy, 2.5 - 3.0 * level, 2.0 * level) + np.random.default_rng(0).normal(size=60) * 0.1
    pairs = all_pairs(level.astype(np.int8)[:, None], np.zeros(60))
    return torch.from_numpy(y[:, None]), PairBatch.from_pairs(pairs, cell_weights(pairs, np.zeros(60))), noisy


@pytest.mark.parametrize(("name", "noisy_is_higher"), [("nll", 1), ("nll_margin", 1), ("misorder", 1), ("printed", 0)])
def test_which_frames_get_a_large_sigma(name: str, noisy_is_higher: int) -> None:
    y, pairs, noisy = noisy_frames()
    log_sigma = torch.zeros(60, 1, requires_grad=True)
    optimiser = torch.optim.Adam([log_sigma], lr=0.03)
    for _ in range(60):
        optimiser.zero_grad()
        uncertainty_loss(y, log_sigma.exp(), pairs, name, 1.0, 1e-3).backward()
        optimiser.step()
    sigma = log_sigma.exp().detach().numpy()[:, 0]
    # The inversion of `printed`: clean frames become uncertain, noisy ones sure.
    high, low = (sigma[noisy], sigma[~noisy]) if noisy_is_higher else (sigma[~noisy], sigma[noisy])
    assert high.mean() > 1.2
    assert high.mean() > 1.5 * low.mean()


def test_the_penalty_fixes_the_gauge() -> None:
    level = (np.arange(10) % 2).astype(np.int8)
    pairs = all_pairs(level[:, None], np.zeros(10))
    batch = PairBatch.from_pairs(pairs, cell_weights(pairs, np.zeros(10)))
    y = torch.randn(10, 1, generator=torch.Generator().manual_seed(0))

    def loss(c: float, penalty: float) -> float:
        sigma = torch.sqrt(1 + c * (2.0 * torch.from_numpy(level)[:, None] - 1))
        return float(uncertainty_loss(y, sigma, batch, "nll", 1.0, penalty))

    assert loss(0.5, 0.0) == pytest.approx(loss(0.0, 0.0), abs=1e-6)
    assert loss(-0.5, 0.0) == pytest.approx(loss(0.0, 0.0), abs=1e-6)
    assert loss(0.5, 0.1) > loss(0.0, 0.1) + 1e-3
    assert loss(-0.5, 0.1) > loss(0.0, 0.1) + 1e-3


def test_ranking_pulls_the_higher_level_up_until_the_margin_holds() -> None:
    y = torch.tensor([[0.0], [0.5], [9.0]], requires_grad=True)
    pairs = Pairs(np.array([0, 2]), np.array([1, 1]), np.array([0, 0]), np.array([1, 1], np.int8))
    ranking_loss(y, PairBatch.from_pairs(pairs, np.array([0.25, 0.75])), 1.0).backward()
    assert y.grad is not None
    assert y.grad[:, 0].tolist() == [-0.25, 0.25, 0.0]  # gradient descent raises 0, lowers 1; 2 is far enough


def test_swapping_a_pair_changes_nothing() -> None:
    y, sigma, pairs, weight = random_pairs(7)
    swapped = Pairs(pairs.j, pairs.i, pairs.au, -pairs.r)
    for name in NAIVE:
        one = uncertainty_loss(y, sigma, PairBatch.from_pairs(pairs, weight), name, M, 0.0)
        torch.testing.assert_close(one, uncertainty_loss(y, sigma, PairBatch.from_pairs(swapped, weight), name, M, 0.0))


def test_no_pair_is_no_loss_and_still_has_a_gradient() -> None:
    y = torch.randn(3, 2, requires_grad=True)
    loss = ranking_loss(y, PairBatch.from_pairs(Pairs.concatenate([]), np.zeros(0)))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert y.grad is not None
    assert y.grad.abs().sum() == 0
