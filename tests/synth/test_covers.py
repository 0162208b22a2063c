"""Covers hide the parts of the face that they aim at, and the hidden shares are counted right."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.synth import covers, regions, script, sprites, subject
from aupair.synth.expression import REPERTOIRE
from aupair.synth.portrait import SIZE
from aupair.synth.shape import Pose, point_index

KINDS = covers.KINDS["validation"]


@pytest.fixture(scope="module")
def person() -> subject.Subject:
    return subject.make_subject(np.random.default_rng(11))


def draw_pass(kind: str, aim: str, person: subject.Subject, seed: int = 0) -> covers.Pass:
    rng = np.random.default_rng([seed, 5])
    sprite = sprites.DRAW[kind](rng, sprites.choose_palette(rng, person.skin, person.hair))
    side = 1 if seed % 2 else -1
    return covers.Pass(
        kind, aim, 0.0, 1.0, float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.85, 1.1)), (0.1, 0.1), side, sprite
    )


def test_some_kinds_are_seen_in_validation_only() -> None:
    assert set(covers.KINDS["fit"]) < set(covers.KINDS["select"]) < set(KINDS)
    assert set(KINDS) - set(covers.KINDS["fit"]) == {"phone", "scarf", "glasses"}
    assert set(KINDS) == set(sprites.DRAW) == set(covers.AIMS)


def test_passes_use_the_split_s_kinds_and_some_stay_beside(
    person: subject.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covers, "DRAW", {kind: lambda rng, colours: sprites.Sprite() for kind in KINDS})
    for split, kinds in covers.KINDS.items():
        planned = [p for seed in range(40) for p in covers.plan_passes(np.random.default_rng(seed), 6.5, split, person)]
        assert {p.kind for p in planned} == set(kinds)
        assert 0.15 < np.mean([p.aim == "beside" for p in planned]) < 0.35
        assert {p.aim for p in planned} == {"upper", "lower", "left", "right", "beside"}


def test_passes_of_a_clip_do_not_overlap(person: subject.Subject) -> None:
    planned = covers.plan_passes(np.random.default_rng(0), 6.5, "fit", person)
    for one, other in pairwise(planned):
        assert one.start + one.length <= other.start
    assert planned[-1].start + planned[-1].length <= 6.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_beside_the_face_hides_nothing_of_it(kind: str, person: subject.Subject) -> None:
    for seed in range(6):
        pose = script.plan_poses(np.random.default_rng(seed), np.linspace(0, 6, 20))[seed]
        _, points = person.draw(np.zeros(len(AFFWILD2)), pose)
        event = draw_pass(kind, "beside", person, seed)
        _, cover = covers.overlay(np.zeros((SIZE, SIZE, 3), np.float32), event, 1.0, points)
        covered, hidden = regions.measure_hidden(AFFWILD2, points, cover)
        assert cover.any()
        assert covered == 0
        assert not hidden.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_before_the_face_hides_some_of_it_and_no_arm_ends_in_the_air(kind: str, person: subject.Subject) -> None:
    image, points = person.draw(np.zeros(len(AFFWILD2)), Pose())
    for aim in set(covers.AIMS[kind]):
        event = draw_pass(kind, aim, person)
        for presence in (0.6, 1.0):
            _, cover = covers.overlay(image, event, presence, points)
            edge = cover[0].any() or cover[-1].any() or cover[:, 0].any() or cover[:, -1].any()
            assert kind in covers.WORN or edge or not cover.any()
        assert regions.measure_hidden(AFFWILD2, points, cover)[0] > 0.05


def test_each_aim_hides_its_part(person: subject.Subject) -> None:
    _, points = person.draw(np.zeros(len(AFFWILD2)), Pose())
    blank = np.zeros((SIZE, SIZE, 3), np.float32)

    def hidden(kind: str, aim: str) -> dict[str, float]:
        cover = covers.overlay(blank, replace(draw_pass(kind, aim, person), angle=0.0), 1.0, points)[1]
        return dict(zip(AFFWILD2, regions.measure_hidden(AFFWILD2, points, cover)[1]))

    scarf, glasses, cap = hidden("scarf", "lower"), hidden("glasses", "upper"), hidden("cap", "upper")
    assert min(scarf["AU12"], scarf["AU25"], scarf["AU26"]) > 0.9
    assert max(scarf["AU1"], scarf["AU7"]) == 0
    assert glasses["AU7"] > 0.8
    assert glasses["AU25"] == 0
    assert min(cap["AU1"], cap["AU2"], cap["AU4"]) > 0.5
    assert max(cap["AU12"], cap["AU26"]) == 0


def test_a_pass_comes_stays_and_goes(person: subject.Subject) -> None:
    event = draw_pass("hand", "lower", person)
    assert event.presence(-0.01) is None
    assert event.presence(1.01) is None
    assert event.presence(0.0) == 0
    assert event.presence(0.5) == 1
    assert event.presence(0.1) == pytest.approx(0.5)


def test_hidden_shares_equal_a_count_of_pixels(person: subject.Subject) -> None:
    _, points = person.draw(np.zeros(len(AFFWILD2)), Pose(yaw=0.2))
    cover = np.zeros((SIZE, SIZE), bool)
    cover[90:150, 60:128] = True
    covered, hidden = regions.measure_hidden(AFFWILD2, points, cover)
    for mask, value in [(regions._face_mask(points), covered), *zip(regions._region_masks(AFFWILD2, points), hidden)]:
        inside = both = 0
        for y in range(SIZE):
            for x in range(SIZE):
                inside += mask[y, x]
                both += mask[y, x] and cover[y, x]
        assert value == pytest.approx(both / inside)
    covered, hidden = regions.measure_hidden(AFFWILD2, points, None)
    assert (covered, hidden.tolist()) == (0, [0] * len(AFFWILD2))


def test_a_region_is_on_both_sides_and_holds_its_points(person: subject.Subject) -> None:
    _, points = person.draw(np.zeros(len(AFFWILD2)), Pose())
    for au, mask in zip(REPERTOIRE, regions._region_masks(REPERTOIRE, points)):
        for side in (0, 1):
            x, y = np.mean([points[point_index(key, side)] for key in regions.REGIONS[au]], 0)
            assert mask[round(y), round(x)], (au, side)
