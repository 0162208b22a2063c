"""The mapping learns a toy rule from balanced draws, without validation, and has each network's best weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.features import Features
from aupair.mapping.fit import Mapping, _balanced_loss, _draw, _draw_probability
from mapping.toy import FEATURES, FRAMES, PARAMS, PLAIN, fit, make

Fitted = tuple[Mapping, list[dict[str, float]]]


@pytest.fixture(scope="module", params=["l1", "cross_entropy"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return fit(FRAMES, FEATURES, PARAMS.model_copy(update={"loss": request.param, "epochs": 12}), 0)


def test_it_learns_from_its_columns_alone(fitted: Fitted) -> None:
    mapping, curves = fitted
    rows = FRAMES.of_split("validation") & FRAMES.usable
    outs = mapping(FEATURES[rows])
    right = [((out >= 0.5) == FRAMES.labels[rows]).mean(axis=0) for out in outs]
    assert right[0].min() > 0.9
    assert right[1][1::2].min() > 0.9
    assert right[1][0::2].max() < 0.75  # its columns lack the one that determines the level
    assert curves[-1]["train_loss"] < 0.5 * curves[0]["train_loss"] < 0.5 * 1.2 * np.log(2)
    assert [row["epoch"] for row in curves] == list(range(1, 13))
    assert set(curves[0]) == {"epoch", "train_loss", "select_loss"}
    if mapping.networks.outputs > 1:
        assert all(out.min() >= 0 and out.max() <= 1 for out in outs), "expected levels"


@pytest.mark.parametrize(("loss", "levels", "epochs"), [("l1", 4, 16), ("cross_entropy", 5, 20)])
def test_levels_of_intensity_of_which_one_never_occurs(loss: str, levels: int, epochs: int) -> None:
    frames, features = make(levels)
    params = PARAMS.model_copy(update={"loss": loss, "epochs": epochs, "width": 32})
    mapping, _ = fit(frames, features, params, 0, levels + 1)
    rows = frames.of_split("validation") & frames.usable
    out = mapping(features[rows])[0]
    assert np.abs(out - frames.labels[rows]).mean() < 0.5
    assert np.nanmax(out) > levels - 1.5  # unclamped levels, not 0..1


def test_l1_does_not_depend_on_the_number_of_levels() -> None:
    one, two = (fit(FRAMES, FEATURES, PARAMS, 0, levels)[0].networks.state_dict() for levels in (2, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_labels_of_another_target_are_one_line() -> None:
    frames, features = make(levels=4)
    with pytest.raises(
        ArtifactError, match="a level beyond the target's, got 3, expected 0 to 1; run check-data again"
    ):
        fit(frames, features, PARAMS.model_copy(update={"loss": "cross_entropy"}), 0, levels=2)


def test_without_is_trained_the_same_whatever_sigma_says() -> None:
    other = FEATURES.copy()
    other[..., ~PLAIN] = other[..., ~PLAIN][::-1] * 2
    other[np.isnan(FEATURES[:, 0, 0])] = np.nan
    other = np.where(np.isnan(other) & ~np.isnan(FEATURES), 0.0, other).astype(np.float32)
    params = PARAMS.model_copy(update={"dropout": 0.0, "epochs": 2})
    one, _ = fit(FRAMES, FEATURES, params, 0)
    two, _ = fit(FRAMES, other, params, 0)
    np.testing.assert_allclose(one(FEATURES)[1], two(FEATURES)[1], atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two, again = fit(FRAMES, FEATURES, PARAMS, 0)
    np.testing.assert_array_equal(one(FEATURES), two(FEATURES))
    assert curves == again
    other, _ = fit(FRAMES, FEATURES, PARAMS, 1)
    assert not np.allclose(one(FEATURES[FRAMES.ok])[0], other(FEATURES[FRAMES.ok])[0])


def test_validation_does_not_change_the_weights() -> None:
    hidden = FRAMES.of_split("validation")
    features, labels = FEATURES.copy(), FRAMES.labels.copy()
    features[hidden] += 100
    labels[hidden & (labels[:, 0] >= 0)] = 1
    one, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    two, again = fit(replace(FRAMES, labels=labels), features, PARAMS, 0)
    np.testing.assert_array_equal(one(FEATURES), two(FEATURES))
    assert curves == again


@pytest.mark.parametrize("loss", ["l1", "cross_entropy"])
def test_each_network_has_the_weights_of_its_own_best_epoch(loss: str) -> None:
    """Each network's loss is its smallest, so that their mean is not above the mean of any epoch."""
    params = PARAMS.model_copy(update={"loss": loss, "learning_rate": 0.1, "dropout": 0.5, "epochs": 6})
    mapping, curves = fit(FRAMES, FEATURES, params, 0)
    rows = np.flatnonzero(FRAMES.usable & FRAMES.of_split("select"))
    weight = _draw_probability(FRAMES.labels[rows], FRAMES.video[rows]).astype(np.float32)
    best = float(_balanced_loss(mapping.networks, Features(FEATURES, PLAIN), FRAMES, rows, weight).mean())
    losses = [row["select_loss"] for row in curves]
    assert best <= min(losses) + 1e-6
    assert best < losses[-1]


def test_rows_without_a_face_give_nan(fitted: Fitted) -> None:
    for out in fitted[0](FEATURES):
        assert out.shape == (len(FRAMES), 12)
        assert out.dtype == np.float32
        assert (np.isnan(out).all(axis=1) == ~FRAMES.ok).all()
        assert (np.isnan(out).any(axis=1) == ~FRAMES.ok).all()
    assert fitted[0](FEATURES[:0])[0].shape == (0, 12)


