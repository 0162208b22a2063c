"""Statistics over all clips of a person: pooled values, and the held expressions that need them."""

from pathlib import Path

import numpy as np
import pytest

from aupair.data.frames import Frames
from aupair.mapping.columns import Scores, VideoFeatures, columns
from aupair.mapping.extractor import Extractor
from aupair.mapping.features import open_features, write_features
from aupair.mapping.fit import fit_mappings
from aupair.mapping.statistics import Statistics
from aupair.params import DistributionFeatures, ExtractFeatures, HistogramFeatures, TrainMapping
from frame_sets import make_frames

VIDEO = DistributionFeatures(
    percentiles=(0, 10, 50), thresholds=(0, 0.5), windows=(1.0,), context=0.4, context_points=2, smoother="none",
    compare=(),
)  # fmt: skip
PERSON = VIDEO.model_copy(update={"neutral": "person"})
PERSON_2020 = HistogramFeatures(neutral="person")
N, A, RATE = 40, 12, 10
TIME = np.arange(N) / RATE


def statistics() -> Statistics:
    """Return statistics with y' = y_hat / 4 and a different rank for every sigma."""
    quantiles = np.tile(np.linspace(-1, 1, 201, dtype=np.float32), (A, 1))
    return Statistics(np.full(A, -4, np.float32), np.full(A, 4, np.float32), np.full(A, 3, np.float32), quantiles)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (N, A)).astype(np.float32)


