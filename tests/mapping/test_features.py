"""The features as files: a round trip, statistics of fit alone, one line for each bad file, nothing half-written."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, AupairError
from aupair.mapping import features as module
from aupair.mapping.columns import Scores, VideoFeatures, columns
from aupair.mapping.extractor import Extractor, VideoInput
from aupair.mapping.features import Features, open_features, read_smoothed, write_features
from aupair.mapping.smoother_choice import POWERS, REACHES
from aupair.params import DistributionFeatures
from aupair.pool import ProcessDeath
from frame_sets import make_frames

LENGTHS, SPLIT = (9, 7, 5, 6), (0, 0, 1, 2)
PARAMS = DistributionFeatures(windows=(1.0,), context_points=2, compare=("constant", "columns"))
ROUTES = ("raw", "both", "constant", "columns")


def make() -> tuple[Frames, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n, video = sum(LENGTHS), np.repeat(range(len(LENGTHS)), LENGTHS)
    ok = rng.random(n) < 0.8
    ok[video == 3] = False  # a video without a face
    labels = (rng.random((n, 12)) < 0.4).astype(np.int8)
    labels[video == 1] = -1  # a video without an annotation counts in the statistics all the same
    frames = make_frames(SPLIT, labels, ok=ok, lengths=LENGTHS, fps=5)
    y_hat = np.where(ok[:, None], rng.normal(size=(n, 12)), np.nan).astype(np.float32)
    sigma = np.where(ok[:, None], rng.lognormal(size=(n, 12)), np.nan).astype(np.float32)
    quality = np.where(ok[:, None], rng.lognormal(size=(n, 3)), np.nan).astype(np.float32)
    return frames, y_hat, sigma, quality


def whole(features: Features) -> np.ndarray:
    return np.concatenate(list(features.chunks(np.arange(len(features)), 10)))


def test_each_route_has_the_features_of_its_own_values(tmp_path: Path) -> None:
    frames, y_hat, sigma, quality = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, quality, PARAMS)
    opened = open_features(tmp_path / "features", frames)
    assert tuple(opened) == ROUTES
    extractor, smoothed = Extractor.load(tmp_path / "features", PARAMS), read_smoothed(tmp_path / "features", frames)
    assert smoothed.keys() == {"both", "constant", "both.spread"}
    values = {"raw": y_hat, "columns": y_hat} | smoothed
    for route, features in opened.items():
        matrix = whole(features)
        assert features.width == matrix.shape[2] == len(columns(PARAMS, route == "columns"))
        for v in range(len(LENGTHS)):
            rows = frames.video == v
            scores = Scores(values[route][rows], sigma[rows] if route == "columns" else None)
            video = VideoFeatures(scores, frames.time[rows], extractor.statistics[route], PARAMS)
            np.testing.assert_array_equal(matrix[rows], video.features())
        assert (np.isnan(matrix[:, 0, 0]) == ~frames.ok).all()
    assert not np.allclose(whole(opened["both"])[frames.ok], whole(opened["raw"])[frames.ok])


def test_predict_has_the_bits_of_training(tmp_path: Path) -> None:
    """The extractor that is loaded computes from one video what extract-features wrote for it."""
    frames, y_hat, sigma, quality = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, quality, PARAMS)
    opened, smoothed = open_features(tmp_path / "features", frames), read_smoothed(tmp_path / "features", frames)
    extractor = Extractor.load(tmp_path / "features", PARAMS)
    extractor = extractor.only(extractor.deciding)
    for rows in frames.slices():
        (video,) = extractor.smooth([VideoInput(y_hat[rows], sigma[rows], quality[rows], frames.time[rows])])
        features = extractor.features(video).features()
        assert features.keys() == {"raw", "both"}
        for route, own in features.items():
            assert own.tobytes() == whole(opened[route])[rows].tobytes()
        assert video.values["both"].tobytes() == smoothed["both"][rows].tobytes()
        assert video.spread["both"].tobytes() == smoothed["both.spread"][rows].tobytes()


@pytest.mark.parametrize(
    ("smoother", "compare", "routes", "deciding"),
    [
        ("none", (), ["raw", "columns"], ["raw", "columns"]),
        ("sigma", ("sigma", "columns", "constant"), ["raw", "sigma", "columns", "constant"], ["raw", "sigma"]),
    ],
)
def test_routes_follow_the_settings(
    tmp_path: Path, smoother: str, compare: tuple[str, ...], routes: list[str], deciding: list[str]
) -> None:
    frames, *scores = make()
    params = PARAMS.model_copy(update={"smoother": smoother, "compare": compare})
    write_features(tmp_path / "features", frames, *scores, params)
    assert sorted(path.stem for path in (tmp_path / "features" / "routes").iterdir()) == sorted(routes)
    about = store.read_json(tmp_path / "features" / "features.json")
    assert (list(about["routes"]), about["deciding"]) == (routes, deciding)
    smoothed = [route for route in routes if route not in ("raw", "columns")]
    assert list(store.read_json(tmp_path / "features" / "smoother.json")["routes"]) == smoothed
    assert list(open_features(tmp_path / "features", frames, ("raw",))) == ["raw"]


def test_smoother_json_says_what_the_numbers_were_chosen_by(tmp_path: Path) -> None:
    frames, *scores = make()
    write_features(tmp_path / "features", frames, *scores, PARAMS)
    routes = store.read_json(tmp_path / "features" / "smoother.json")["routes"]
    for route, count in (("both", len(POWERS) * len(REACHES)), ("constant", len(REACHES))):
        own = routes[route]
        assert len(own["grid"]) == count
        chosen = [p for p in own["grid"] if (p["power"], p["reach"]) == (own["power"], own["reach"])]
        assert own["r_squared"] == chosen[0]["r_squared"] == max(point["r_squared"] for point in own["grid"])
        assert 0 < own["r_squared_without_smoother"] < 1


def test_without_quality_both_is_sigma_and_quality_is_constant(tmp_path: Path) -> None:
    frames, y_hat, sigma, quality = make()
    params = PARAMS.model_copy(update={"compare": ("sigma", "quality", "constant")})
    write_features(tmp_path / "features", frames, y_hat, sigma, quality * np.nan, params)
    smoothed = read_smoothed(tmp_path / "features", frames)
    np.testing.assert_array_equal(smoothed["both"], smoothed["sigma"])
    np.testing.assert_array_equal(smoothed["quality"], smoothed["constant"])


def test_one_frame_of_unknown_quality_is_neutral(tmp_path: Path) -> None:
    frames, y_hat, sigma, quality = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, quality, PARAMS)
    extractor = Extractor.load(tmp_path / "features", PARAMS)
    rows = frames.slices()[0]
    video = VideoInput(y_hat[rows], sigma[rows], quality[rows], frames.time[rows])
    z = extractor.uncertainty("both", video)
    unknown = extractor.uncertainty("both", video._replace(quality=quality[rows] * np.nan))
    np.testing.assert_allclose(2 * unknown, extractor.scales["sigma"].standardise(sigma[rows]))
    quality_part = extractor.scales["quality"].standardise(quality[rows, :1])
    np.testing.assert_allclose(2 * (z - unknown), np.broadcast_to(quality_part, z.shape), atol=1e-12)


@pytest.mark.parametrize("neutral", ["video", "person"])
def test_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neutral: str) -> None:
    frames, *scores = make()
    frames = replace(frames, subject=(frames.video // 2).astype(np.int32))
    params = PARAMS.model_copy(update={"neutral": neutral})
    write_features(tmp_path / "here", frames, *scores, params)
    monkeypatch.setattr(module, "FRAMES_PER_PROCESS", 1)
    monkeypatch.setattr(module, "count_cores", lambda: 2)
    write_features(tmp_path / "there", frames, *scores, params)
    names = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.*"))
    assert len(names) == 3 + 1 + len(ROUTES)
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_process_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, *scores = make()
    monkeypatch.setattr(module, "FRAMES_PER_PROCESS", 1)
    monkeypatch.setattr(module, "count_cores", lambda: 2)
    monkeypatch.setattr(
        module, "run_in_processes", lambda work, tasks, workers: (pair for pair in [(tasks[0], ProcessDeath(-9))])
    )
    with pytest.raises(
        AupairError, match=r"^a process was killed by SIGKILL \(the system does .*\): in video v0; run the stage again"
    ):
        write_features(tmp_path / "features", frames, *scores, PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_statistics_come_from_all_faces_of_fit_alone(tmp_path: Path) -> None:
    frames, y_hat, sigma, quality = make()
    write_features(tmp_path / "features", frames, y_hat, sigma, quality, PARAMS)
    extractor, smoothed = Extractor.load(tmp_path / "features", PARAMS), read_smoothed(tmp_path / "features", frames)
    rows = frames.of_split("fit") & frames.ok
    for route, values in {"raw": y_hat, "columns": y_hat, "both": smoothed["both"]}.items():
        np.testing.assert_array_equal(extractor.statistics[route].y_min, values[rows].min(axis=0))
        np.testing.assert_array_equal(extractor.statistics[route].y_max, values[rows].max(axis=0))
        assert (extractor.statistics[route].sigma_max is None) == (route != "columns")
    got = extractor.statistics["columns"]
    assert got.log_sigma is not None
    np.testing.assert_array_equal(got.sigma_max, sigma[rows].max(axis=0))
    np.testing.assert_allclose(got.log_sigma[:, 100], np.median(np.log(sigma[rows]), axis=0), rtol=1e-5)
    np.testing.assert_allclose(extractor.scales["sigma"].center, np.median(np.log(sigma[rows]), axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        extractor.scales["quality"].center, np.median(np.log(quality[rows, :1]), axis=0), rtol=1e-5
    )


def test_other_faces(tmp_path: Path) -> None:
    frames, *scores = make()
    write_features(tmp_path / "features", frames, *scores, PARAMS)
    fewer = make_frames(SPLIT, frames.labels[1:], lengths=(LENGTHS[0] - 1, *LENGTHS[1:]))
    with pytest.raises(ArtifactError) as caught:
        open_features(tmp_path / "features", fewer)
    assert str(caught.value).startswith(
        f"features of other faces: in {tmp_path / 'features' / 'routes' / 'raw.npy'}, got ({len(frames)}, "
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
        ("routes/both.npy", _cut, r"the file is truncated or changed: in .*, got \d+ bytes, expected"),
        ("routes/both.npy", _change, "the file has been changed: in .*run extract-features again"),
        ("routes/both.npy", Path.unlink, "missing file: in "),
    ],
)
def test_a_damaged_or_missing_file_gets_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    frames, *scores = make()
    write_features(tmp_path / "features", frames, *scores, PARAMS)
    damage(tmp_path / "features" / name)
    with pytest.raises(ArtifactError, match=f"^{message}") as caught:
        open_features(tmp_path / "features", frames)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_a_large_file_the_format_is_checked_and_not_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, *scores = make()
    write_features(tmp_path / "features", frames, *scores, PARAMS)
    monkeypatch.setattr(module, "HASHED_BYTES", 0)
    path = tmp_path / "features" / "routes" / "raw.npy"
    _change(path)
    assert len(open_features(tmp_path / "features", frames)["raw"]) == len(frames)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ArtifactError, match=r"^not a readable \.npy file: in ") as caught:
        open_features(tmp_path / "features", frames)
    assert "\n" not in str(caught.value)


def test_a_full_disk_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", fill)
    frames, *scores = make()
    with pytest.raises(AupairError, match=r"^cannot write: in .*features, got No space left on device.*; make room"):
        write_features(tmp_path / "features", frames, *scores, PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_no_face_in_fit_and_nothing_half_written(tmp_path: Path) -> None:
    frames, *scores = make()
    frames.ok[frames.of_split("fit")] = False
    with pytest.raises(ArtifactError, match="no frame of fit has a face"):
        write_features(tmp_path / "features", frames, *scores, PARAMS)
    assert list(tmp_path.iterdir()) == []
