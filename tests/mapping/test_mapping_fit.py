"""The mapping learns a toy rule from balanced draws, without validation, and has each network's best weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aupair.errors import ArtifactError
from aupair.mapping.features import Features
from aupair.mapping.fit import _balanced_loss, _draw, _draw_probability, fit_mappings
from aupair.mapping.model import Mapping
from mapping.toy import FEATURES, FRAMES, PARAMS, SEEDS, fit, make, outputs, split_routes

Fitted = tuple[Mapping, list[dict[str, float]]]


@pytest.fixture(scope="module", params=["l1", "cross_entropy"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return fit(FRAMES, FEATURES, PARAMS.model_copy(update={"loss": request.param, "epochs": 12}), 0)


def test_it_learns_from_its_columns_alone(fitted: Fitted) -> None:
    mapping, curves = fitted
    rows = FRAMES.of_split("validation") & FRAMES.usable
    outs = outputs(mapping, FEATURES[rows])
    right = [((out >= 0.5) == FRAMES.labels[rows]).mean(axis=0) for out in outs]
    assert right[1].min() > 0.9
    assert right[0][1::2].min() > 0.9
    assert right[0][0::2].max() < 0.75  # its columns lack the one that determines the level
    assert curves[-1]["both.train_loss"] < 0.5 * curves[0]["both.train_loss"] < 0.5 * 1.2 * np.log(2)
    assert [row["epoch"] for row in curves] == list(range(1, 13))
    assert set(curves[0]) == {"epoch", "raw.train_loss", "raw.select_loss", "both.train_loss", "both.select_loss"}
    if mapping.networks["raw"].outputs > 1:
        assert all(out.min() >= 0 and out.max() <= 1 for out in outs), "expected levels"


@pytest.mark.parametrize(("loss", "levels", "epochs"), [("l1", 4, 16), ("cross_entropy", 5, 20)])
def test_levels_of_intensity_of_which_one_never_occurs(loss: str, levels: int, epochs: int) -> None:
    frames, features = make(levels)
    params = PARAMS.model_copy(update={"loss": loss, "epochs": epochs, "width": 32})
    mapping, _ = fit(frames, features, params, 0, levels + 1)
    rows = frames.of_split("validation") & frames.usable
    out = outputs(mapping, features[rows])[1]
    assert np.abs(out - frames.labels[rows]).mean() < 0.5
    assert np.nanmax(out) > levels - 1.5  # unclamped levels, not 0..1


def test_l1_does_not_depend_on_the_number_of_levels() -> None:
    one, two = (fit(FRAMES, FEATURES, PARAMS, 0, levels)[0].networks["both"].state_dict() for levels in (2, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_labels_of_another_target_are_one_line() -> None:
    frames, features = make(levels=4)
    with pytest.raises(
        ArtifactError, match="a level beyond the target's, got 3, expected 0 to 1; run check-data again"
    ):
        fit(frames, features, PARAMS.model_copy(update={"loss": "cross_entropy"}), 0, levels=2)


def test_a_route_is_trained_the_same_whatever_the_others_are() -> None:
    other = FEATURES.copy()
    other[..., 4:] *= 2
    one, two = (fit(FRAMES, array, PARAMS, 0)[0] for array in (FEATURES, other))
    np.testing.assert_array_equal(outputs(one, FEATURES)[0], outputs(two, other)[0])
    frames = {"both": Features(FEATURES)}
    alone, _ = fit_mappings(FRAMES, frames, 2, PARAMS, 0)
    np.testing.assert_array_equal(alone({"both": FEATURES})["both"], outputs(one, FEATURES)[1])


def test_the_mapping_is_the_mean_of_networks_that_differ(fitted: Fitted) -> None:
    mapping, _ = fitted
    rows = FRAMES.ok
    with torch.no_grad():
        each = mapping.networks["both"](torch.from_numpy(FEATURES[rows].swapaxes(0, 1))).numpy()
    assert each.shape == (SEEDS, 12, rows.sum())
    np.testing.assert_allclose(outputs(mapping, FEATURES[rows])[1].T, each.mean(axis=0), atol=1e-5)
    assert all(np.abs(each[0, au] - each[1, au]).max() > 1e-3 for au in range(12))


def test_each_seed_has_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    original = Features.of_each_au

    def spy(self: Features, rows: np.ndarray) -> np.ndarray:
        drawn.append(rows)
        return original(self, rows)

    monkeypatch.setattr(Features, "of_each_au", spy)
    fit(FRAMES, FEATURES, PARAMS.model_copy(update={"epochs": 1}), 0)
    raw, both = drawn
    assert raw.shape == (SEEDS, 12, PARAMS.draws)
    assert (raw[0] != raw[1]).any(axis=1).all()
    np.testing.assert_array_equal(raw, both)  # so that routes are compared on the same draws


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two, again = fit(FRAMES, FEATURES, PARAMS, 0)
    np.testing.assert_array_equal(outputs(one, FEATURES), outputs(two, FEATURES))
    assert curves == again
    other, _ = fit(FRAMES, FEATURES, PARAMS, 1)
    assert not np.allclose(outputs(one, FEATURES[FRAMES.ok]), outputs(other, FEATURES[FRAMES.ok]))


def test_validation_does_not_change_the_weights() -> None:
    hidden = FRAMES.of_split("validation")
    features, labels = FEATURES.copy(), FRAMES.labels.copy()
    features[hidden] += 100
    labels[hidden & (labels[:, 0] >= 0)] = 1
    one, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    two, again = fit(replace(FRAMES, labels=labels), features, PARAMS, 0)
    np.testing.assert_array_equal(outputs(one, FEATURES), outputs(two, FEATURES))
    assert curves == again


@pytest.mark.parametrize("loss", ["l1", "cross_entropy"])
def test_each_network_has_the_weights_of_its_own_best_epoch(loss: str) -> None:
    """Each network's loss is its smallest, so that their mean is not above the mean of any epoch."""
    params = PARAMS.model_copy(update={"loss": loss, "learning_rate": 0.1, "dropout": 0.5, "epochs": 6})
    mapping, curves = fit(FRAMES, FEATURES, params, 0)
    rows = np.flatnonzero(FRAMES.usable & FRAMES.of_split("select"))
    weight = _draw_probability(FRAMES.labels[rows], FRAMES.video[rows]).astype(np.float32)
    best = float(_balanced_loss(mapping.networks["both"], Features(FEATURES), FRAMES, rows, weight).mean())
    losses = [row["both.select_loss"] for row in curves]
    assert best <= min(losses) + 1e-6
    assert best < losses[-1]


