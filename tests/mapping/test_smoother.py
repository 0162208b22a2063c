"""The smoother equals the posterior of the dense Gaussian model, and moves values in the right direction."""

from dataclasses import replace

import numpy as np
import pytest

from aupair.mapping.smoother import CLIP, Clip, Noise, Uncertainty, frame_interval, smooth, smooth_clips

A = 3
NOISE = Noise(reach=0.3, power=1.2, variance=(0.5, 1.0, 2.0), tau=1.5)
TIMES = {
    "25 frames/s": np.arange(40) / 25,
    "irregular": np.cumsum(np.random.default_rng(2).uniform(0.01, 0.3, 40)),
    "a long pause": np.r_[np.arange(20) / 10, 60 + np.arange(20) / 10],
    "equal times": np.repeat(np.arange(20) / 10, 2),
    "one frame": np.array([3.2]),
}


def make(time: np.ndarray, seed: int = 0, missing: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y with gaps at both ends and within, z and time."""
    rng = np.random.default_rng(seed)
    y, z = rng.normal(size=(2, len(time), A))
    if missing and len(time) > 10:
        y[[0, 1, 7, *range(15, 22), -1]] = np.nan
    return y, z, time


def posterior(y: np.ndarray, z: np.ndarray, time: np.ndarray, noise: Noise, au: int) -> tuple[np.ndarray, np.ndarray]:
    """Condition the process with covariance V exp(-|t - s| / tau) on the observations of one AU, by dense matrices."""
    known = ~np.isnan(y[:, au])
    steps = np.diff(time)[np.diff(time) > 0]
    interval = np.median(steps) if len(steps) else 0.04
    v = noise.variance[au]
    covariance = v * np.exp(-np.abs(time[:, None] - time) / noise.tau)
    r = v * 2 * noise.reach**2 / noise.tau * np.exp(noise.power * z[known, au]) / interval
    mu = np.median(y[known, au])
    gain = covariance[:, known] @ np.linalg.inv(covariance[np.ix_(known, known)] + np.diag(r))
    mean = mu + gain @ (y[known, au] - mu)
    variance = np.diag(covariance - gain @ covariance[known])
    return np.where(known, mean, np.nan), np.where(known, np.sqrt(variance), np.nan)


@pytest.mark.parametrize("name", list(TIMES))
def test_it_is_the_posterior_of_the_dense_model(name: str) -> None:
    y, z, time = make(TIMES[name])
    mean, spread = smooth(y, z, time, NOISE)
    for au in range(A):
        expected = posterior(y, z, time, NOISE, au)
        np.testing.assert_allclose(mean[:, au], expected[0], atol=1e-9)
        np.testing.assert_allclose(spread[:, au], expected[1], atol=1e-9)


def test_a_frame_of_higher_uncertainty_moves_toward_its_neighbours() -> None:
    y, z, time = np.zeros((21, A)), np.zeros((21, A)), np.arange(21) / 10
    y[10] = 1.0
    values, spreads = [], []
    for uncertainty in (-2.0, 0.0, 2.0):
        z[10] = uncertainty
        mean, spread = smooth(y, z, time, NOISE)
        values.append(mean[10])
        spreads.append(spread[10])
    assert (np.diff(values, axis=0) < -0.01).all()
    assert (np.diff(spreads, axis=0) > 0).all()
    assert (np.array(values) > 0).all()


def test_neighbours_of_an_uncertain_frame_listen_to_it_less() -> None:
    y, z, time = np.zeros((21, A)), np.zeros((21, A)), np.arange(21) / 10
    y[10] = 1.0
    calm = smooth(y, z, time, NOISE)[0][9]
    z[10] = 2.0
    assert (smooth(y, z, time, NOISE)[0][9] < calm).all()


def test_without_power_the_uncertainty_has_no_effect() -> None:
    y, z, time = make(TIMES["irregular"])
    constant = replace(NOISE, power=0.0)
    for got, expected in zip(smooth(y, z, time, constant), smooth(y, np.zeros_like(z), time, NOISE)):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("reach", [1e-6, 1e6])
def test_without_noise_it_is_y_and_with_endless_noise_the_median(reach: float) -> None:
    y, z, time = make(TIMES["25 frames/s"])
    mean, spread = smooth(y, z, time, replace(NOISE, reach=reach))
    expected = y if reach < 1 else np.where(np.isnan(y), np.nan, np.nanmedian(y, axis=0))
    np.testing.assert_allclose(mean, expected, atol=1e-4)
    known = ~np.isnan(y)
    limit = np.zeros(A) if reach < 1 else np.sqrt(NOISE.variance)
    np.testing.assert_allclose(spread[known], np.broadcast_to(limit, y.shape)[known], atol=1e-2)


def test_after_a_gap_the_frames_before_it_count_less() -> None:
    y, z = np.zeros((6, A)), np.zeros((6, A))
    y[:3] = 1.0
    near, far = (smooth(y, z, np.r_[0.0, 0.1, 0.2, gap + np.arange(3) / 10], NOISE)[0][3] for gap in (0.3, 9.0))
    assert (far < near - 0.01).all()


def test_twice_the_frame_rate_gives_the_same_values() -> None:
    """Each frame is shown twice, as errors of neighbouring frames resemble each other."""
    y, z, time = make(np.arange(400) / 100, missing=False)
    z *= 0.3
    once = smooth(y, z, time, NOISE)
    double = np.repeat(time, 2) + np.tile([-0.0025, 0.0025], 400)
    mean, spread = smooth(y.repeat(2, axis=0), z.repeat(2, axis=0), double, NOISE)
    between = (mean[::2] + mean[1::2]) / 2  # the two are a little before and after the frame
    error = np.abs(between - once[0]).max()
    assert error < 0.01 * once[0].std()
    np.testing.assert_allclose(spread[::2], once[1], rtol=0.03)
    for_each_frame = replace(NOISE, reach=NOISE.reach * 2**0.5)  # the same R for a frame, whatever the frame rate
    assert np.abs(smooth(y, z, time, for_each_frame)[0] - once[0]).max() > 10 * error


def test_videos_side_by_side_have_the_bits_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (40, 1, 300, 7, 40, 123, 0)
    clips = [Clip(*make(np.arange(n) / 30, seed)) for seed, n in enumerate(lengths)]
    clips.append(Clip(np.full((9, A), np.nan), np.zeros((9, A)), np.arange(9) / 30))
    alone = [smooth(*clip, NOISE) for clip in clips]
    for lanes in (1, 2**20, 1000):
        monkeypatch.setattr("aupair.mapping.smoother.LANES", lanes)
        for got, expected in zip(smooth_clips(clips, NOISE), alone):
            for one, two in zip(got, expected):
                assert one.tobytes() == two.tobytes()


def test_frames_without_a_face_stay_unknown_and_nothing_else_does() -> None:
    y, z, time = make(TIMES["irregular"])
    for values in smooth(y, z, time, NOISE):
        np.testing.assert_array_equal(np.isnan(values), np.isnan(y))
    mean, spread = smooth(np.full((5, A), np.nan), z[:5], time[:5], NOISE)
    assert np.isnan(mean).all()
    assert np.isnan(spread).all()
    assert smooth(y[:0], z[:0], time[:0], NOISE)[0].shape == (0, A)


def test_the_interval_is_that_of_most_frames() -> None:
    assert frame_interval(np.r_[np.arange(9) / 25, 60.0]) == pytest.approx(0.04)
    assert frame_interval(np.array([1.0])) > 0
    assert frame_interval(np.array([0.0, 0.0, 0.1, 0.1, 0.2])) == pytest.approx(0.1)


def test_uncertainty_is_standardised_by_fit() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(2, 3, (5000, 2)))
    values[:100] = np.nan
    scale = Uncertainty.from_fit_frames(values)
    assert scale is not None
    z = scale.standardise(values)
    assert (z[:100] == 0).all()
    np.testing.assert_allclose(z[100:].mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(z[100:].std(axis=0), 1, atol=0.05)
    assert scale.standardise(np.array([[1e30, 0.0]])).tolist() == [[CLIP, -CLIP]]
    order = np.argsort(values[100:, 0])
    assert (np.diff(z[100:, 0][order]) >= 0).all()


def test_a_constant_uncertainty_is_neutral_and_an_unknown_one_has_no_scale() -> None:
    scale = Uncertainty.from_fit_frames(np.full((20, 1), 0.7))
    assert scale is not None
    assert (scale.standardise(np.array([[0.7], [9.0]])) == 0).all()
    assert Uncertainty.from_fit_frames(np.full((20, 1), np.nan)) is None