def test_probabilities_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (60, 3)).astype(np.int8)
    labels[:, 2] = 1  # an AU of one level
    video = np.sort(rng.integers(0, 4, 60)).astype(np.int32)
    got = _draw_probability(labels, video)
    for au in range(3):
        levels = sorted(set(labels[:, au].tolist()))
        for n in range(60):
            same_level = [k for k in range(60) if labels[k, au] == labels[n, au]]
            videos = {int(video[k]) for k in same_level}
            same_cell = [k for k in same_level if video[k] == video[n]]
            assert got[au, n] == pytest.approx(1 / len(levels) / len(videos) / len(same_cell))
    np.testing.assert_allclose(got.sum(axis=1), 1)


def test_draws_follow_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 2)) < 0.1).astype(np.int8)
    labels[0] = 1
    probability = _draw_probability(labels, np.repeat([0, 1], 25).astype(np.int32))
    drawn = _draw(probability, 20000, np.random.default_rng(1))
    assert drawn.shape == (2, 20000)
    for au in range(2):
        counts = np.bincount(drawn[au], minlength=50)
        assert chisquare(counts, probability[au] * 20000).pvalue > 1e-3
        assert abs(labels[drawn[au], au].mean() - 0.5) < 0.02  # rare positives are half of the draws
    none = np.array([[0.0, 0.5, 0.0, 0.5, 0.0]])
    assert set(np.unique(_draw(none, 1000, rng)).tolist()) == {1, 3}


def test_round_trip(tmp_path: Path, fitted: Fitted) -> None:
    mapping, curves = fitted
    mapping.save(tmp_path / "mapping", curves)
    about = store.read_json(tmp_path / "mapping" / "about.json")
    if mapping.networks.outputs == 1:
        assert about.pop("loss") == "l1"
        store.write_json(tmp_path / "mapping" / "about.json", about)  # as in older files
    else:
        assert (about["loss"], about["levels"]) == ("cross_entropy", 2)
    loaded = Mapping.load(tmp_path / "mapping")
    np.testing.assert_array_equal(loaded(FEATURES), mapping(FEATURES))
    assert loaded.networks.width == 16
    assert store.read_jsonl(tmp_path / "mapping" / "curves.jsonl") == curves


@pytest.mark.parametrize("name", ["mapping.safetensors", "about.json"])
def test_corrupt_or_missing_file_raises_a_one_line_error(tmp_path: Path, fitted: Fitted, name: str) -> None:
    fitted[0].save(tmp_path / "mapping", [])
    path = tmp_path / "mapping" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError) as caught:
        Mapping.load(tmp_path / "mapping")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing file"):
        Mapping.load(tmp_path / "mapping")


@pytest.mark.parametrize("change", [{"width": 17}, {"loss": "cross_entropy", "levels": 6}])
def test_weights_of_another_network(tmp_path: Path, fitted: Fitted, change: dict[str, object]) -> None:
    fitted[0].save(tmp_path / "mapping", [])
    about = store.read_json(tmp_path / "mapping" / "about.json")
    store.write_json(tmp_path / "mapping" / "about.json", about | change)
    with pytest.raises(ArtifactError) as caught:
        Mapping.load(tmp_path / "mapping")
    path = tmp_path / "mapping" / "mapping.safetensors"
    assert str(caught.value).startswith(f"weights do not fit their network: in {path}, got size mismatch")
    assert "\n" not in str(caught.value)


def test_nothing_half_written(tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        fitted[0].save(tmp_path / "mapping", [])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_label_of_one_au_changes_no_other() -> None:
    frames = replace(FRAMES, labels=FRAMES.labels.copy())
    rng = np.random.default_rng(3)
    for video in range(4):
        frames.labels[frames.video == video, 3] = np.where(
            rng.random(40) < 0.7, -1, frames.labels[frames.video == video, 3]
        )
    probability, whole = (_draw_probability(f.labels, f.video) for f in (frames, FRAMES))
    assert (probability[3] > 0).tolist() == (frames.labels[:, 3] >= 0).tolist()
    others = [au for au in range(12) if au != 3]
    np.testing.assert_array_equal(probability[others], whole[others])
    draws = _draw(probability, 500, np.random.default_rng(0))
    assert (frames.labels[draws, np.arange(12)[:, None]] >= 0).all(), "no draw of a frame without the label"


@pytest.mark.parametrize("loss", ["l1", "cross_entropy"])
def test_sparse_labels_are_enough_and_an_au_without_labels_in_select_is_fitted(loss: str) -> None:
    labels = np.where(np.random.default_rng(4).random(FRAMES.labels.shape) < 0.5, -1, FRAMES.labels)
    labels[FRAMES.of_split("select"), 1] = -1
    frames = replace(FRAMES, labels=labels)
    mapping, curves = fit(frames, FEATURES, PARAMS.model_copy(update={"loss": loss, "epochs": 12}), 0)
    rows = FRAMES.of_split("validation") & FRAMES.usable
    right = ((mapping(FEATURES[rows])[0] >= 0.5) == FRAMES.labels[rows]).mean(axis=0)
    assert right.min() > 0.85
    assert all(np.isfinite(row["select_loss"]) for row in curves)
    assert mapping.aus == frames.aus


@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_aus(count: int, tmp_path: Path) -> None:
    columns = [k % 12 for k in range(count)]
    frames = replace(FRAMES, aus=tuple(f"X{k}" for k in range(count)), labels=FRAMES.labels[:, columns])
    mapping, curves = fit(frames, FEATURES[:, columns], PARAMS.model_copy(update={"epochs": 1}), 0)
    mapping.save(tmp_path / "m", curves)
    loaded = Mapping.load(tmp_path / "m")
    assert loaded.aus == frames.aus
    np.testing.assert_array_equal(loaded(FEATURES[:, columns]), mapping(FEATURES[:, columns]))
