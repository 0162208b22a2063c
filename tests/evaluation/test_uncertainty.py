"""Figures of sigma against naive loops, scikit-learn and scipy, and the direction in which each one moves."""

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from aupair.evaluation.bootstrap import draw_resamples
from aupair.evaluation.pair_order import (
    auroc_in_resamples,
    auroc_of_orders,
    best_constant_sigma,
    ece_of_orders,
    mean_in_resamples,
    order_margins,
    pair_losses,
    pair_nll,
)
from aupair.evaluation.uncertainty import _auroc_between, _spearman_misorder
from aupair.ranking.pairs import Pairs

A = 3


def draw(seed: int = 0, n: int = 80, m: int = 400, aus: int = A) -> tuple[np.ndarray, np.ndarray, Pairs]:
    """y_hat, sigma, and pairs whose order is right more often than not; the last AU has none."""
    rng = np.random.default_rng(seed)
    y_hat, sigma = rng.normal(size=(n, aus)), np.exp(0.4 * rng.normal(size=(n, aus)))
    i, j, au = rng.integers(0, n, m), rng.integers(0, n, m), rng.integers(0, aus - 1, m)
    d = y_hat[i, au] - y_hat[j, au]
    r = np.where(rng.random(m) < norm.cdf(d / np.hypot(sigma[i, au], sigma[j, au])), 1, -1)
    return y_hat, sigma, Pairs(i, j, au, r)