def bursts(seed: int) -> np.ndarray:
    """Return random expressions of half a second each, (N, A) bool."""
    return np.repeat(np.random.default_rng(seed).random((N // 5, A)) < 0.3, 5, axis=0)


def sigmas(seed: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).uniform(-1, 1, (N, A))).astype(np.float32)


def test_a_smile_that_is_held_is_neutral_in_its_video_alone_but_not_among_the_persons_clips() -> None:
    held, varied = 2 + noise(1), 2.0 * bursts(2).astype(np.float32) + noise(3)
    neutral = 2 + noise(4)  # of somebody whose y_hat lies higher: offsets of people are arbitrary
    sigma = sigmas(5)
    pool = Scores(np.concatenate([held, varied]), np.concatenate([sigma, sigmas(6)]))
    smile_alone, neutral_alone = (
        VideoFeatures(Scores(y, sigma), TIME, statistics(), VIDEO).features() for y in (held, neutral)
    )
    plain = np.array([group == "plain" and name != "own.rank" for name, group in columns(VIDEO, True)])
    np.testing.assert_allclose(smile_alone[..., plain], neutral_alone[..., plain], atol=0.2)
    assert abs(float(smile_alone[..., 1].mean() - 0.5)) < 1e-6, "ranks of a video are even"
    pooled = VideoFeatures(Scores(held, sigma), TIME, statistics(), PERSON, pool).features()
    at = {name: pooled[..., k] for k, (name, _) in enumerate(columns(PERSON, True))}
    assert (at["own.y"] - at["person.p10"]).min() > 0.25
    assert at["own.rank"].min() > 0.2
    assert at["own.rank"].mean() > 0.6
    assert (smile_alone[..., 0] - smile_alone[..., 4]).max() < 0.15  # own.y - video.p10


@pytest.mark.parametrize("params", [PERSON, PERSON_2020], ids=["distribution", "histogram"])
def test_percentiles_shares_and_ranks_are_those_of_the_pool(params: ExtractFeatures) -> None:
    one, two, sigma, other = noise(1), 1 + noise(2), sigmas(3), sigmas(4)
    pool = Scores(np.concatenate([one, two]), np.concatenate([sigma, other]))
    got = VideoFeatures(Scores(one, sigma), TIME, statistics(), params, pool).features()
    at = {name: got[..., k] for k, (name, _) in enumerate(columns(params, True))}
    y, c = pool.y / 4, statistics().certainty(np.concatenate([sigma, other]), "quantile")
    for p in (0, 10, 50):
        np.testing.assert_allclose(at[f"person.p{p}"], np.tile(np.percentile(y, p, axis=0), (N, 1)), atol=1e-6)
    assert not any(name.startswith("video") for name in at)
    if params.kind == "histogram":
        return
    for au in range(A):
        sure = y[c[:, au] >= 0.5, au]
        np.testing.assert_allclose(at["person.sure0.5.p10"][:, au], np.percentile(sure, 10), atol=1e-6)
        np.testing.assert_allclose(at["person.sure0.5.share"][:, au], len(sure) / (2 * N), atol=1e-6)
        below = [(y[:, au] < v).mean() + (y[:, au] == v).mean() / 2 for v in y[:N, au]]
        np.testing.assert_allclose(at["own.rank"][:, au], below, atol=1e-6)
    alone = VideoFeatures(Scores(one, sigma), TIME, statistics(), VIDEO).features()
    stay = [
        k
        for k, (name, _) in enumerate(columns(VIDEO, True))
        if name.startswith(("own.y", "own.c", "window", "context"))
    ]
    np.testing.assert_array_equal(got[..., stay], alone[..., stay])  # windows and context stay within the video


@pytest.mark.parametrize("params", [PERSON, PERSON_2020], ids=["distribution", "histogram"])
def test_the_order_of_the_pool_does_not_matter_and_a_person_of_one_clip_is_a_video(params: ExtractFeatures) -> None:
    one, sigma = noise(1), sigmas(2)
    y, sigma_of_pool = np.concatenate([one, noise(3)]), np.concatenate([sigma, sigmas(4)])
    order = np.random.default_rng(0).permutation(2 * N)
    pool, shuffled = Scores(y, sigma_of_pool), Scores(y[order], sigma_of_pool[order])
    first, second = (
        VideoFeatures(Scores(one, sigma), TIME, statistics(), params, p).features() for p in (pool, shuffled)
    )
    np.testing.assert_array_equal(first, second)
    own = VideoFeatures(
        Scores(one, sigma), TIME, statistics(), params.model_copy(update={"neutral": "video"})
    ).features()
    np.testing.assert_array_equal(VideoFeatures(Scores(one, sigma), TIME, statistics(), params).features(), own)
    np.testing.assert_array_equal(
        VideoFeatures(Scores(one, sigma), TIME, statistics(), params, Scores(one, sigma)).features(), own
    )


def corpus(people: tuple[int, int, int], seed: int = 0) -> tuple[Frames, np.ndarray, np.ndarray]:
    """Return two clips a person of fit, select and validation: y_hat = offset of the person + 2 where active + noise.

    The first clip of every other person is constant in each AU: held, or never shown. Their number: constant().
    """
    rng = np.random.default_rng(seed)
    split = np.repeat([0, 1, 2], people)
    videos = 2 * len(split)
    labels = np.concatenate([bursts(seed * 10_000 + v) for v in range(videos)]).astype(np.int8)
    labels[constant(videos)] = np.repeat(rng.random((len(split) // 2, A)) < 0.5, N, axis=0)
    y_hat = (
        np.repeat(rng.normal(0, 1.5, (len(split), A)), 2 * N, axis=0) + 2 * labels + rng.normal(0, 0.2, labels.shape)
    )
    people = np.arange(videos) // 2
    frames = make_frames(split[people], labels, people, rng.random(len(labels)) < 0.95, fps=RATE)
    y_hat[~frames.ok] = np.nan
    return frames, y_hat.astype(np.float32), np.where(np.isnan(y_hat), np.nan, 1.0).astype(np.float32)


def constant(videos: int) -> np.ndarray:
    """Return a mask of the frames of the constant clips, (frames,) bool."""
    return np.repeat(np.arange(videos) % 4 == 0, N)


def test_write_features_pools_over_the_subject_and_nobody_else(tmp_path: Path) -> None:
    frames, y_hat, sigma = corpus((2, 1, 1))
    write_features(tmp_path / "features", frames, y_hat, sigma, unknown_quality(frames), PERSON)
    features = open_features(tmp_path / "features", frames)["columns"]
    fitted = Extractor.load(tmp_path / "features", PERSON).statistics["columns"]
    for subject in range(4):
        own = (frames.subject == subject) & frames.ok
        for v in (2 * subject, 2 * subject + 1):
            rows = np.flatnonzero(frames.video == v)
            (got,) = features.chunks(rows)
            expected = VideoFeatures(
                Scores(y_hat[rows], sigma[rows]), frames.time[rows], fitted, PERSON, Scores(y_hat[own], sigma[own])
            ).features()
            np.testing.assert_array_equal(got, expected)
            assert (np.isnan(got[:, 0, 0]) == ~frames.ok[rows]).all()


def unknown_quality(frames: Frames) -> np.ndarray:
    return np.full((len(frames), 3), np.nan, np.float32)


def f1_on_constant_clips(folder: Path, params: ExtractFeatures) -> float:
    """Train a small mapping and return the F1 over the constant clips of validation, decided at .5."""
    frames, y_hat, sigma = corpus((60, 12, 24))
    write_features(folder, frames, y_hat, sigma, unknown_quality(frames), params)
    features = open_features(folder, frames, ("raw",))
    settings = TrainMapping(
        width=32, dropout=0.1, learning_rate=3e-3, draws=1500, epochs=6, batch=32, seeds=1, device="cpu"
    )
    mapping, _ = fit_mappings(frames, features, 2, settings, 0)
    rows = frames.of_split("validation") & frames.ok & constant(len(frames.videos))
    decided, truth = mapping.map_all(features)["raw"][rows] >= 0.5, frames.labels[rows] == 1
    return float(2 * (decided & truth).sum() / (decided.sum() + truth.sum()))


@pytest.mark.parametrize("kind", ["distribution", "histogram"])
def test_held_expressions_are_recognised_where_the_person_has_another_clip(tmp_path: Path, kind: str) -> None:
    f1 = {
        neutral: f1_on_constant_clips(
            tmp_path / neutral, VIDEO.model_copy(update={"kind": kind, "neutral": neutral, "thresholds": ()})
        )
        for neutral in ("video", "person")
    }
    assert f1["person"] > 0.85
    assert f1["person"] > f1["video"] + 0.15, f1
