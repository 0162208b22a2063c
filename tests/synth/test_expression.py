"""Each AU moves its points and draws its furrows, and people differ."""

from itertools import pairwise

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.errors import AupairError
from aupair.faces.landmarks import box_of_landmarks, find_landmarks, load_predictor
from aupair.synth import expression, subject
from aupair.synth.expression import REPERTOIRE
from aupair.synth.portrait import IOD, SEAM, mirror_landmarks
from aupair.synth.shape import Pose


@pytest.fixture(scope="module")
def person() -> subject.Subject:
    return subject.make_subject(np.random.default_rng(7), REPERTOIRE)


def show(person: subject.Subject, **levels: float) -> np.ndarray:
    """Return the points of the face, in IODs."""
    return person.draw(intensities(**levels), Pose())[1] / IOD


def intensities(**levels: float) -> np.ndarray:
    return np.array([levels.get(au, 0.0) for au in REPERTOIRE])


def test_each_au_moves_what_it_should(person: subject.Subject) -> None:
    rest = show(person)
    moved = {au: show(person, **{au: 5.0}) - rest for au in REPERTOIRE}
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
    assert moved["AU18"][48, 0] > 0.1 > -0.1 > moved["AU18"][54, 0]
    assert moved["AU19"][66, 1] - moved["AU19"][62, 1] > 0.08
    assert moved["AU33"][4, 0] < -0.1 < 0.1 < moved["AU33"][12, 0]
    assert moved["AU43"][[37, 38, 43, 44], 1].min() > 0.1


def test_more_intensity_changes_the_picture_more(person: subject.Subject) -> None:
    for au in REPERTOIRE:
        pictures = [person.draw(intensities(**{au: level}), Pose())[0] for level in (0.0, 1.0, 3.0, 5.0)]
        change = [float(np.abs(picture - pictures[0]).mean()) for picture in pictures]
        assert all(one < other for one, other in pairwise(change)), au


def test_lips_never_cross_and_closed_lids_meet(person: subject.Subject) -> None:
    pressed = show(person, AU23=5.0, AU24=5.0)
    assert (pressed[[67, 66, 65], 1] - pressed[[61, 62, 63], 1]).min() > 0
    open_lids = show(person)
    closed = person.draw(intensities(), Pose(), blink=1.0)[1] / IOD
    assert (closed[[41, 40], 1] - closed[[37, 38], 1]).max() < 0.3 * (
        open_lids[[41, 40], 1] - open_lids[[37, 38], 1]
    ).min()
    assert (closed[[41, 40], 1] - closed[[37, 38], 1]).min() > 0


def test_an_open_mouth_is_dark_inside(person: subject.Subject) -> None:
    image, points = person.draw(intensities(AU25=4.5, AU26=5.0), Pose())
    x, y = np.round(0.5 * (points[62] + points[66])).astype(int)
    assert image[y, x].mean() < 90 < person.skin.mean()


def test_a_tongue_over_the_lip_is_redder_than_the_lip(person: subject.Subject) -> None:
    rest, (image, points) = person.draw(intensities(), Pose())[0], person.draw(intensities(AU19=5.0), Pose())
    x, y = np.round(points[57]).astype(int)
    assert image[y, x, 2] - image[y, x, 1] > rest[y, x, 2] - rest[y, x, 1] + 20


def test_closed_eyes_show_skin_where_the_iris_was_and_lids_meet(person: subject.Subject) -> None:
    rest, points = person.draw(intensities(), Pose())
    image, closed = person.draw(intensities(AU43=5.0), Pose())
    x, y = np.round(points[[37, 38, 40, 41]].mean(0)).astype(int)
    assert image[y, x].mean() > rest[y, x].mean() + 30
    assert (closed[[41, 40], 1] - closed[[37, 38], 1]).max() / IOD < 2 * SEAM


@pytest.mark.parametrize("au", ["AU18", "AU19", "AU33", "AU43"])
def test_dlib_finds_the_landmarks_of_new_aus(au: str, person: subject.Subject) -> None:
    predictor = load_predictor()
    for yaw in (0.0, 0.3):
        image, points = person.draw(intensities(**{au: 5.0}), Pose(yaw=yaw))
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        landmarks, _ = find_landmarks(predictor, pixels, box_of_landmarks(points[:68]))
        assert np.linalg.norm(landmarks - points[:68], axis=1).mean() / IOD < 0.08


def test_a_face_looks_the_same_whichever_aus_it_could_show_too(person: subject.Subject) -> None:
    face = subject.make_subject(np.random.default_rng(7), ["AU43", "AU12"])
    assert np.array_equal(face.landmarks, person.landmarks)
    assert face.relief.shape[0] == face.moves.shape[0] == 2
    assert np.array_equal(face.draw(np.array([0.0, 0.0]), Pose())[1], person.draw(intensities(), Pose())[1])


@pytest.mark.parametrize("aus", [("AU12", "AU99"), (), ("AU12", "AU12"), ("frame",)])
def test_aus_that_cannot_be_drawn_get_one_line(aus: tuple[str, ...]) -> None:
    with pytest.raises(AupairError) as error:
        expression.check_repertoire(aus)
    assert "\n" not in str(error.value)
    assert "AU99" not in aus or "AU43" in str(error.value)


def test_furrows_mirror_with_the_face(person: subject.Subject) -> None:
    straight, mirrored = (
        expression.paint_furrows(REPERTOIRE, person.landmarks),
        expression.paint_furrows(REPERTOIRE, mirror_landmarks(person.landmarks)),
    )
    assert np.abs(straight - mirrored[:, :, ::-1]).max() < 1e-5
    creased = [au for au, relief in zip(REPERTOIRE, straight) if np.abs(relief).max() > 0.04]
    assert creased == [au for au in REPERTOIRE if au != "AU25"]


def test_asymmetry_moves_one_side_more() -> None:
    even = expression.displacements(AFFWILD2, np.ones(len(AFFWILD2)), np.zeros(len(AFFWILD2)))
    uneven = expression.displacements(AFFWILD2, np.ones(len(AFFWILD2)), np.full(len(AFFWILD2), 0.2))
    a = AFFWILD2.index("AU12")
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
