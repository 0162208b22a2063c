"""Every feature equals a loop over frames and AUs, with gaps, irregular times and ends."""

import math
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from aupair.errors import ArtifactError
from aupair.mapping.columns import Scores, VideoFeatures, columns
from aupair.mapping.statistics import CDF_POINTS, Statistics
from aupair.mapping.windows import BINS
from aupair.params import DistributionFeatures, ExtractFeatures

A = 3
SMALL = DistributionFeatures(
    percentiles=(0, 10, 20), thresholds=(0, 0.25, 0.75, 1.0), windows=(0.7, 3.0), window_percentiles=(0, 10, 50, 100),
    context=2.0, context_points=4,
)  # fmt: skip
LINE = SMALL.model_copy(update={"certainty": "min_max"})


def make_statistics(seed: int = 0) -> Statistics:
    rng = np.random.default_rng(seed)
    return Statistics.from_fit_frames(
        rng.normal(size=(400, A)).astype(np.float32), rng.lognormal(size=(400, A)).astype(np.float32)
    )


def make_video(times: list[float], missing: list[int], seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores of one video, with some sigma beyond the range of fit."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(len(times), A)).astype(np.float32) * 1.5
    sigma = (rng.lognormal(size=(len(times), A)) * 1.5).astype(np.float32)
    y[missing], sigma[missing] = np.nan, np.nan
    return y, sigma, np.array(times)


def jittered(count: int) -> list[float]:
    return np.cumsum(np.random.default_rng(2).uniform(0.01, 0.2, count)).tolist()


VIDEOS = {
    "25 fps": make_video([k / 25 for k in range(120)], []),
    "gaps and ends": make_video([k / 30 for k in range(90)], [0, 1, 2, 40, 41, *range(50, 75), 89]),
    "irregular": make_video(jittered(60), [5, 20, 21]),
    "a long pause": make_video([*(k / 10 for k in range(20)), *(60 + k / 10 for k in range(20))], []),
    "one frame": make_video([3.2], []),
    "one face": make_video([0.0, 0.04, 0.08], [0, 2]),
    "equal times": make_video([0.0, 0.0, 0.1, 0.1, 0.1, 0.4], [3]),
}


def naive_certainty(sigma: float, statistics: Statistics, au: int, kind: str) -> float:
    if kind == "min_max":
        return min(max(1 - sigma / float(statistics.sigma_max[au]), 0.0), 1.0)
    log_sigma = math.log(sigma)
    points = [float(q) for q in statistics.log_sigma[au]]
    if log_sigma <= points[0]:
        return 1.0
    if log_sigma >= points[-1]:
        return 0.0
    k = max(index for index in range(CDF_POINTS) if points[index] <= log_sigma)
    share = (log_sigma - points[k]) / (points[k + 1] - points[k])
    return 1 - (k + share) / (CDF_POINTS - 1)


def percentile(values: list[float], p: float) -> float:
    """Interpolate linearly between order statistics."""
    ordered = sorted(values)
    place = p / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def naive_video(y: list[float], c: list[float], params: ExtractFeatures) -> Iterator[tuple[str, float]]:
    base = [percentile(y, p) for p in params.percentiles]
    for p, value in zip(params.percentiles, base):
        yield f"video.p{p:g}", value
    for threshold in params.thresholds:
        sure = [value for value, conf in zip(y, c) if conf >= threshold]
        if sure:  # else those of the next lower threshold
            base = [percentile(sure, p) for p in params.percentiles]
        for p, value in zip(params.percentiles, base):
            yield f"video.sure{threshold:g}.p{p:g}", value
        yield f"video.sure{threshold:g}.share", len(sure) / len(y)


def naive_window(
    t: int, y: list[float], c: list[float], time: list[float], length: float, percentiles: tuple[float, ...]
) -> Iterator[tuple[str, float]]:
    inside = [k for k in range(len(y)) if abs(time[k] - time[t]) <= length / 2 + 1e-9]
    bin_of = [math.floor((moment - time[0]) / (length / BINS) + 1e-9) for moment in time]
    for group in ("plain", "uncertainty"):
        w = [1.0 if group == "plain" else conf + 1e-3 for conf in c]
        total = sum(w[k] for k in inside)
        mean = sum(w[k] * y[k] for k in inside) / total
        yield f"window{length:g}.{group}.mean", mean
        yield f"window{length:g}.{group}.sd", math.sqrt(sum(w[k] * (y[k] - mean) ** 2 for k in inside) / total)
        bins: dict[int, list[int]] = {}
        for k in range(len(y)):
            if abs(bin_of[k] - bin_of[t]) <= BINS // 2:
                bins.setdefault(bin_of[k], []).append(k)
        weights = {b: sum(w[k] for k in members) for b, members in bins.items()}
        means = sorted((sum(w[k] * y[k] for k in members) / weights[b], weights[b]) for b, members in bins.items())
        for p in percentiles:
            wanted = p / 100 * sum(weights.values()) * (1 - 1e-12)
            reach = list(accumulate(weight for _, weight in means))
            yield f"window{length:g}.{group}.p{p:g}", next(m for (m, _), sofar in zip(means, reach) if sofar >= wanted)
    yield f"window{length:g}.certainty", sum(c[k] for k in inside) / len(inside)


def naive_context(
    t: int, y: list[float], c: list[float], time: list[float], params: ExtractFeatures
) -> Iterator[tuple[str, float]]:
    step = params.context / params.context_points
    for k in range(1, params.context_points + 1):
        after = [n for n in range(len(y)) if time[n] <= time[t] + k * step + 1e-9][-1]
        before = next(n for n in range(len(y)) if time[n] >= time[t] - k * step - 1e-9)
        for name, n in ((f"+{k * step:g}s", after), (f"-{k * step:g}s", before)):
            yield f"context{name}.y", y[n]
            yield f"context{name}.certainty", c[n]


def naive(
    y_hat: np.ndarray, sigma: np.ndarray, times: np.ndarray, statistics: Statistics, params: ExtractFeatures
) -> list[list[dict[str, float]]]:
    """Return the features of the frames with a face: {column: value} for each frame and AU, in Python's floats."""
    known = [n for n in range(len(times)) if not math.isnan(y_hat[n, 0])]
    time = [float(times[n]) for n in known]
    result: list[list[dict[str, float]]] = [[] for _ in known]
    for au in range(y_hat.shape[1]):
        low, high = float(statistics.y_min[au]), float(statistics.y_max[au])
        y = [2 * (float(y_hat[n, au]) - low) / (high - low) - 1 for n in known]
        c = [naive_certainty(float(sigma[n, au]), statistics, au, params.certainty) for n in known]
        for t in range(len(known)):
            below = sum(1.0 if v < y[t] else 0.5 if v == y[t] else 0.0 for v in y)
            row = {"own.y": y[t], "own.rank": below / len(y), "own.certainty": c[t], **dict(naive_video(y, c, params))}
            for length in params.windows:
                row |= dict(naive_window(t, y, c, time, length, params.window_percentiles))
            row |= dict(naive_context(t, y, c, time, params))
            result[t].append(row)
    return result


@pytest.mark.parametrize("params", [SMALL, LINE], ids=["quantile", "min_max"])
@pytest.mark.parametrize("name", list(VIDEOS))
def test_every_column_equals_a_loop(name: str, params: ExtractFeatures) -> None:
    y_hat, sigma, time = VIDEOS[name]
    statistics = make_statistics()
    got = VideoFeatures(Scores(y_hat, sigma), time, statistics, params).features()
    names = [column for column, _ in columns(params, True)]
    assert got.shape == (len(time), A, len(names))
    assert got.dtype == np.float32
    known = ~np.isnan(y_hat[:, 0])
    assert (np.isnan(got).all(axis=(1, 2)) == ~known).all()
    assert (np.isnan(got).any(axis=(1, 2)) == ~known).all()
    expected = naive(y_hat, sigma, time, statistics, params)
    assert set(names) == set(expected[0][0])
    table = np.array([[[row[column] for column in names] for row in frame] for frame in expected])
    for k, column in enumerate(names):
        np.testing.assert_allclose(got[known][:, :, k], table[:, :, k], rtol=1e-6, atol=1e-6, err_msg=column)


@pytest.mark.parametrize("kind", ["distribution", "histogram"])
def test_pieces_have_the_bits_of_the_whole_video(kind: str) -> None:
    n, params = 2600, SMALL.model_copy(update={"kind": kind})  # several times what is computed at once
    y_hat, sigma, time = make_video((np.arange(n) / 30).tolist(), [0, *range(300, 380), *range(1000, 1600), n - 1])
    pool = Scores(np.concatenate([y_hat[1:300], y_hat[-90:-1] + 1]), np.concatenate([sigma[1:300], sigma[-90:-1]]))
    for given in (None, pool):
        whole = VideoFeatures(Scores(y_hat, sigma), time, make_statistics(), params, given).features()
        video = VideoFeatures(Scores(y_hat, sigma), time, make_statistics(), params, given)
        assert video.shape == whole.shape
        for size in (7, 600, n):
            parts = [video.features(slice(k, min(k + size, n))) for k in range(0, n, size)]
            assert np.concatenate(parts).tobytes() == whole.tobytes()
        for k in (n - 1, 1200, 5, 700):  # in any order
            assert video.features(slice(k, k + 1)).tobytes() == whole[k : k + 1].tobytes()
        buffer = np.zeros((50, A, whole.shape[2]), np.float32)
        video.features(slice(280, 330), buffer)
        assert buffer.tobytes() == whole[280:330].tobytes()


@pytest.mark.parametrize(
    "params", [SMALL, LINE, DistributionFeatures(), SMALL.model_copy(update={"context_points": 0})]
)
def test_columns_are_named_once_and_counted(params: ExtractFeatures) -> None:
    named = columns(params, True)
    names = [name for name, _ in named]
    assert len(set(names)) == len(names)
    assert {group for _, group in named} == {"plain", "uncertainty"}
    y_hat, sigma, time = VIDEOS["irregular"]
    assert VideoFeatures(Scores(y_hat, sigma), time, make_statistics(), params).features().shape[2] == len(names)
    for name, group in named:
        uncertain = "certainty" in name or "sure" in name or ".uncertainty." in name
        assert group == ("uncertainty" if uncertain else "plain")


def test_no_face_at_all_and_no_frame_at_all() -> None:
    count = len(columns(SMALL, True))
    nan = np.full((5, A), np.nan, np.float32)
    out = VideoFeatures(Scores(nan, nan), np.arange(5) / 25, make_statistics(), SMALL).features()
    assert out.shape == (5, A, count)
    assert np.isnan(out).all()
    assert VideoFeatures(Scores(nan[:0], nan[:0]), np.zeros(0), make_statistics(), SMALL).features().shape == (
        0,
        A,
        count,
    )


@pytest.mark.parametrize("name", list(VIDEOS))
def test_without_sigma_there_are_the_plain_columns_with_the_same_bits(name: str) -> None:
    y_hat, sigma, time = VIDEOS[name]
    plain = np.array([group == "plain" for _, group in columns(SMALL, True)])
    every = VideoFeatures(Scores(y_hat, sigma), time, make_statistics(), SMALL).features()
    pool = Scores(y_hat[~np.isnan(y_hat[:, 0])], None)
    statistics = Statistics(make_statistics().y_min, make_statistics().y_max)
    for given in (None, pool):
        alone = VideoFeatures(Scores(y_hat, None), time, statistics, SMALL, given).features()
        assert alone.tobytes() == np.ascontiguousarray(every[:, :, plain]).tobytes()
    assert columns(SMALL, False) == [column for column in columns(SMALL, True) if column[1] == "plain"]


def test_columns_of_uncertainty_depend_on_sigma() -> None:
    y_hat, sigma, time = VIDEOS["gaps and ends"]
    known, uncertain = ~np.isnan(y_hat[:, 0]), np.array([group != "plain" for _, group in columns(SMALL, True)])
    one, other = (
        VideoFeatures(Scores(y_hat, s), time, make_statistics(), SMALL).features()[known][:, :, uncertain]
        for s in (sigma, sigma[:, ::-1] ** 2 + 0.1)
    )
    assert not np.allclose(one, other)


def test_one_outlier_does_not_make_all_others_certain() -> None:
    """The authors' 1 - sigma / sigma_max would be above .99 for all frames but the outlier."""
    sigma = np.random.default_rng(0).uniform(0.5, 1.5, (1000, 1)).astype(np.float32)
    sigma[0] = 1e4
    statistics = Statistics.from_fit_frames(np.zeros((1000, 1), np.float32), sigma)
    assert np.median(statistics.certainty(sigma, "min_max")) > 0.99
    assert np.median(statistics.certainty(sigma, "quantile")) == pytest.approx(0.5, abs=0.02)


def test_certainty_is_the_rank_within_fit() -> None:
    sigma = np.random.default_rng(0).lognormal(size=(5000, A)).astype(np.float32)
    statistics = Statistics.from_fit_frames(np.zeros((5000, A), np.float32), sigma)
    for au in range(A):
        rank = np.array([(sigma[:, au] > value).mean() for value in sigma[:200, au]])
        np.testing.assert_allclose(statistics.certainty(sigma[:200], "quantile")[:, au], rank, atol=0.006)


def test_a_constant_sigma_and_a_constant_y() -> None:
    statistics = Statistics.from_fit_frames(np.ones((50, A), np.float32), np.full((50, A), 0.7, np.float32))
    out = VideoFeatures(
        Scores(np.ones((9, A), np.float32), np.full((9, A), 0.7, np.float32)), np.arange(9) / 9, statistics, SMALL
    ).features()
    assert np.isfinite(out).all()


@pytest.mark.parametrize("with_sigma", [True, False])
def test_statistics_round_trip_and_range(with_sigma: bool) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(100, A)).astype(np.float32)
    sigma = rng.lognormal(size=(100, A)).astype(np.float32) if with_sigma else None
    statistics = Statistics.from_fit_frames(y, sigma)
    scaled = statistics.scale(y)
    np.testing.assert_allclose(scaled.min(axis=0), -1, atol=1e-6)
    np.testing.assert_allclose(scaled.max(axis=0), 1, atol=1e-6)
    arrays = statistics.arrays()
    assert len(arrays) == (4 if with_sigma else 2)
    loaded = Statistics.from_arrays(arrays, Path("statistics.safetensors"))
    for key, value in vars(statistics).items():
        np.testing.assert_array_equal(getattr(loaded, key), value)


def test_no_fit_frame_with_a_face() -> None:
    with pytest.raises(ArtifactError, match="no frame of fit has a face; look at the statuses"):
        Statistics.from_fit_frames(np.zeros((0, A), np.float32), np.zeros((0, A), np.float32))
