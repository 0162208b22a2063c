"""The extractor: a round trip of its files, persons, and the bundles of before there were routes."""

from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.columns import Scores, VideoFeatures
from aupair.mapping.extractor import SMOOTHER, STATISTICS, Extractor, RouteValues, VideoInput
from aupair.mapping.smoother import Noise, Uncertainty, smooth
from aupair.mapping.statistics import Statistics
from aupair.params import DistributionFeatures, HistogramFeatures

A, N = 3, 40
PARAMS = DistributionFeatures(windows=(1.0,), context_points=2, compare=("columns",))
RNG = np.random.default_rng(0)
SIGMA_SCALE, QUALITY_SCALE = Uncertainty(np.zeros(A), np.ones(A)), Uncertainty(np.zeros(1), np.ones(1))
NOISE = Noise(0.2, 1.5, (1.0, 0.5, 2.0))
FITTED = Statistics.from_fit_frames(
    RNG.normal(size=(90, A)).astype(np.float32), RNG.lognormal(size=(90, A)).astype(np.float32)
)
EXTRACTOR = Extractor(
    PARAMS, {"both": NOISE}, {"sigma": SIGMA_SCALE, "quality": QUALITY_SCALE},
    {"raw": Statistics(FITTED.y_min, FITTED.y_max), "both": Statistics(FITTED.y_min, FITTED.y_max), "columns": FITTED},
)  # fmt: skip


def video(seed: int = 0) -> VideoInput:
    rng = np.random.default_rng(seed)
    y, sigma = rng.normal(size=(N, A)).astype(np.float32), rng.lognormal(size=(N, A)).astype(np.float32)
    quality = rng.lognormal(size=(N, 3)).astype(np.float32)
    for values in (y, sigma, quality):
        values[[0, 11, 12]] = np.nan
    return VideoInput(y, sigma, quality, np.arange(N) / 10)


def test_both_is_smoothed_by_the_mean_of_two_standardised_logarithms() -> None:
    one = video()
    (values,) = EXTRACTOR.smooth([one])
    z = (np.clip(np.log(one.sigma), -3, 3) + np.clip(np.log(one.quality[:, :1]), -3, 3)) / 2
    mean, spread = smooth(one.y_hat, np.nan_to_num(z), one.time, NOISE)
    np.testing.assert_allclose(values.values["both"], mean, atol=1e-5)
    np.testing.assert_allclose(values.spread["both"], spread, atol=1e-5)
    np.testing.assert_array_equal(values.values["raw"], one.y_hat)


def test_round_trip(tmp_path: Path) -> None:
    EXTRACTOR.save(tmp_path, {"both": {"r_squared": 0.9}})
    assert store.read_json(tmp_path / SMOOTHER)["routes"]["both"]["r_squared"] == 0.9
    loaded = Extractor.load(tmp_path, PARAMS)
    assert loaded.noises == EXTRACTOR.noises
    assert loaded.statistics.keys() == EXTRACTOR.statistics.keys()
    for one, two in zip(EXTRACTOR.smooth([video()]), loaded.smooth([video()])):
        ours, theirs = EXTRACTOR.features(one).features(), loaded.features(two).features()
        for route in EXTRACTOR.statistics:
            assert ours[route].tobytes() == theirs[route].tobytes()


def test_only_what_decides_is_computed() -> None:
    deciding = EXTRACTOR.only(EXTRACTOR.deciding)
    assert deciding.deciding == ("raw", "both")
    features = deciding.features(deciding.smooth([video()])[0]).features(slice(3, 9))
    assert {route: own.shape[0] for route, own in features.items()} == {"raw": 6, "both": 6}


def test_the_clips_of_a_person_share_their_smoothed_values() -> None:
    clips = EXTRACTOR.smooth([video(1), video(2)])
    got = EXTRACTOR.features(clips[0], clips).features()
    pooled = np.concatenate([clip.values["both"][~np.isnan(clip.values["both"][:, 0])] for clip in clips])
    statistics = EXTRACTOR.statistics["both"]
    own = Scores(clips[0].values["both"], None)
    expected = VideoFeatures(own, clips[0].time, statistics, PARAMS, Scores(pooled, None)).features()
    np.testing.assert_array_equal(got["both"], expected)
    alone = EXTRACTOR.features(clips[0]).features()
    assert not np.array_equal(alone["both"], got["both"], equal_nan=True)


@pytest.mark.parametrize("kind", ["distribution", "histogram"])
def test_a_bundle_of_before_there_were_routes(tmp_path: Path, kind: str) -> None:
    """It has one file, whose certainty and columns are those of today's route `columns`."""
    store.write_arrays(tmp_path / STATISTICS, FITTED.arrays())
    params = HistogramFeatures() if kind == "histogram" else PARAMS
    loaded = Extractor.load(tmp_path, params)
    one = video()
    route, sigma = ("raw", None) if kind == "histogram" else ("columns", one.sigma)
    assert loaded.deciding == (("raw",) if kind == "histogram" else ("raw", "columns"))
    features = loaded.features(loaded.smooth([one])[0]).features()
    assert list(features) == [route]
    expected = VideoFeatures(Scores(one.y_hat, sigma), one.time, FITTED, params).features()
    assert features[route].tobytes() == expected.tobytes()


@pytest.mark.parametrize("content", [{}, {"routes": {"both": {"reach": 1}}}, {"routes": []}])
def test_a_smoother_that_lacks_something_is_one_line(tmp_path: Path, content: object) -> None:
    EXTRACTOR.save(tmp_path)
    store.write_json(tmp_path / SMOOTHER, content)
    with pytest.raises(ArtifactError, match=r"^not what its stage writes: in .*smoother\.json, got .*routes") as caught:
        Extractor.load(tmp_path, PARAMS)
    assert "\n" not in str(caught.value)


def test_features_of_other_settings_are_one_line(tmp_path: Path) -> None:
    EXTRACTOR.save(tmp_path)
    other = PARAMS.model_copy(update={"smoother": "sigma"})
    with pytest.raises(ArtifactError, match=r"features of other settings: in .*, got no sigma; run"):
        Extractor.load(tmp_path, other)


def test_values_of_no_video_and_of_one_without_a_face() -> None:
    nan = np.full((5, A), np.nan, np.float32)
    blind = VideoInput(nan, nan, np.full((5, 3), np.nan, np.float32), np.arange(5) / 10)
    (values,) = EXTRACTOR.smooth([blind])
    assert isinstance(values, RouteValues)
    assert all(np.isnan(own).all() for own in EXTRACTOR.features(values).features().values())
    assert EXTRACTOR.smooth([]) == []
