"""Faces as arrays: the same cached or not, and bad files in one line."""

from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.ranking.images import FaceImages

SIZE, LENGTHS = 16, (5, 3)
OK = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)


def colour(row: int, side: int = SIZE) -> np.ndarray:
    return np.full((side, side, 3), (20 * row, 10 * row, 5), np.uint8)


def write(folder: Path, lengths: tuple[int, ...] = LENGTHS, ok: np.ndarray = OK, last: int = SIZE) -> Frames:
    """Faces whose colour tells the row, red most of it; those of the last video have another side."""
    folder.mkdir(exist_ok=True)
    start = 0
    for v, n in enumerate(lengths):
        nan, side = np.full(n, np.nan, np.float32), last if v + 1 == len(lengths) else SIZE
        jpegs = [store.encode_jpeg(colour(row, side)) if ok[row] else b"" for row in range(start, start + n)]
        columns = {
            "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 25.0, "jpeg": jpegs,
            "status": ["ok" if good else "no_face" for good in ok[start : start + n]],
            "landmarks": [np.zeros(136, np.float32)] * n, "transform": [np.zeros(6, np.float32)] * n,
            "detector_score": nan, "tracked": np.zeros(n, bool), "pass_disagreement": nan, "procrustes_residual": nan,
        }  # fmt: skip
        store.write_faces(folder / f"v{v}.arrow", [columns], {})
        start += n
    video = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    frame = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    names = tuple(f"v{v}" for v in range(len(lengths)))
    labels = np.zeros((start, 12), np.int8)
    return Frames(names, names, video, video, np.zeros(start, np.int8), frame, frame / 25.0, ok, labels)


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
    message = r"faces of different sizes: in .*v1\.arrow frame 1, got \(1, 1\), expected \(16, 16\); run preprocess-faces again"
    with pytest.raises(ArtifactError, match=message):
        images(np.array([0, 6]))


def test_a_cached_face_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, seen = store.decode_jpeg, []

    def counting(data: bytes, where: object = "") -> np.ndarray:
        seen.append(where)
        return decode(data, where)

    images = FaceImages(tmp_path, write(tmp_path))
    monkeypatch.setattr(store, "decode_jpeg", counting)
    for rows in ([0, 1, 1], [1, 3], [0, 3]):
        images(np.array(rows))
    assert sorted(map(str, seen)) == [f"{tmp_path / 'v0.arrow'} frame {frame}" for frame in (0, 1, 3)]


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
        (lambda path: path.write_bytes(b"hello"), "not a readable Arrow file: in {}, got "),
        (lambda path: path.write_bytes(b""), "not a readable Arrow file: in {}, got "),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "not a readable Arrow file: in {}, got "),
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
    with pytest.raises(ArtifactError, match=r"a JPEG that cannot be decoded: in .*v0\.arrow frame 2, got 0 bytes"):
        images(np.array([2]))
