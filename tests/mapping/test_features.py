"""The features as files: a round trip, statistics of fit alone, one line for each bad file, nothing half-written."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError
from aupair.faces.pool import ProcessDeath
from aupair.mapping import features as module
from aupair.mapping.extractor import Statistics, VideoFeatures, columns
from aupair.mapping.features import Features, open_features, write_features
from aupair.params import DistributionFeatures
from frame_sets import make_frames

LENGTHS, SPLIT = (9, 7, 5, 6), (0, 0, 1, 2)
PARAMS = DistributionFeatures(windows=(1.0,), context_points=2)


def make() -> tuple[Frames, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n, video = sum(LENGTHS), np.repeat(range(len(LENGTHS)), LENGTHS)
    ok = rng.random(n) < 0.8
    ok[video == 3] = False  # a video without a face
    labels = (rng.random((n, 12)) < 0.4).astype(np.int8)
    labels[video == 1] = -1  # a video without an annotation counts in the statistics all the same
    frames = make_frames(SPLIT, labels, ok=ok, lengths=LENGTHS, fps=5)
    y_hat = np.where(ok[:, None], rng.normal(size=(n, 12)), np.nan).astype(np.float32)
    sigma = np.where(ok[:, None], rng.lognormal(size=(n, 12)), np.nan).astype(np.float32)
    return frames, y_hat, sigma


def whole(features: Features) -> np.ndarray:
    return np.concatenate(list(features.chunks(np.arange(len(features)), 10)))


def test_round_trip(tmp_path: Path) -> None:
    frames, y_hat, sigma = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    opened = open_features(tmp_path / "features", frames)
    features = whole(opened)
    assert opened.plain.tolist() == [group == "plain" for _, group in columns(PARAMS)]
    statistics = Statistics.load(tmp_path / "features" / "statistics.safetensors")
    for v in range(len(LENGTHS)):
        rows = frames.video == v
        expected = VideoFeatures(y_hat[rows], sigma[rows], frames.time[rows], statistics, PARAMS).features()
        np.testing.assert_array_equal(features[rows], expected)
    assert (np.isnan(features[:, 0, 0]) == ~frames.ok).all()


@pytest.mark.parametrize("neutral", ["video", "person"])
def test_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neutral: str) -> None:
    frames, y_hat, sigma = make()
    frames = replace(frames, subject=(frames.video // 2).astype(np.int32))
    params = PARAMS.model_copy(update={"neutral": neutral})
    write_features(tmp_path / "here", frames, y_hat, sigma, params)
    monkeypatch.setattr(module, "FRAMES_PER_PROCESS", 1)
    monkeypatch.setattr(module, "count_cores", lambda: 2)
    write_features(tmp_path / "there", frames, y_hat, sigma, params)
    names = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.*"))
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_process_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, y_hat, sigma = make()
    monkeypatch.setattr(module, "FRAMES_PER_PROCESS", 1)
    monkeypatch.setattr(module, "count_cores", lambda: 2)
    monkeypatch.setattr(
        module, "run_in_processes", lambda work, tasks, workers: (pair for pair in [(tasks[0], ProcessDeath(-9))])
    )
    with pytest.raises(AupairError, match="a process died: in video v0, got code -9"):
        write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_statistics_come_from_all_faces_of_fit_alone(tmp_path: Path) -> None:
    frames, y_hat, sigma = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    got = Statistics.load(tmp_path / "features" / "statistics.safetensors")
    rows = frames.of_split("fit") & frames.ok
    np.testing.assert_array_equal(got.y_min, y_hat[rows].min(axis=0))
    np.testing.assert_array_equal(got.y_max, y_hat[rows].max(axis=0))
    np.testing.assert_array_equal(got.sigma_max, sigma[rows].max(axis=0))
    np.testing.assert_allclose(got.log_sigma[:, 100], np.median(np.log(sigma[rows]), axis=0), rtol=1e-5)


def test_other_faces(tmp_path: Path) -> None:
    frames, y_hat, sigma = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    fewer = make_frames(SPLIT, frames.labels[1:], lengths=(LENGTHS[0] - 1, *LENGTHS[1:]))
    with pytest.raises(ArtifactError) as caught:
        open_features(tmp_path / "features", fewer)
    assert str(caught.value).startswith(
        f"features of other faces: in {tmp_path / 'features' / 'features.npy'}, got ({len(frames)}, "
    )
    assert str(caught.value).endswith("run extract-features again")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("features.json", _cut, "not JSON: in "),
        ("features.json", Path.unlink, "missing file: in "),
        ("features.npy", _cut, r"the file has been cut or changed: in .*, got \d+ bytes, expected"),
        ("features.npy", _change, "the file has been changed: in .*run extract-features again"),
        ("features.npy", Path.unlink, "missing file: in "),
    ],
)
def test_a_damaged_or_missing_file_gets_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    frames, y_hat, sigma = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    damage(tmp_path / "features" / name)
    with pytest.raises(ArtifactError, match=f"^{message}") as caught:
        open_features(tmp_path / "features", frames)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_a_large_file_the_format_is_checked_and_not_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, y_hat, sigma = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    monkeypatch.setattr(module, "HASHED_BYTES", 0)
    path = tmp_path / "features" / "features.npy"
    _change(path)
    assert len(open_features(tmp_path / "features", frames)) == len(frames)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ArtifactError, match=r"^not a readable \.npy file: in ") as caught:
        open_features(tmp_path / "features", frames)
    assert "\n" not in str(caught.value)


def test_a_full_disk_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", fill)
    frames, y_hat, sigma = make()
    with pytest.raises(AupairError, match=r"^cannot write: in .*features, got No space left on device.*; make room"):
        write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_no_face_in_fit_and_nothing_half_written(tmp_path: Path) -> None:
    frames, y_hat, sigma = make()
    frames.ok[frames.of_split("fit")] = False
    with pytest.raises(ArtifactError, match="no frame of fit has a face"):
        write_features(tmp_path / "features", frames, y_hat, sigma, PARAMS)
    assert list(tmp_path.iterdir()) == []
