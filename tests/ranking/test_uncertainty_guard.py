"""The guard of h: it equals a loop, drops a useless sigma, keeps a right one, and never loses to the constant on fit."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from aupair.ranking.guard import STRENGTHS, Guard, fit_constants, fit_ensemble_scale, fit_guard
from aupair.ranking.pairs import Pairs

AUS, PEOPLE, LENGTH = 12, 40, 30


def draw(noise: np.ndarray, seed: int = 0, pairs_of_au: int = 600) -> tuple[np.ndarray, Pairs]:
    """Return y_hat = 2 level + noise (N, A) times a normal error, and pairs of one person's frames."""
    rng = np.random.default_rng(seed)
    count = PEOPLE * LENGTH
    labels = (rng.random((count, AUS)) < 0.4).astype(np.int8)
    y_hat = (2.0 * labels + noise * rng.normal(size=(count, AUS))).astype(np.float32)
    parts = []
    for au in range(AUS):
        first = rng.integers(count, size=20 * pairs_of_au)
        second = first // LENGTH * LENGTH + rng.integers(LENGTH, size=len(first))
        order = np.sign(labels[first, au] - labels[second, au])
        chosen = np.flatnonzero(order)[:pairs_of_au]
        parts.append(Pairs(first[chosen], second[chosen], np.full(len(chosen), au), order[chosen].astype(np.int8)))
    return y_hat, Pairs.concatenate(parts)