def test_rows_without_a_face_give_nan(fitted: Fitted) -> None:
    for out in fitted[0](split_routes(FEATURES)).values():
        assert out.shape == (len(FRAMES), 12)
        assert out.dtype == np.float32
        assert (np.isnan(out).all(axis=1) == ~FRAMES.ok).all()
        assert (np.isnan(out).any(axis=1) == ~FRAMES.ok).all()
    assert outputs(fitted[0], FEATURES[:0]).shape == (2, 0, 12)


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
    right = ((outputs(mapping, FEATURES[rows])[1] >= 0.5) == FRAMES.labels[rows]).mean(axis=0)
    assert right.min() > 0.85
    assert all(np.isfinite(row["both.select_loss"]) for row in curves)
    assert mapping.aus == frames.aus


@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_aus(count: int, tmp_path: Path) -> None:
    columns = [k % 12 for k in range(count)]
    frames = replace(FRAMES, aus=tuple(f"X{k}" for k in range(count)), labels=FRAMES.labels[:, columns])
    mapping, curves = fit(frames, FEATURES[:, columns], PARAMS.model_copy(update={"epochs": 1}), 0)
    mapping.save(tmp_path / "m", curves)
    loaded = Mapping.load(tmp_path / "m")
    assert loaded.aus == frames.aus
    np.testing.assert_array_equal(outputs(loaded, FEATURES[:, columns]), outputs(mapping, FEATURES[:, columns]))
