"""The smoother's numbers are chosen by R² on fit: those that the data was made with, or none where none help."""

from dataclasses import replace

import numpy as np
import pytest

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.mapping import smoother_choice as module
from aupair.mapping.smoother import smooth, video_median
from aupair.mapping.smoother_choice import POWERS, REACHES, FitStretches
from frame_sets import make_frames

VIDEOS, LENGTH, FPS, AUS = 8, 300, 10.0, 3


def make(power: float, held: int = 20, seed: int = 0) -> tuple[Frames, np.ndarray, np.ndarray]:
    """Return frames, y_hat and z: events of `held` frames, seen with errors that grow with z by `power`."""
    rng = np.random.default_rng(seed)
    n = VIDEOS * LENGTH
    labels = (rng.random((n // held, AUS)) < 0.4).repeat(held, axis=0)
    z = rng.normal(size=(n, AUS))
    errors = rng.normal(size=(n, AUS)) * np.exp(power * z / 2)
    split = [0, 0, 0, 0, 0, 0, 1, 2]
    return make_frames(split, labels, fps=FPS), (2.0 * labels + errors).astype(np.float32), z


def test_errors_that_grow_with_z_are_found_and_the_constant_is_beaten() -> None:
    frames, y_hat, z = make(power=2.0)
    stretches = FitStretches(frames, y_hat)
    constant, by_z = stretches.choose(None), stretches.choose(z)
    assert by_z.noise.power >= 1
    assert constant.noise.power == 0
    assert by_z.r_squared.max() > constant.r_squared.max() + 0.01 > stretches.raw_r_squared() + 0.02
    assert constant.r_squared.shape == (1, len(REACHES))
    assert by_z.r_squared.shape == (len(POWERS), len(REACHES))
    np.testing.assert_array_equal(by_z.r_squared[0], constant.r_squared[0])


def test_z_without_meaning_is_left_out() -> None:
    frames, y_hat, z = make(power=0.0)
    choice = FitStretches(frames, y_hat).choose(z)
    assert choice.noise.power <= 0.5
    assert choice.noise.reach >= 0.1


def test_values_without_errors_are_smoothed_least() -> None:
    frames, _, z = make(power=0.0, held=1)
    choice = FitStretches(frames, frames.labels.astype(np.float32)).choose(z)
    assert (choice.noise.power, choice.noise.reach) == (0.0, REACHES[0])
    assert choice.table()["at_the_edge_of_the_grid"] is True


def test_amplitudes_that_differ_between_videos_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of a video have the same order at any amplitude; a line for all videos does not fit values that shrink in some."""
    frames, _, _ = make(power=0.0)
    stretches = FitStretches(frames, frames.labels.astype(np.float32))
    values = stretches._y.copy()
    assert stretches._r_squared(values) > 0.8
    values[:, ::2] *= 0.3
    assert stretches._r_squared(values) < 0.7


def test_only_fit_counts() -> None:
    frames, y_hat, z = make(power=2.0)
    others = ~frames.of_split("fit")
    changed, labels = y_hat.copy(), frames.labels.copy()
    changed[others] = 99
    labels[others] = 0
    one, two = FitStretches(frames, y_hat).choose(z), FitStretches(replace(frames, labels=labels), changed).choose(z)
    assert one.noise == two.noise
    np.testing.assert_array_equal(one.r_squared, two.r_squared)


def test_r_squared_is_that_of_the_smoother_itself() -> None:
    """Where a stretch is a whole video, the values that are measured are those of `smooth`, in any order of the videos."""
    frames, y_hat, z = make(power=1.0)
    y_hat[::17] = np.nan
    frames.labels[::13, 1] = NOT_ANNOTATED
    frames = replace(frames, ok=~np.isnan(y_hat[:, 0]))
    choice = FitStretches(frames, y_hat).choose(z)
    deviations = [
        smooth(y_hat[s], z[s], frames.time[s], choice.noise)[0] - video_median(y_hat[s]) for s in frames.slices()
    ]
    values, shares = np.concatenate(deviations), []
    for au in range(AUS):
        use = frames.of_split("fit") & frames.ok & (frames.labels[:, au] != NOT_ANNOTATED)
        slope, start = np.polyfit(values[use, au], frames.labels[use, au], 1)
        residual = frames.labels[use, au] - slope * values[use, au] - start
        shares.append(1 - (residual**2).sum() / frames.labels[use, au].var() / use.sum())
    assert choice.r_squared.max() == pytest.approx(np.mean(shares), abs=1e-12)


def test_long_videos_are_cut_and_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, y_hat, z = make(power=2.0)
    monkeypatch.setattr(module, "STRETCH", 64)
    monkeypatch.setattr(module, "BUDGET", 600)
    stretches = FitStretches(frames, y_hat)
    assert max(s.stop - s.start for s in stretches._stretches) <= 64
    assert 600 <= sum(s.stop - s.start for s in stretches._stretches) < 600 + 64
    videos = [int(frames.video[s.start]) for s in stretches._stretches]
    assert set(videos) == set(range(6)), "every video of fit has its turn before one has its second"
    assert [int(frames.video[s.stop - 1]) for s in stretches._stretches] == videos
    assert stretches.choose(z).noise.power > 0


def test_a_stretch_without_two_levels_is_left_out() -> None:
    frames, y_hat, _ = make(power=0.0)
    labels = frames.labels.copy()
    labels[frames.video == 2] = 1
    stretches = FitStretches(replace(frames, labels=labels), y_hat)
    assert 2 not in {int(frames.video[s.start]) for s in stretches._stretches}


def test_without_two_levels_the_least_smoothing_is_chosen() -> None:
    frames, y_hat, z = make(power=0.0)
    stretches = FitStretches(replace(frames, labels=np.zeros_like(frames.labels)), y_hat)
    choice = stretches.choose(z)
    assert (choice.noise.power, choice.noise.reach) == (0.0, REACHES[0])