def naive_nll(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> list[float]:
    """Pair by pair."""
    loss: list[list[float]] = [[] for _ in range(y_hat.shape[1])]
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        s = (sigma[i, au] ** 2 + sigma[j, au] ** 2 + 1e-6) ** 0.5
        loss[au].append(-np.log(norm.cdf(r * (y_hat[i, au] - y_hat[j, au]) / s)))
    return [float(np.mean(part)) if part else float("nan") for part in loss]


def test_pair_nll_equals_a_loop() -> None:
    y_hat, sigma, pairs = draw()
    np.testing.assert_allclose(pair_nll(y_hat, sigma, pairs), naive_nll(y_hat, sigma, pairs))
    assert np.isnan(pair_nll(y_hat, sigma, pairs)[A - 1])


def test_pair_nll_stays_finite_far_out() -> None:
    y_hat = np.array([[0.0], [50.0]])
    pairs = Pairs(np.array([0]), np.array([1]), np.array([0]), np.array([1]))
    assert pair_nll(y_hat, np.full((2, 1), 0.05), pairs)[0] == pytest.approx(norm.logcdf(-1e3 / 2**0.5) * -1, rel=1e-3)


def test_the_best_constant_is_the_best_of_a_grid_and_the_true_sigma_beats_it() -> None:
    y_hat, sigma, pairs = draw(n=400, m=6000)
    best = best_constant_sigma(y_hat, pairs)
    nll = pair_nll(y_hat, np.broadcast_to(best, y_hat.shape), pairs)
    for other in np.geomspace(0.02, 50, 60):
        assert (nll[:-1] <= pair_nll(y_hat, np.full(y_hat.shape, other), pairs)[:-1] + 1e-9).all()
    assert np.isnan(best[-1])
    assert (pair_nll(y_hat, sigma, pairs)[:-1] < nll[:-1]).all()


def test_auroc_correct_equals_a_loop_and_leaves_out_ties() -> None:
    y_hat, sigma, pairs = draw()
    y_hat[:20] = 0.0
    result = auroc_of_orders(y_hat, sigma, pairs)
    for au in range(A - 1):
        own = [(i, j, r) for i, j, a, r in zip(pairs.i, pairs.j, pairs.au, pairs.r) if a == au]
        d = np.array([r * (y_hat[i, au] - y_hat[j, au]) for i, j, r in own])
        s = np.array([(sigma[i, au] ** 2 + sigma[j, au] ** 2 + 1e-6) ** 0.5 for i, j, r in own])
        keep = d != 0
        assert keep.sum() < len(d)
        for name, score in (("margin", abs(d)), ("margin_over_sigma", abs(d) / s)):
            assert result[name][au] == pytest.approx(roc_auc_score(d[keep] > 0, score[keep]))


def test_ece_equals_a_loop() -> None:
    y_hat, sigma, pairs = draw(m=900)
    result = ece_of_orders(y_hat, sigma, pairs)
    for au in range(A - 1):
        bins: list[list[tuple[float, float]]] = [[] for _ in range(15)]
        for i, j, a, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
            if a == au:
                d = y_hat[i, au] - y_hat[j, au]
                p = norm.cdf(abs(d) / (sigma[i, au] ** 2 + sigma[j, au] ** 2 + 1e-6) ** 0.5)
                bins[min(int((p - 0.5) / 0.5 * 15), 14)].append((p, 1.0 if np.sign(d) == r else 0.5 if d == 0 else 0.0))
        total = sum(map(len, bins))
        gaps = [abs(sum(p for p, _ in b) - sum(right for _, right in b)) for b in bins]
        assert result[au] == pytest.approx(sum(gaps) / total)
    assert np.isnan(result[A - 1])


def test_the_true_sigma_is_calibrated_and_a_tenth_of_it_is_not() -> None:
    y_hat, sigma, pairs = draw(n=400, m=8000)
    assert (ece_of_orders(y_hat, sigma, pairs)[:-1] < 0.04).all()
    assert (ece_of_orders(y_hat, sigma / 10, pairs)[:-1] > 0.15).all()


def test_ece_does_not_depend_on_how_pairs_are_turned() -> None:
    y_hat, sigma, pairs = draw()
    turned = Pairs(pairs.j, pairs.i, pairs.au, -pairs.r)
    np.testing.assert_allclose(ece_of_orders(y_hat, sigma, turned), ece_of_orders(y_hat, sigma, pairs))


def test_spearman_misorder_equals_scipy_over_the_frames_with_a_rate() -> None:
    rng = np.random.default_rng(2)
    rate = np.where(rng.random((100, 2)) < 0.3, np.nan, rng.random((100, 2)))
    sigma = rng.random((100, 2))
    expected = [spearmanr(sigma[:, a], rate[:, a], nan_policy="omit").statistic for a in range(2)]
    np.testing.assert_allclose(_spearman_misorder(sigma, rate), expected)


def test_auroc_between_judges_two_kinds_and_nothing_else() -> None:
    sigma = np.array([[3.0, 1.0], [1.0, 2.0], [99.0, 99.0], [2.0, 1.0]])
    high = np.array([[True, False], [False, False], [False, False], [True, False]])
    low = np.array([False, True, False, False])[:, None]  # the third is neither
    result = _auroc_between(sigma, high, low)
    assert result[0] == 1.0
    assert np.isnan(result[1])
    assert _auroc_between(-sigma, high, low)[0] == 0.0
    own = np.array([[False, False], [True, False], [False, False], [False, True]])  # a kind of its own for each AU
    assert _auroc_between(sigma, high, own)[0] == 1.0


def test_figures_in_a_resample_are_those_of_its_repeated_pairs() -> None:
    y_hat, sigma, pairs = draw(m=600)
    person, weights = pairs.i % 5, draw_resamples(5, 20, (0,))
    means = mean_in_resamples(pair_losses(y_hat, sigma, pairs), pairs, person, weights, A)
    d = pairs.r * (y_hat[pairs.i, pairs.au] - y_hat[pairs.j, pairs.au])
    scores, right, own = order_margins(y_hat, sigma, pairs), d > 0, (pairs.au == 1) & (d != 0)
    drawn = {name: auroc_in_resamples(score[own], right[own], person[own], weights) for name, score in scores.items()}
    for k, times in enumerate(weights):
        rows = np.concatenate([np.tile(np.flatnonzero(person == p), n) for p, n in enumerate(times)])
        repeated = Pairs(*(values[rows] for values in (pairs.i, pairs.j, pairs.au, pairs.r)))
        np.testing.assert_allclose(means[k], pair_nll(y_hat, sigma, repeated))
        for name, values in auroc_of_orders(y_hat, sigma, repeated).items():
            assert drawn[name][k] == pytest.approx(values[1])
    one_sided = auroc_in_resamples(scores["margin"][own], np.ones(own.sum(), bool), person[own], weights)
    assert np.isnan(one_sided).all(), "no wrong order"
