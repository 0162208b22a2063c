"""The output of sample-pairs: a round trip through files, and every way it can be refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aupair import store
from aupair.aus import AFFWILD2, SPLITS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, DataError
from aupair.params import ListedPairs, PairsInGroups
from aupair.ranking.pairs import Pairs, count_pairs
from aupair.ranking.samples import draw_samples, load_samples, load_training_set
from face_files import write_faces
from frame_sets import make_frames

LENGTH = 12
SPLIT = (0, 0, 0, 0, 1, 1, 2)
GROUPS = PairsInGroups(frames=4, groups=3, valid_pairs=5, folds=2)
LISTED = ListedPairs(valid_pairs=5, train_pairs=9, folds=2)
PARAMS = {"groups": GROUPS, "reference": LISTED}


def draw_frames(split: tuple[int, ...] = SPLIT, active: tuple[int, ...] | None = None) -> Frames:
    """Return a video of one person for each entry; only those in `active` have an AU with two levels."""
    labels = (np.random.default_rng(0).random((len(split) * LENGTH, 12)) < 0.4).astype(np.int8)
    if active is not None:
        labels[~np.isin(np.arange(len(labels)) // LENGTH, active)] = 0
    return make_frames(split, labels)


def equal(one: Pairs, other: Pairs) -> bool:
    return all((getattr(one, key) == getattr(other, key)).all() for key in ("i", "j", "au", "r"))


@pytest.mark.parametrize("mode", ["groups", "reference"])
def test_round_trip(tmp_path: Path, mode: str) -> None:
    frames = draw_frames()
    samples = draw_samples(frames, PARAMS[mode], 0)
    samples.save(tmp_path / "pairs")
    loaded = load_samples(tmp_path / "pairs", frames)
    assert all(equal(samples.pairs[split], loaded.pairs[split]) for split in SPLITS)
    assert (loaded.folds == samples.folds).all()
    assert all((loaded.possible[split] == count_pairs(frames)[split]).all() for split in SPLITS)
    if mode == "groups":
        assert samples.groups is not None
        assert loaded.groups is not None
        assert (loaded.groups == samples.groups).all()
        assert samples.groups.shape == (4 * 3, 4)
    else:
        assert loaded.groups is None
    drawn = {"fit": 9 if mode == "reference" else 5, "select": 5, "validation": 5}
    assert {split: len(pairs) for split, pairs in loaded.pairs.items()} == {s: 12 * n for s, n in drawn.items()}


def test_the_same_seed_draws_the_same_and_folds_hold_people() -> None:
    frames = draw_frames()
    one, again, other = (draw_samples(frames, GROUPS, seed) for seed in (0, 0, 1))
    assert all(equal(one.pairs[split], again.pairs[split]) for split in SPLITS)
    assert not equal(one.pairs["fit"], other.pairs["fit"])
    assert sorted(one.folds[:4].tolist()) == [0, 0, 1, 1]
    assert one.folds[4:].tolist() == [-1, -1, -1]


def test_counts_can_be_read(tmp_path: Path) -> None:
    samples = draw_samples(draw_frames(), GROUPS, 0)
    samples.save(tmp_path / "pairs")
    counts = store.read_json(tmp_path / "pairs" / "counts.json")["pairs"]
    assert list(counts["select"]) == list(AFFWILD2)
    assert counts["select"]["AU12"]["drawn"] == 5
    assert counts["fit"]["AU1"]["possible"] > 5
    assert samples.table()[0] == ["AU", "fit", "select", "validation"]
    possible = [f"5 from {counts[split]['AU12']['possible']:,}" for split in SPLITS]
    assert samples.table()[7] == ["AU12", *possible]
    lines = samples.summary()
    assert [line.split() for line in lines[6:]] == [" ".join(row).split() for row in samples.table()]
    assert len({len(line) for line in lines[6:]}) == 1, "the columns are aligned"
    assert lines[:6] == [
        "fit: 60 fixed pairs", "select: 60 fixed pairs", "validation: 60 fixed pairs",
        "fit: 12 groups of 4 frames", "fit: 2 folds of people", "pairs drawn, from all there are (where those are few, some are drawn twice):",
    ]  # fmt: skip


def test_validation_may_have_no_pair(tmp_path: Path) -> None:
    frames = draw_frames(active=(0, 1, 2, 3, 4))
    samples = draw_samples(frames, GROUPS, 0)
    samples.save(tmp_path / "pairs")
    assert len(load_samples(tmp_path / "pairs", frames).pairs["validation"]) == 0


@pytest.mark.parametrize(("active", "split"), [((4, 5, 6), "fit"), ((0, 1, 2, 3, 6), "select")])
def test_no_pair_at_all(active: tuple[int, ...], split: str) -> None:
    with pytest.raises(DataError) as caught:
        draw_samples(draw_frames(active=active), GROUPS, 0)
    assert str(caught.value).startswith(f"no pair of frames in {split}, got no video with a face in which an AU has")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["groups", "reference"])
def test_more_folds_than_people(mode: str) -> None:
    with pytest.raises(DataError, match="too few people for cross-fitting, got 4, expected at least 5 in fit"):
        draw_samples(draw_frames(), PARAMS[mode].model_copy(update={"folds": 5}), 0)


@pytest.mark.parametrize("mode", ["groups", "reference"])
def test_a_fold_network_without_a_pair(mode: str) -> None:
    frames = draw_frames(active=(0, 4, 6))
    with pytest.raises(DataError, match="got all pairs of fit are from one fold"):
        draw_samples(frames, PARAMS[mode], 0)
    assert len(draw_samples(frames, PARAMS[mode].model_copy(update={"folds": 1}), 0).pairs["fit"]) > 0


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Frames]:
    frames = draw_frames()
    draw_samples(frames, GROUPS, 0).save(tmp_path / "pairs")
    return tmp_path / "pairs", frames


def test_other_faces(saved: tuple[Path, Frames]) -> None:
    folder, _ = saved
    other = draw_frames(SPLIT[:-1])
    with pytest.raises(ArtifactError) as caught:
        load_samples(folder, other)
    assert str(caught.value) == (
        f"pairs of other faces, labels or splits: in {folder}, got {draw_frames().fingerprint()[:12]}, "
        f"expected {other.fingerprint()[:12]}; run sample-pairs again"
    )


def test_pairs_of_a_version_without_a_fingerprint(saved: tuple[Path, Frames]) -> None:
    folder, frames = saved
    counts = store.read_json(folder / "counts.json")
    store.write_json(folder / "counts.json", {"frames": 84, "pairs": counts["pairs"]})
    with pytest.raises(ArtifactError, match="pairs of other faces, labels or splits"):
        load_samples(folder, frames)


@pytest.mark.parametrize("key", ["video", "subject", "split", "frame", "ok", "labels", "videos", "subjects"])
def test_as_many_frames_of_other_faces_labels_or_splits(saved: tuple[Path, Frames], key: str) -> None:
    """Two faces that swap, a label or a split that changes: the count stays, the rows are others."""
    folder, frames = saved
    value = getattr(frames, key)
    changed = value[::-1] if isinstance(value, tuple) else np.roll(value, 1, axis=0)
    changed = np.arange(len(changed)) > 0 if key == "ok" else changed
    with pytest.raises(ArtifactError, match="pairs of other faces, labels or splits"):
        load_samples(folder, replace(frames, **{key: changed}))


@pytest.mark.parametrize("name", ["counts.json", "pairs.parquet", "groups.safetensors"])
def test_a_corrupt_or_missing_file_gets_one_line(saved: tuple[Path, Frames], name: str) -> None:
    folder, frames = saved
    (folder / name).write_bytes(b"\x80nonsense")
    with pytest.raises(ArtifactError) as caught:
        load_samples(folder, frames)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="missing file"):
        load_samples(folder, frames)


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    samples = draw_samples(draw_frames(), GROUPS, 0)
    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        samples.save(tmp_path / "pairs")
    assert list(tmp_path.iterdir()) == []


def test_the_training_set_from_files(tmp_path: Path) -> None:
    frames = draw_frames()
    faces = tmp_path / "faces"
    faces.mkdir()
    jpeg = store.encode_jpeg(np.full((32, 32, 3), 128, np.uint8))
    for name in frames.videos:
        write_faces(faces / f"{name}.arrow", [jpeg] * LENGTH)
    table = {
        "video": np.array(frames.videos)[frames.video], "subject": np.array(frames.subjects)[frames.subject],
        "split": np.array(SPLITS)[frames.split], "frame": frames.frame,
        "time": frames.time, **{au: frames.labels[:, a] for a, au in enumerate(AFFWILD2)},
    }  # fmt: skip
    store.write_table(tmp_path / "labels.parquet", pa.table(table))
    draw_samples(frames, GROUPS, 0).save(tmp_path / "pairs")
    store.write_table(tmp_path / "empty.parquet", pa.table(table)[:0])
    with pytest.raises(
        ArtifactError, match=r"there is no label: in .*empty\.parquet, got an empty table; run check-data again"
    ):
        load_training_set(tmp_path / "empty.parquet", faces, tmp_path / "pairs")
    data = load_training_set(tmp_path / "labels.parquet", faces, tmp_path / "pairs")
    assert (data.frames.labels == frames.labels).all()
    assert data.images.size == 32
    assert list(data.training_masks()) == ["final", "fold0", "fold1"]
