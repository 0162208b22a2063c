"""The baseline of 2020: its density is scipy's, its 36 columns do not depend on sigma, and a mapping is fitted to them."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from aupair.mapping.columns import Scores, VideoFeatures, columns
from aupair.mapping.features import open_features, write_features
from aupair.mapping.fit import fit_mappings
from aupair.mapping.histogram import POINTS, _estimate_density
from aupair.mapping.model import Mapping
from aupair.mapping.statistics import Statistics
from aupair.params import HistogramFeatures
from mapping.toy import FEATURES, FRAMES, PARAMS

PARAMS_2020 = HistogramFeatures()
STATISTICS = Statistics(np.full(2, -1, np.float32), np.ones(2, np.float32))  # y' = y_hat


def video(n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y_hat = rng.normal([0.0, 0.4], [0.5, 0.1], (n, 2)).astype(np.float32)
    y_hat[7] = np.nan
    return y_hat, np.arange(n) / 10


@pytest.mark.parametrize("n", [2, 5, 300])
def test_density_equals_scipys_gaussian_kde(n: int) -> None:
    values = np.random.default_rng(n).normal([0.0, -0.5, 0.3], [0.5, 0.2, 0.05], (n, 3))
    got = _estimate_density(values)
    assert got.shape == (24, 3)
    for au in range(3):
        expected = gaussian_kde(values[:, au], "scott")(POINTS)
        np.testing.assert_allclose(got[:, au], expected / expected.sum(), rtol=1e-9, atol=1e-12)


def test_a_constant_one_value_and_values_beyond_the_points_have_a_density_too() -> None:
    for values in (np.full((9, 1), 0.3), np.full((1, 1), 0.3)):
        assert int(_estimate_density(values).argmax()) == int(np.abs(POINTS - 0.3).argmin())
    beyond = _estimate_density(np.linspace(40, 40.1, 9)[:, None])
    np.testing.assert_allclose(beyond.sum(axis=0), 1)
    assert int(beyond.argmax()) == 23


def test_columns_are_36_plain_ones() -> None:
    named = columns(PARAMS_2020, False)
    assert named == columns(PARAMS_2020, True)
    assert len({name for name, _ in named}) == 36
    assert {group for _, group in named} == {"plain"}
    y_hat, time = video()
    out = VideoFeatures(Scores(y_hat, None), time, STATISTICS, PARAMS_2020).features()
    known = ~np.isnan(y_hat[:, 0])
    assert out.shape == (50, 2, 36)
    assert (np.isnan(out).any(axis=(1, 2)) == ~known).all()
    at = {name: out[:, :, k] for k, (name, _) in enumerate(named)}
    np.testing.assert_allclose(at["own.y"], y_hat, atol=1e-6)
    for p in range(0, 101, 10):
        expected = np.broadcast_to(np.percentile(y_hat[known], p, axis=0), (49, 2))
        np.testing.assert_allclose(at[f"video.p{p}"][known], expected, rtol=1e-5, atol=1e-6)
    histogram = np.stack([at[f"video.histogram{k}"][known] for k in range(24)])
    np.testing.assert_allclose(histogram.sum(axis=0), 1, rtol=1e-5)
    assert np.ptp(histogram, axis=1).max() == 0, "one for all frames of a video"


def test_the_flow_takes_features_without_uncertainty(tmp_path: Path) -> None:
    """There is one route; from files to a mapping and back."""
    y_hat, sigma = FEATURES[:, :, 4].copy(), np.abs(FEATURES[:, :, 1]) + 0.1
    y_hat[:, 1::2] = FEATURES[:, 1::2, 0]
    quality = np.full((len(FRAMES), 3), np.nan, np.float32)
    write_features(tmp_path / "features", FRAMES, y_hat, sigma, quality, PARAMS_2020)
    features = open_features(tmp_path / "features", FRAMES)
    assert features.keys() == {"raw"}
    mapping, _ = fit_mappings(FRAMES, features, 2, PARAMS.model_copy(update={"epochs": 12}), 0)
    mapping.save(tmp_path / "mapping", [])
    rows = FRAMES.of_split("validation") & FRAMES.usable
    out = Mapping.load(tmp_path / "mapping").map_all(features)
    assert out.keys() == {"raw"}
    assert ((out["raw"][rows] >= 0.5) == FRAMES.labels[rows]).mean() > 0.7  # four people to learn from


def test_the_order_of_the_values_does_not_change_a_bit() -> None:
    values = np.random.default_rng(0).normal(size=(500, 3)) * [1, 1e-3, 1e3]
    np.testing.assert_array_equal(_estimate_density(values[::-1]), _estimate_density(values))
    np.testing.assert_array_equal(
        _estimate_density(np.random.default_rng(1).permutation(values)), _estimate_density(values)
    )
