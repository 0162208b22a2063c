"""Each AU moves its points and draws its furrows, and people differ."""

from itertools import pairwise

import numpy as np
import pytest

from aupair.aus import AUS
from aupair.synth import expression, subject
from aupair.synth.portrait import IOD, mirror_landmarks
from aupair.synth.shape import Pose


@pytest.fixture(scope="module")
def person() -> subject.Subject:
    return subject.make_subject(np.random.default_rng(7))


def show(person: subject.Subject, **levels: float) -> np.ndarray:
    """Return the points of the face, in IODs."""
    intensity = np.array([levels.get(au, 0.0) for au in AUS])
    return person.draw(intensity, Pose())[1] / IOD


def test_each_au_moves_what_it_should(person: subject.Subject) -> None:
    rest = show(person)
    moved = {au: show(person, **{au: 5.0}) - rest for au in AUS}
    assert moved["AU1"][[21, 22], 1].max() < -0.1
    assert moved["AU2"][[18, 25], 1].max() < -0.1
    assert moved["AU4"][[21, 22], 1].min() > 0.05
    assert moved["AU4"][21, 0] > 0 > moved["AU4"][22, 0]
    assert moved["AU7"][[40, 41, 46, 47], 1].max() < 0 < moved["AU7"][[37, 38, 43, 44], 1].min()
    assert moved["AU10"][[50, 51, 52], 1].max() < -0.05
    assert moved["AU12"][48, 0] < -0.1
    assert moved["AU12"][54, 0] > 0.1
    assert moved["AU12"][[48, 54], 1].max() < -0.08
    assert moved["AU15"][[48, 54], 1].min() > 0.1
    assert moved["AU23"][48, 0] > 0.05
    assert moved["AU23"][54, 0] < -0.05
    assert moved["AU24"][51, 1] > 0.02
    assert moved["AU24"][57, 1] < -0.05
    assert moved["AU25"][66, 1] - moved["AU25"][62, 1] > 0.08
    assert moved["AU26"][8, 1] > 0.2


def test_more_intensity_changes_the_picture_more(person: subject.Subject) -> None:
    for a, au in enumerate(AUS):
        pictures = [person.draw(level * np.eye(len(AUS))[a], Pose())[0] for level in (0.0, 1.0, 3.0, 5.0)]
        change = [float(np.abs(picture - pictures[0]).mean()) for picture in pictures]
        assert all(one < other for one, other in pairwise(change)), au


def test_lips_never_cross_and_closed_lids_meet(person: subject.Subject) -> None:
    pressed = show(person, AU23=5.0, AU24=5.0)
    assert (pressed[[67, 66, 65], 1] - pressed[[61, 62, 63], 1]).min() > 0
    open_lids = show(person)
    closed = person.draw(np.zeros(len(AUS)), Pose(), blink=1.0)[1] / IOD
    assert (closed[[41, 40], 1] - closed[[37, 38], 1]).max() < 0.3 * (
        open_lids[[41, 40], 1] - open_lids[[37, 38], 1]
    ).min()
    assert (closed[[41, 40], 1] - closed[[37, 38], 1]).min() > 0


def test_an_open_mouth_is_dark_inside(person: subject.Subject) -> None:
    intensity = np.array([4.5 if au == "AU25" else 5.0 if au == "AU26" else 0.0 for au in AUS])
    image, points = person.draw(intensity, Pose())
    x, y = np.round(0.5 * (points[62] + points[66])).astype(int)
    assert image[y, x].mean() < 90 < person.skin.mean()


def test_furrows_mirror_with_the_face(person: subject.Subject) -> None:
    straight, mirrored = (
        expression.paint_furrows(person.landmarks),
        expression.paint_furrows(mirror_landmarks(person.landmarks)),
    )
    assert np.abs(straight - mirrored[:, :, ::-1]).max() < 1e-5
    creased = [au for au, relief in zip(AUS, straight) if np.abs(relief).max() > 0.04]
    assert creased == [au for au in AUS if au != "AU25"]


def test_asymmetry_moves_one_side_more() -> None:
    even = expression.displacements(np.ones(len(AUS)), np.zeros(len(AUS)))
    uneven = expression.displacements(np.ones(len(AUS)), np.full(len(AUS), 0.2))
    a = AUS.index("AU12")
    assert np.allclose(even[a, 48] * [-1, 1], even[a, 54])
    assert np.allclose(uneven[a, 48], 1.2 * even[a, 48])
    assert np.allclose(uneven[a, 54], 0.8 * even[a, 54])


def test_people_differ_and_are_drawn_the_same_twice() -> None:
    people = [subject.make_subject(np.random.default_rng([0, k])) for k in range(6)]
    again = subject.make_subject(np.random.default_rng([0, 0]))
    assert np.array_equal(people[0].image, again.image)
    pictures = np.stack([person.image for person in people])
    gaps = [np.abs(pictures[i] - pictures[j]).mean() for i in range(6) for j in range(i)]
    assert min(gaps) > 4
