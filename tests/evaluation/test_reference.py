"""The training reference: distances, limits, and a photograph of a real person among synthetic faces."""

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from aupair import store
from aupair.evaluation.reference import (
    GROUPS,
    KEY,
    Group,
    Reference,
    Signals,
    _prediction_limit,
    build_signals,
    fit_reference,
)
from aupair.evaluation.selection import Outputs
from aupair.faces.appearance import APPEARANCE, describe_appearance, describe_faces
from aupair.faces.video import face_columns, iter_faces
from aupair.params import PreprocessFaces
from frame_sets import make_frames
from listener import Listener
from videos import write_video


def test_a_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) + 5
    group = Group.from_frames(frames)
    assert group is not None
    covariance = np.cov(frames.T)
    covariance += np.diag(0.01 * np.diag(covariance) + 1e-6)
    video = frames[:7] + 1
    each = [np.sqrt((x - frames.mean(0)) @ np.linalg.solve(covariance, x - frames.mean(0)) / 3) for x in video]
    assert group.distance(video) == pytest.approx(np.median(each))
    with_gap = np.vstack([video, np.full((1, 3), np.nan)])
    assert group.distance(with_gap) == group.distance(video), "unknown frames do not count"
    assert np.isnan(group.distance(with_gap[-1:]))


@pytest.mark.parametrize("videos", [6, 24, 200])
def test_about_the_intended_share_of_known_videos_is_beyond_the_limit(videos: int) -> None:
    rng = np.random.default_rng(0)
    limits = [_prediction_limit(np.exp(rng.normal(0.3, 0.2, videos)), 0.05) for _ in range(2000)]
    beyond = np.exp(rng.normal(0.3, 0.2, 2000)) > limits
    assert beyond.mean() == pytest.approx(0.05, abs=0.015)


def test_there_is_no_limit_from_two_videos() -> None:
    assert _prediction_limit(np.array([1.0, 2.0, np.nan]), 0.01) == np.inf


def random_signals(rng: np.random.Generator, shift: float = 0.0) -> Signals:
    """Signals of a video of 40 frames and two AUs."""
    y_hat, sigma = rng.normal(shift, 1, (40, 2)), rng.lognormal(0, 0.1, (40, 2))
    return build_signals(y_hat, sigma, rng.uniform(0, 0.1, (40, 3)), rng.normal(3, 0.1, (40, 15)))


def test_a_reference_outlives_its_file_and_names_the_group_that_differs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = {}
    for name in GROUPS:
        fitted = Group.from_frames(np.concatenate([random_signals(rng)[name] for _ in range(9)]))
        assert fitted is not None
        groups[name] = Group(fitted.center, fitted.precision, np.inf if name == "uncertainty" else 1.5)
    reference = Reference(True, groups)
    store.write_json(tmp_path / "selection.json", {KEY: reference.to_json()})
    read = Reference.from_json(store.read_json(tmp_path / "selection.json"))
    assert read is not None
    assert read.synthetic
    assert read.groups["uncertainty"].limit == np.inf
    assert read.differing(random_signals(rng)) == {}
    far = read.differing(random_signals(rng, shift=5))
    assert list(far) == ["pseudo-intensity"]
    assert far["pseudo-intensity"] > 2
    unknown = build_signals(*(np.full((4, n), np.nan) for n in (2, 2, 3, 15)))
    assert read.differing(unknown) == {}, "aligned faces have no landmarks and no size"
    assert Reference.from_json({"aus": ["AU1"]}) is None, "a model of an older version"


def test_appearance_follows_colour_contrast_and_sharpness() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (64, 64, 3)).astype(np.uint8)
    plain, blurred = describe_appearance(noise), describe_appearance(cv2.GaussianBlur(noise, (0, 0), 2))
    redder = describe_appearance(np.minimum(noise + np.array([40, 0, 0]), 255).astype(np.uint8))
    column = APPEARANCE.index
    assert blurred[column("sharpness_x_1")] < plain[column("sharpness_x_1")] - 1
    assert blurred[column("sharpness_y_8")] > plain[column("sharpness_y_8")] - 0.5, "a coarse scale keeps more"
    assert blurred[column("contrast_green")] < plain[column("contrast_green")]
    assert redder[column("mean_red")] > plain[column("mean_red")] + 0.1
    assert redder[column("mean_blue")] == plain[column("mean_blue")]
    halved = np.array([[[0.5, 0, 3], [0, 0.5, 4]], [[1, 0, 0], [0, 1, 0]], np.full((2, 3), np.nan)])
    sizes = np.exp(describe_faces([noise] * 3, halved)[:, -1])
    assert sizes[:2] == pytest.approx([128, 64]), "a face of 128 pixels is shrunk by 2"
    assert np.isnan(sizes[2])


def test_a_photograph_of_a_real_person_differs_from_synthetic_faces(corpus: Path, tmp_path: Path) -> None:
    """Matplotlib's sample picture shows a real person; the demo corpus shows one portrait, warped."""
    params = PreprocessFaces(size=96)
    lengths = []
    for path in sorted((corpus / "videos").glob("*.mp4")):
        rows = [row for row in iter_faces(path, params) if row.image is not None]
        # each half counts as a video, one of fit and one of select, since eight people are too few for both
        for part in np.array_split(np.arange(len(rows)), 2):
            store.write_faces(tmp_path / f"v{len(lengths)}.arrow", [face_columns([rows[k] for k in part], 95)], {})
            lengths.append(len(part))
    frames = make_frames([0, 1] * (len(lengths) // 2), np.zeros((sum(lengths), 2)), lengths=lengths)
    rng = np.random.default_rng(0)
    y_hat, sigma = rng.normal(size=(len(frames), 2)), rng.lognormal(size=(len(frames), 2))
    log = Listener()
    reference = fit_reference(frames, Outputs(y_hat, sigma, sigma, {}, ""), tmp_path, synthetic=True, log=log)
    assert log.lines == ["0 of 0 videos of validation differ from those of fit"]
    photograph = cv2.imread(str(Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")))[:, :, ::-1]
    (real,) = [
        row for row in iter_faces(write_video(tmp_path / "real.mp4", [photograph]), params) if row.image is not None
    ]
    synthetic = store.read_faces(tmp_path / "v0.arrow")["jpeg"].to_pylist()
    unknown = np.full((2, 3), np.nan)
    for images, differs in (([real.image] * 2, True), ([store.decode_jpeg(jpeg) for jpeg in synthetic[:2]], False)):
        seen = describe_faces(images, np.full((2, 2, 3), np.nan))
        assert ("appearance" in reference.differing(build_signals(y_hat[:2], sigma[:2], unknown, seen))) is differs
