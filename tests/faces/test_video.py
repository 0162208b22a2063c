"""A video becomes one row for every frame, with or without a face."""

import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from skimage import data

from aupair import store
from aupair.faces import video
from aupair.faces.align import _transform_points, scaled_template
from aupair.faces.decode import EmptyVideoError, VideoError
from aupair.faces.landmarks import LEFT_EYE, RIGHT_EYE
from aupair.faces.row import FaceRow
from aupair.faces.video import align_video, face_columns, iter_faces
from aupair.params import PreprocessFaces
from videos import write_video

PARAMS = PreprocessFaces(size=96)


def portrait(degrees: float, scale: float) -> np.ndarray:
    """Draw the astronaut turned and scaled around the face, (240, 320, 3) uint8."""
    turn = cv2.getRotationMatrix2D((226, 112), degrees, scale)
    turn[:, 2] += (160 - 226, 120 - 112)
    return cv2.warpAffine(data.astronaut(), turn, (320, 240), borderMode=cv2.BORDER_REFLECT)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [portrait(degrees, scale) for degrees in (-15, 0, 15) for scale in (0.7, 1.0, 1.3)]
    images.insert(4, np.full((240, 320, 3), 120, np.uint8))
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", images)


def test_a_row_for_every_frame(clip: Path) -> None:
    rows = list(iter_faces(clip, PARAMS))
    assert [row.frame for row in rows] == list(range(10))
    np.testing.assert_allclose([row.time for row in rows], np.arange(10) / 25, atol=1e-6)
    assert [row.status for row in rows] == ["ok"] * 4 + ["no_face"] + ["ok"] * 5
    gap = rows[4]
    assert gap.image is None
    assert gap.landmarks is None
    assert np.isnan([gap.detector_score, gap.pass_disagreement, gap.procrustes_residual]).all()


def test_faces_stand_level_in_one_place(clip: Path) -> None:
    """Eyes are where the template has them, in faces turned by 15 degrees and of half or twice the size."""
    goal = scaled_template(96)
    images = []
    for row in iter_faces(clip, PARAMS):
        if row.image is None:
            continue
        assert row.image.shape == (96, 96, 3)
        assert row.image.dtype == np.uint8
        points = _transform_points(row.transform, row.landmarks)
        for eye in (LEFT_EYE, RIGHT_EYE):
            np.testing.assert_allclose(points[eye].mean(0), goal[eye].mean(0), atol=3)
        assert row.procrustes_residual < 0.2
        images.append(row.image.astype(float))
    spread = np.std(images, 0)[25:85, 20:76].mean()
    assert spread < 16


def test_colours_are_red_green_blue(clip: Path) -> None:
    image = next(iter_faces(clip, PARAMS)).image
    red, _, blue = image[35:75, 30:66].mean((0, 1))
    assert red > blue + 20  # skin


def test_columns_fit_the_schema_and_come_back(clip: Path, tmp_path: Path) -> None:
    rows = list(iter_faces(clip, PARAMS))
    store.write_faces(tmp_path / "a.arrow", [face_columns(rows, 95)], {})
    table = store.read_faces(tmp_path / "a.arrow")
    for row, got in zip(rows, table.to_pylist(), strict=True):
        if row.status != "ok":
            assert got["jpeg"] == b""
            assert np.isnan(got["landmarks"]).all()
            assert np.isnan(got["transform"]).all()
            continue
        np.testing.assert_allclose(np.reshape(got["landmarks"], (68, 2)), row.landmarks)
        np.testing.assert_allclose(np.reshape(got["transform"], (2, 3)), row.transform, rtol=1e-6)
        assert np.abs(store.decode_jpeg(got["jpeg"]).astype(int) - row.image).mean() < 3
        assert got["tracked"] == row.tracked


def test_batches_are_the_rows_in_order(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pa.table(next(align_video(clip, PARAMS)), schema=store.FACES_SCHEMA)
    monkeypatch.setattr(video, "BATCH", 3)
    parts = [pa.table(columns, schema=store.FACES_SCHEMA) for columns in align_video(clip, PARAMS)]
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    joined = pa.concat_tables(parts)
    assert (
        joined.drop(["landmarks", "transform"]).to_pylist()[:4]
        == whole.drop(["landmarks", "transform"]).to_pylist()[:4]
    )
    assert joined["jpeg"].to_pylist() == whole["jpeg"].to_pylist()


def test_frames_are_read_one_at_a_time(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is yielded before the next frame is read."""
    read = Counter()

    def counted(source: Path) -> object:
        for frame in original(source):
            read["frames"] += 1
            yield frame

    original = video.read_frames
    monkeypatch.setattr(video, "read_frames", counted)
    rows = iter_faces(clip, PARAMS)
    next(rows)
    next(rows)
    assert read["frames"] == 2


def test_only_images_of_one_batch_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a batch are freed before the next batch is filled."""
    images, most = list[weakref.ref[np.ndarray]](), 0

    def rows(*_: object) -> Iterator[FaceRow]:
        nonlocal most
        for k in range(20):
            image = np.full((8, 8, 3), k, np.uint8)
            images.append(weakref.ref(image))
            most = max(most, sum(ref() is not None for ref in images))
            yield FaceRow(k, k / 25, "ok", image, np.zeros((68, 2)), np.zeros((2, 3)))

    monkeypatch.setattr(video, "BATCH", 5)
    monkeypatch.setattr(video, "iter_faces", rows)
    batches = [columns["frame"] for columns in align_video(Path("any.mp4"), PARAMS)]
    assert batches == [list(range(k, k + 5)) for k in range(0, 20, 5)]
    assert most <= 5 + 2  # the generator's own last one and the next batch's first


@pytest.mark.parametrize("detector", ["tracking", "reference"])
def test_a_blank_video_is_no_error(tmp_path: Path, detector: str) -> None:
    path = write_video(tmp_path / "blank.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 5)
    rows = list(iter_faces(path, PreprocessFaces(detector=detector)))
    assert [row.status for row in rows] == ["no_face"] * 5


def test_an_unreadable_video_raises_before_any_row(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no")
    with pytest.raises(VideoError):
        next(iter_faces(path, PARAMS))
    path.write_bytes(b"")
    with pytest.raises(EmptyVideoError):
        next(align_video(path, PARAMS))
