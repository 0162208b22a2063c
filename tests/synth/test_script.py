"""Clips show every AU at every level, and never AUs that exclude each other."""

from collections.abc import Sequence

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.synth import script
from aupair.synth.expression import REPERTOIRE

SECONDS, FPS = 6.5, 10
TIMES = np.arange(round(SECONDS * FPS)) / FPS


def clip(seed: int, times: np.ndarray = TIMES, aus: Sequence[str] = AFFWILD2) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    deck = script.Deck(np.random.default_rng(seed), aus)
    return script.intensity_curves(script.plan_expressions(rng, SECONDS, deck), times, aus)


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
    for a in range(len(AFFWILD2)):
        assert set(np.unique(levels[..., a])) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("aus", [AFFWILD2, REPERTOIRE, ("AU12", "AU15"), ("AU19", "AU33", "AU43")], ids=len)
def test_clashing_aus_are_never_active_together(aus: tuple[str, ...]) -> None:
    active = np.concatenate([clip(seed, aus=aus) for seed in range(30)]) >= 1
    for one, other in script.CLASHES:
        if one in aus and other in aus:
            both = active[:, aus.index(one)] & active[:, aus.index(other)]
            assert not both.any(), (one, other)
    assert not any(one in card and other in card for card in script.CARDS for one, other in script.CLASHES)


@pytest.mark.parametrize("aus", [("AU43",), ("AU26",), ("AU12", "AU15"), ("AU43", "AU19", "AU33"), REPERTOIRE], ids=len)
def test_any_aus_are_shown_but_not_all_the_time(aus: tuple[str, ...]) -> None:
    active = np.stack([clip(seed, aus=aus) for seed in range(40)]) >= 1
    assert active.any(1).mean(0).min() > 0.4
    assert active.mean((0, 1)).max() < 0.5


def test_twelve_aus_have_every_card_of_theirs() -> None:
    twelve = script.Deck(np.random.default_rng(0)).cards
    assert twelve == [card for card in script.CARDS if card.keys() <= set(AFFWILD2)]
    assert script.Deck(np.random.default_rng(0), ["AU26"]).cards == [{"AU26": 0.9}]


def test_several_aus_are_active_at_once(clips: np.ndarray) -> None:
    assert 2 < (clips >= 1).sum(2).mean() < 3.5


def test_a_dropped_jaw_parts_the_lips(clips: np.ndarray) -> None:
    assert (clips[..., AFFWILD2.index("AU25")] >= 0.9 * clips[..., AFFWILD2.index("AU26")] - 1e-9).all()


def test_events_are_in_seconds_not_frames() -> None:
    fine = np.arange(round(SECONDS * 50)) / 50
    assert np.allclose(clip(5, fine)[::5], clip(5))


def test_event_equals_a_naive_loop() -> None:
    event = script.Event(au="AU1", start=1.0, onset=0.4, hold=0.5, offset=0.8, peak=3.0)
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
