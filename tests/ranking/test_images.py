"""Faces as arrays: the same cached or not; a bad file is an error of one line."""

from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.ranking.images import FaceImages
from face_files import write_faces
from frame_sets import make_frames

SIZE = 16
OK = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)


def colour(row: int, side: int = SIZE) -> np.ndarray:
    return np.full((side, side, 3), (20 * row, 10 * row, 5), np.uint8)


def write(folder: Path, ok: np.ndarray = OK, last: int = SIZE) -> Frames:
    """Write two videos of faces whose colour depends on the row; those of the last may have another size."""
    folder.mkdir(exist_ok=True)
    for v, side in enumerate((SIZE, last)):
        rows = range(4 * v, 4 * v + 4)
        write_faces(folder / f"v{v}.arrow", [store.encode_jpeg(colour(r, side)) if ok[r] else b"" for r in rows])
    return make_frames((0, 0), np.zeros((8, 12)), ok=ok)


def test_cached_equals_uncached_equals_the_colour(tmp_path: Path) -> None:
    frames = write(tmp_path)
    cached, uncached = FaceImages(tmp_path, frames), FaceImages(tmp_path, frames, cache_bytes=0)
    assert cached.size == uncached.size == SIZE
    for rows in ([7, 0, 0, 3], [4], [0, 1, 3, 4, 6, 7], [7, 0, 0, 3]):
        one, other = cached(np.array(rows)), uncached(np.array(rows))
        assert one.shape == (len(rows), SIZE, SIZE, 3)
        assert one.dtype == np.uint8
        assert (one == other).all()
        assert np.abs(one.astype(int) - [colour(row) for row in rows]).max() <= 3


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_each_face_is_in_its_place_whatever_the_threads(tmp_path: Path, threads: int) -> None:
    rows = np.array([7, 0, 3, 3, 1, 6, 4, 0, 7, 1, 1, 6, 3])
    images = FaceImages(tmp_path, write(tmp_path), cache_bytes=0, threads=threads)
    assert np.abs(images(rows).astype(int) - [colour(row) for row in rows]).max() <= 3
    assert images(rows[:0]).shape == (0, SIZE, SIZE, 3)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_faces_of_another_size_are_refused(tmp_path: Path, cache_bytes: int) -> None:
    images = FaceImages(tmp_path, write(tmp_path, last=1), cache_bytes)
    message = r"faces of different sizes: in .*v1\.arrow frame 2, got \(1, 1\), expected \(16, 16\); run preprocess-faces again"
    with pytest.raises(ArtifactError, match=message):
        images(np.array([0, 6]))


def test_a_cached_face_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, decoded = store.decode_jpeg, []

    def counting(data: bytes, where: object = "") -> np.ndarray:
        decoded.append(where)
        return decode(data, where)

    images = FaceImages(tmp_path, write(tmp_path))
    monkeypatch.setattr(store, "decode_jpeg", counting)
    for rows in ([0, 1, 1], [1, 3], [0, 3]):
        images(np.array(rows))
    assert sorted(map(str, decoded)) == [f"{tmp_path / 'v0.arrow'} frame {frame}" for frame in (0, 1, 3)]


def test_what_is_given_is_a_copy(tmp_path: Path) -> None:
    images = FaceImages(tmp_path, write(tmp_path))
    images(np.array([1]))[:] = 0
    assert images(np.array([1])).max() > 0


def test_no_face_anywhere(tmp_path: Path) -> None:
    frames = write(tmp_path, ok=np.zeros(8, bool))
    with pytest.raises(ArtifactError, match=r"no face in any video: in .*; look at the statuses"):
        FaceImages(tmp_path, frames)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"hello"), "the faces of a video are damaged: in {}, got "),
        (lambda path: path.write_bytes(b""), "the faces of a video are damaged: in {}, got "),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "the faces of a video are damaged: in {}, got "),
        (lambda path: path.unlink(), "missing file: in {}; run the stage that writes it"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, damage: object, message: str) -> None:
    frames = write(tmp_path)
    path = tmp_path / "v1.arrow"
    assert callable(damage)
    damage(path)
    with pytest.raises(ArtifactError) as caught:
        FaceImages(tmp_path, frames)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_a_frame_without_a_face_is_refused(tmp_path: Path) -> None:
    images = FaceImages(tmp_path, write(tmp_path))
    with pytest.raises(ArtifactError, match=r"a JPEG cannot be decoded: in .*v0\.arrow frame 2, got 0 bytes"):
        images(np.array([2]))
