"""Clips show every AU at every level, and never AUs that exclude each other."""

import numpy as np
import pytest

from aupair.aus import AUS
from aupair.synth import script

SECONDS, FPS = 6.5, 10
TIMES = np.arange(round(SECONDS * FPS)) / FPS


def clip(seed: int, times: np.ndarray = TIMES) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    return script.intensity_curves(
        script.plan_expressions(rng, SECONDS, script.Deck(np.random.default_rng(seed))), times
    )


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.stack([clip(seed) for seed in range(60)])


def test_every_au_is_dense_but_not_the_rule(clips: np.ndarray) -> None:
    rates = (clips >= 1).mean((0, 1))
    assert rates.min() > 0.13
    assert rates.max() < 0.34


def test_nearly_every_clip_shows_every_au_active_and_neutral(clips: np.ndarray) -> None:
    active = (clips >= 1).any(1)
    assert active.mean() > 0.96
    assert active.mean(0).min() > 0.8
    assert ((clips >= 1).mean(1) < 0.7).all()


def test_every_level_occurs_for_every_au(clips: np.ndarray) -> None:
    levels = np.floor(clips + 1e-9).astype(int)
    for a in range(len(AUS)):
        assert set(np.unique(levels[..., a])) == {0, 1, 2, 3, 4, 5}


def test_clashing_aus_are_never_active_together(clips: np.ndarray) -> None:
    for one, other in script.CLASHES:
        both = (clips[..., AUS.index(one)] >= 1) & (clips[..., AUS.index(other)] >= 1)
        assert not both.any(), (one, other)
    assert not any(one in card and other in card for card in script.CARDS for one, other in script.CLASHES)


def test_several_aus_are_active_at_once(clips: np.ndarray) -> None:
    assert 2 < (clips >= 1).sum(2).mean() < 3.5


def test_a_dropped_jaw_parts_the_lips(clips: np.ndarray) -> None:
    assert (clips[..., AUS.index("AU25")] >= 0.9 * clips[..., AUS.index("AU26")] - 1e-9).all()


def test_events_are_in_seconds_not_frames() -> None:
    fine = np.arange(round(SECONDS * 50)) / 50
    assert np.allclose(clip(5, fine)[::5], clip(5))


def test_event_equals_a_naive_loop() -> None:
    event = script.Event(au=0, start=1.0, onset=0.4, hold=0.5, offset=0.8, peak=3.0)
    expected = []
    for t in TIMES:
        if t < 1.0 or t > 2.7:
            expected.append(0.0)
        elif t < 1.4:
            expected.append(1.5 * (1 - np.cos(np.pi * (t - 1.0) / 0.4)))
        elif t < 1.9:
            expected.append(3.0)
        else:
            expected.append(1.5 * (1 + np.cos(np.pi * (t - 1.9) / 0.8)))
    assert np.allclose(event.at(TIMES), expected)


def test_the_head_never_turns_beyond_its_limit_but_does_turn() -> None:
    yaws = np.array(
        [[pose.yaw for pose in script.plan_poses(np.random.default_rng(seed), TIMES)] for seed in range(40)]
    )
    assert np.abs(yaws).max() <= script.MAX_YAW < 0.5
    assert (np.abs(yaws) > 0.3).any(1).mean() > 0.4
    assert (np.abs(yaws) < 0.3).mean() > 0.6


def test_blinks_are_short() -> None:
    closed = np.stack([script.plan_blinks(np.random.default_rng(seed), np.arange(600) / 100) for seed in range(10)])
    assert closed.max() == 1
    assert closed.min() < 1e-9
    assert 0.03 < (closed > 0.5).mean() < 0.12