def noises(seed: int = 1) -> np.ndarray:
    """Return the standard deviation of the error of each frame and AU: a third of the frames are noisy."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((PEOPLE * LENGTH, AUS)) < 1 / 3, 2.5, 0.6)


def naive_nll(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs, au: int) -> float:
    terms = []
    for i, j, a, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        if a == au:
            s = np.sqrt(float(sigma[i, a]) ** 2 + float(sigma[j, a]) ** 2)
            terms.append(-norm.logcdf(float(r) * (float(y_hat[i, a]) - float(y_hat[j, a])) / s))
    return float(np.mean(terms))


def test_constants_equal_a_loop() -> None:
    noise = noises()
    y_hat, pairs = draw(noise, pairs_of_au=60)
    pairs = pairs[pairs.au != 3]
    log_factors, losses = fit_constants(np.log(noise), y_hat, pairs)
    assert (log_factors[3], np.isnan(losses[3])) == (0, True), "an AU without pairs"
    for au in (0, 7):
        assert losses[au] == pytest.approx(naive_nll(y_hat, noise * np.exp(log_factors[au]), pairs, au))
        best = minimize_scalar(
            lambda log_factor, au=au: naive_nll(y_hat, noise * np.exp(log_factor), pairs, au), bounds=(-2, 2),
            method="bounded",
        )  # fmt: skip
        assert log_factors[au] == pytest.approx(best.x, abs=0.01)


def test_the_guard_equals_a_loop_over_strengths() -> None:
    rng = np.random.default_rng(2)
    log_sigma = np.log(noises()) * rng.uniform(0, 1, AUS) + 0.4 * rng.normal(size=(PEOPLE * LENGTH, AUS))
    y_hat, pairs = draw(noises(), pairs_of_au=80)
    guard = fit_guard(log_sigma, y_hat, pairs)
    rows = np.unique(np.concatenate([pairs.i, pairs.j]))
    reference = np.median(log_sigma[rows], axis=0)
    losses = np.array([fit_constants(t * (log_sigma - reference), y_hat, pairs)[1] for t in STRENGTHS])
    for au in range(AUS):
        gains = [losses[0, au] - losses[t, au] for t in range(len(STRENGTHS))]
        of_all = [np.mean([losses[0, a] - losses[t, a] for a in range(AUS)]) for t in range(len(STRENGTHS))]
        scores = [0.5 * own + 0.5 * mean if own >= 0 else -1 for own, mean in zip(gains, of_all)]
        assert guard.strength[au] == STRENGTHS[int(np.argmax(scores))]
    assert (guard.nll["guarded"] <= guard.nll["constant"]).all()
    guarded = np.exp(guard.apply(log_sigma))
    for au in (0, 5):
        assert naive_nll(y_hat, guarded, pairs, au) == pytest.approx(guard.nll["guarded"][au], rel=1e-5)


def test_a_right_sigma_is_kept() -> None:
    noise = noises()
    y_hat, pairs = draw(noise)
    guard = fit_guard(np.log(noise), y_hat, pairs)
    assert np.mean(guard.strength) > 0.8
    assert (guard.nll["guarded"] < 0.95 * guard.nll["constant"]).all()


def test_a_useless_sigma_becomes_the_constant() -> None:
    y_hat, pairs = draw(noises())
    log_sigma = np.random.default_rng(5).normal(size=y_hat.shape)
    guard = fit_guard(log_sigma, y_hat, pairs)
    assert (guard.strength == 0).sum() >= AUS - 1
    sigma = np.exp(guard.apply(log_sigma))[:, guard.strength == 0]
    assert np.ptp(sigma, axis=0).max() < 1e-9
    best, _ = fit_constants(np.zeros_like(log_sigma), y_hat, pairs)
    np.testing.assert_allclose(sigma[0], np.exp(best)[guard.strength == 0], rtol=1e-6)


def test_a_reversed_sigma_becomes_the_constant() -> None:
    noise = noises()
    y_hat, pairs = draw(noise)
    assert (fit_guard(-np.log(noise), y_hat, pairs).strength == 0).all()


def test_the_scale_of_sigma_does_not_matter() -> None:
    noise = noises()
    y_hat, pairs = draw(noise, pairs_of_au=100)
    one, other = (fit_guard(np.log(noise) + shift, y_hat, pairs) for shift in (0, 3))
    np.testing.assert_array_equal(one.strength, other.strength)
    np.testing.assert_allclose(one.apply(np.log(noise)), other.apply(np.log(noise) + 3), atol=1e-6)


def test_the_scale_of_new_frames_is_measured_and_applied_to_them_alone() -> None:
    noise = noises()
    y_hat, pairs = draw(noise)
    scale = fit_ensemble_scale(np.log(noise), y_hat, pairs)
    assert fit_ensemble_scale(np.log(2 * noise), y_hat, pairs) == pytest.approx(scale / 2, rel=1e-4)
    losses = [
        np.mean([naive_nll(y_hat, factor * scale * noise, pairs[::20], au) for au in range(AUS)])
        for factor in (0.5, 1, 2)
    ]
    assert losses[1] < min(losses[0], losses[2])
    assert fit_ensemble_scale(np.log(noise), y_hat, pairs[:0]) == 1
    guard = Guard(np.ones(AUS), np.zeros(AUS), np.zeros(AUS), {}, scale)
    np.testing.assert_allclose(np.exp(guard.apply(np.log(noise))), noise)
    np.testing.assert_allclose(np.exp(guard.apply_to_new(np.log(noise))), noise * scale)


def test_no_pairs_at_all() -> None:
    y_hat, pairs = draw(noises(), pairs_of_au=10)
    guard = fit_guard(np.log(noises()), y_hat, pairs[:0])
    assert (guard.strength == 0).all()
    assert np.isfinite(guard.apply(np.log(noises()))).all()


def test_a_guard_comes_back_from_json() -> None:
    noise = noises()
    y_hat, pairs = draw(noise, pairs_of_au=50)
    guard = fit_guard(np.log(noise), y_hat, pairs)
    tree = json.loads(json.dumps({key: np.asarray(value).tolist() if key != "nll" else {k: v.tolist() for k, v in value.items()}
                                  for key, value in guard.to_json().items()}))  # fmt: skip
    other = Guard.from_json(tree)
    np.testing.assert_array_equal(guard.apply_to_new(np.log(noise)), other.apply_to_new(np.log(noise)))
