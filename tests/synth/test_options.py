"""Options add what they are named for, leave all else as it is, and are off by default."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.errors import ParamsError
from aupair.synth import camera, corpus, covers, labels, script, sprites, subject
from aupair.synth.corpus import SynthParams
from aupair.synth.habits import plan_events
from aupair.synth.options import Coder, CoverHabits, People
from conftest import Command

DEFAULT_PLANS = "56c48035f1c193c9341bdbd3c80c43c5ca6e2b1cf7724f17cd255fe28f4b9267"
"""of the first clips of the demo corpus; it changes only if the demo corpus does"""
MOUTH = [AFFWILD2.index(au) for au in ("AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")]


@pytest.fixture(scope="module")
def person() -> subject.Subject:
    return subject.make_subject(np.random.default_rng(3))


@pytest.fixture
def blank_sprites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covers, "DRAW", {kind: lambda rng, colours: sprites.Sprite() for kind in sprites.DRAW})


def plan(params: SynthParams, person: subject.Subject, number: int = 0, split: str = "fit") -> Any:
    deck = script.Deck(np.random.default_rng([params.seed, number, 1]), params.aus)
    return corpus.plan_clip(np.random.default_rng([params.seed, number, 2, 0]), params, person, deck, split)


def events(people: People, seconds: float = 6.5, count: int = 60) -> Iterator[list[script.Event]]:
    for k in range(count):
        rng, deck = np.random.default_rng([k, 1]), script.Deck(np.random.default_rng(k))
        yield plan_events(rng, seconds, deck, people, np.random.default_rng([k, 2]))


def curves(people: People, seconds: float = 6.5, count: int = 60) -> np.ndarray:
    """Return intensities, (clips, frames, AUs)."""
    times = np.arange(0, seconds, 0.1)
    return np.stack([script.intensity_curves(clip, times) for clip in events(people, seconds, count)])


def test_the_demo_corpus_is_planned_as_ever(person: subject.Subject) -> None:
    digest = hashlib.sha256()
    for number in range(8):
        clip = plan(SynthParams(), person, number, corpus.split_of(number))
        poses = [(p.yaw, p.pitch, p.roll, p.scale, *p.shift) for p in clip.poses]
        passes = [(p.start, p.length, p.angle, p.scale, *p.jitter, p.side) for p in clip.passes]
        for numbers in (clip.intensity, poses, clip.blink, clip.light, [clip.noise], passes):
            digest.update((np.round(np.asarray(numbers, np.float64), 5) + 0.0).tobytes())
        digest.update(" ".join(f"{p.kind} {p.aim}" for p in clip.passes).encode())
        assert clip.camera is None
        assert np.array_equal(clip.coded, clip.intensity)
    assert digest.hexdigest() == DEFAULT_PLANS


def test_rare_aus_are_rare_and_the_others_are_not() -> None:
    rates = (curves(People(rare=("AU15", "AU23", "AU24")), count=200) >= 1).mean((0, 1))
    rare = np.isin(AFFWILD2, ("AU15", "AU23", "AU24"))
    assert np.all((rates[rare] > 0.015) & (rates[rare] < 0.045))
    assert rates[~rare].min() > 0.13


def test_a_rare_au_must_be_shown(tmp_path: Any) -> None:
    params = SynthParams(aus=("AU12", "AU25"), people=People(rare=("AU15",)))
    with pytest.raises(ParamsError, match="a rare AU is not shown, got AU15"):
        corpus.synthesise(tmp_path / "data", params)


def test_who_holds_an_expression_is_hardly_ever_neutral() -> None:
    low = np.percentile(curves(People(held=0.5)), 10, axis=1).max(1)
    assert 0.3 < (low >= 1).mean() < 0.7
    assert np.percentile(curves(People()), 10, axis=1).max() == 0


def test_held_expressions_clash_with_none() -> None:
    active = curves(People(held=1.0)) >= 1
    for one, other in script.CLASHES:
        if one in AFFWILD2 and other in AFFWILD2:
            assert not (active[..., AFFWILD2.index(one)] & active[..., AFFWILD2.index(other)]).any()


def test_pauses_leave_the_face_at_rest_and_a_few_expressions_a_minute() -> None:
    intensity = curves(People(pauses=6.0), seconds=60, count=12)
    assert 0.3 < (intensity.max(2) == 0).mean() < 0.7
    assert 0.03 < (intensity >= 1).mean() < 0.12
    starts = (np.diff((intensity >= 1).astype(int), axis=1) == 1).sum(1)
    assert 1 < starts.mean() < 6
    assert (starts.sum(1) > 12).all()


def test_a_coder_misplaces_and_misses_events() -> None:
    planned = [event for clip in events(People()) for event in clip]
    seen = labels.code_events(np.random.default_rng(0), planned, Coder(shift=0.1))
    begin, end = (np.array([getattr(event, name) for event in seen]) for name in ("start", "end"))
    assert np.std(begin - [event.start for event in planned]) == pytest.approx(0.1, rel=0.1)
    assert np.std(end - [event.end for event in planned]) == pytest.approx(0.1, rel=0.15)
    left = labels.code_events(np.random.default_rng(0), planned, Coder(missed=0.2))
    assert len(left) == pytest.approx(0.8 * len(planned), rel=0.05)
    assert set(left) < set(planned)


@pytest.mark.usefixtures("blank_sprites")
def test_covers_come_with_expressions_and_hide_them(person: subject.Subject) -> None:
    def correlation(share: float) -> tuple[float, float]:
        shown, covered, lengths = [], [], []
        for number in range(60):
            params = SynthParams(seconds=30, people=People(pauses=4), covers={"every": 8, "with_expressions": share})
            clip = plan(params, person, number)
            lower = [p for p in clip.passes if p.aim == "lower"]
            shown.append((clip.intensity[:, MOUTH] >= 1).any(1))
            covered.append(
                np.any([[p.presence(t) is not None for t in clip.times] for p in lower], 0) | np.zeros(300, bool)
            )
            lengths += [p.length for p in clip.passes]
        return float(np.corrcoef(np.concatenate(shown), np.concatenate(covered))[0, 1]), float(np.mean(lengths))

    without, short = correlation(0.0)
    together, long = correlation(0.8)
    assert abs(without) < 0.1
    assert together > 0.25
    assert long > short + 1


@pytest.mark.usefixtures("blank_sprites")
def test_covers_with_expressions_do_not_overlap(person: subject.Subject) -> None:
    for number in range(20):
        passes = plan(SynthParams(covers={"with_expressions": 0.5}), person, number).passes
        assert not any(a.overlaps(b) for i, a in enumerate(passes) for b in passes[:i])
        assert [p.start for p in passes] == sorted(p.start for p in passes)


def test_an_asymmetric_face_shows_more_on_one_side() -> None:
    def ratio(asymmetry: float) -> float:
        made = subject.make_subject(np.random.default_rng(5), AFFWILD2, asymmetry)
        size = np.linalg.norm(made.moves[AFFWILD2.index("AU12")][[48, 54]], axis=1)
        return float(size.max() / size.min())

    assert ratio(0.0) < 1.15 / 0.85 + 1e-9
    assert ratio(0.6) > 1.6
    plain, uneven = (subject.make_subject(np.random.default_rng(5), AFFWILD2, share) for share in (0.0, 0.6))
    assert np.array_equal(plain.image, uneven.image)
    assert not np.array_equal(plain.relief, uneven.relief)


def test_each_split_has_its_cameras() -> None:
    assert (
        set(camera.KINDS["fit"]) < set(camera.KINDS["select"]) < set(camera.KINDS["validation"]) == set(camera.CAMERAS)
    )
    zoom = {
        split: min(camera.draw_camera(np.random.default_rng(k), split).zoom for k in range(80))
        for split in ("fit", "validation")
    }
    assert zoom["validation"] < 0.66 < 0.7 <= zoom["fit"]


def test_a_camera_records_what_it_is_set_to(person: subject.Subject) -> None:
    image, _ = person.draw(np.zeros(len(AFFWILD2)), script.Pose())
    plain = camera.Camera(1.0, 0.0, 1.0, 0.1, 0.0, 100, 0.0, 0.0, 0)
    assert np.abs(plain.record(image.copy(), 0) - np.clip(image, 0, 255)).mean() < 2
    means = plain.record(image.copy(), 0).mean((0, 1))
    warm = replace(plain, warmth=0.2).record(image.copy(), 0).mean((0, 1))
    assert warm[0] < means[0]
    assert warm[2] > means[2]
    assert replace(plain, gamma=1.6).record(image.copy(), 0).mean() < means.mean() - 10
    small = replace(plain, zoom=0.5).record(image.copy(), 0)
    half = cv2.resize(plain.record(image.copy(), 0), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)
    assert np.abs(small[90:160, 90:160].astype(int) - half[26:96, 26:96]).mean() < 8
    noisy = replace(plain, noise=8.0)
    assert np.array_equal(noisy.record(image.copy(), 3), noisy.record(image.copy(), 3))
    assert not np.array_equal(noisy.record(image.copy(), 3), noisy.record(image.copy(), 4))
    assert replace(plain, yaw=0.4).look_at(script.Pose(yaw=0.4)).yaw == script.MAX_YAW


def test_every_option_of_the_command_line_arrives(monkeypatch: pytest.MonkeyPatch, aupair: Command) -> None:
    received: list[SynthParams] = []
    monkeypatch.setattr(corpus, "synthesise", lambda directory, params, log: received.append(params))
    assert aupair("synth", "new").code == 0
    text = (
        "--subjects 8 --clips 2 --seconds 30 --fps 25 --seed 7 --rare AU15,AU23 --rare-rate .04 --held .5 --pauses 3 "
        "--asymmetry .6 --labelled .5 --coder-noise .1 --coder-misses .2 --covers-every 9 --covers-with-expressions .7 "
        "--cameras"
    )
    assert aupair("synth", "new", *text.split()).code == 0
    people = People(rare=("AU15", "AU23"), rare_rate=0.04, held=0.5, pauses=3, asymmetry=0.6)
    whole = SynthParams(
        subjects=8, clips=2, seconds=30, fps=25, seed=7, labelled=0.5, people=people,
        coder=Coder(shift=0.1, missed=0.2), covers=CoverHabits(every=9, with_expressions=0.7), cameras=True,
    )  # fmt: skip
    assert received == [SynthParams(), whole]


@pytest.mark.usefixtures("blank_sprites")
@pytest.mark.parametrize(
    "option",
    [
        {"cameras": True},
        {"coder": {"shift": 0.1, "missed": 0.2}},
        {"covers": {"with_expressions": 0.5}},
        {"people": {"rare": ("AU15",)}},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_changes_nothing_else(option: dict[str, Any], person: subject.Subject) -> None:
    before, after = (plan(SynthParams(**extra), person) for extra in ({}, option))
    same = {
        "intensity": np.array_equal(before.intensity, after.intensity),
        "coded": np.array_equal(before.coded, after.coded),
        "covers": [p.start for p in before.passes] == [p.start for p in after.passes],
        "light": np.array_equal(before.light, after.light),
        "blink": np.array_equal(before.blink, after.blink),
        "poses": before.poses == after.poses,
    }
    changed = {"cameras": {"poses"}, "coder": {"coded"}, "covers": {"covers"}, "people": {"intensity", "coded"}}
    assert {name for name, equal in same.items() if not equal} == changed[next(iter(option))]
