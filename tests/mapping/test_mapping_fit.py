"""The mapping learns a toy rule, draws in balance, keeps each network's best epoch, and stays out of validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.features import Features
from aupair.mapping.fit import Mapping, _balanced_loss, _draw, _draw_probability, mapping_batches, take_mapping_step
from aupair.mapping.networks import MappingNetworks
from mapping.toy import FEATURES, FRAMES, PARAMS, PLAIN, F, fit, make


@pytest.fixture(scope="module")
def fitted() -> tuple[Mapping, list[dict[str, float]]]:
    return fit(FRAMES, FEATURES, PARAMS.model_copy(update={"epochs": 12}), 0)


def test_it_learns_what_its_columns_tell(fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    mapping, curves = fitted
    rows = FRAMES.of_split("validation") & FRAMES.usable
    with_uncertainty, without = mapping(FEATURES[rows])
    right = [(np.floor(out + 0.5) == FRAMES.labels[rows]).mean(axis=0) for out in (with_uncertainty, without)]
    assert right[0].min() > 0.9
    assert right[1][1::2].min() > 0.9
    assert right[1][0::2].max() < 0.75  # the column that tells is not among its own
    assert curves[-1]["train_loss"] < 0.5 * curves[0]["train_loss"]
    assert [row["epoch"] for row in curves] == list(range(1, 13))
    assert set(curves[0]) == {"epoch", "train_loss", "select_loss"}


def test_levels_of_intensity() -> None:
    frames, features = make(levels=4)
    mapping, _ = fit(frames, features, PARAMS.model_copy(update={"epochs": 16, "width": 32}), 0)
    rows = frames.of_split("validation") & frames.usable
    error = np.abs(mapping(features[rows])[0] - frames.labels[rows]).mean()
    assert error < 0.5
    assert np.nanmax(mapping(features[rows])[0]) > 2.5  # unclamped levels, not 0..1


def test_without_is_blind_to_uncertainty_columns(fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    mapping, _ = fitted
    rows = FRAMES.ok
    other = FEATURES[rows].copy()
    other[..., ~PLAIN] = -other[..., ~PLAIN] + 1
    one, two = mapping(FEATURES[rows]), mapping(other)
    np.testing.assert_array_equal(one[1], two[1])
    assert not np.allclose(one[0], two[0])


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


def test_validation_leaves_no_trace() -> None:
    hidden = FRAMES.of_split("validation")
    features, labels = FEATURES.copy(), FRAMES.labels.copy()
    features[hidden] += 100
    labels[hidden & (labels[:, 0] >= 0)] = 1
    one, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    two, again = fit(replace(FRAMES, labels=labels), features, PARAMS, 0)
    np.testing.assert_array_equal(one(FEATURES), two(FEATURES))
    assert curves == again


def test_standardised_on_usable_fit_frames(fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    rows = FRAMES.of_split("fit") & FRAMES.usable
    networks = fitted[0].networks
    np.testing.assert_allclose(networks.center.numpy(), FEATURES[rows].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(networks.scale.numpy(), FEATURES[rows].std(axis=0), rtol=1e-5)


def test_each_network_keeps_its_own_best_epoch() -> None:
    """The kept loss is the smallest of each network's own, so that its mean is not above the best mean."""
    params = PARAMS.model_copy(update={"learning_rate": 0.1, "dropout": 0.5, "epochs": 6})
    mapping, curves = fit(FRAMES, FEATURES, params, 0)
    rows = np.flatnonzero(FRAMES.usable & FRAMES.of_split("select"))
    weight = _draw_probability(FRAMES.labels[rows], FRAMES.video[rows]).astype(np.float32)
    kept = float(_balanced_loss(mapping.networks, Features(FEATURES, PLAIN), FRAMES, rows, weight).mean())
    seen = [row["select_loss"] for row in curves]
    assert kept <= min(seen) + 1e-6
    assert kept < seen[-1]


def test_rows_without_a_face_give_nan(fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
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


def test_batches_cut_all_draws() -> None:
    y = torch.arange(2 * 10).reshape(2, 10)
    parts = list(mapping_batches(y[..., None] + torch.arange(3), y, 4))
    assert [tuple(part.shape) for _, part in parts] == [(2, 4), (2, 4), (2, 2)]
    assert torch.equal(torch.cat([part for _, part in parts], dim=1), y)
    assert all(torch.equal(x[..., 0], part) for x, part in parts)


def make_networks() -> MappingNetworks:
    torch.manual_seed(0)
    return MappingNetworks(torch.from_numpy(PLAIN), torch.zeros(12, F), torch.ones(12, F), 8, 0.0)


def test_a_step_is_l1_of_each_network_by_itself() -> None:
    networks, rng = make_networks(), np.random.default_rng(0)
    rows, each = rng.choice(np.flatnonzero(FRAMES.usable), (12, 5)), np.arange(12)[:, None]
    x, y = torch.from_numpy(FEATURES[rows, each]), torch.from_numpy(FRAMES.labels[rows, each].astype(np.float32))
    terms = []
    with torch.no_grad():
        for au in range(12):
            out = networks(x[au].expand(12, -1, -1))[:, au]
            terms.append((out - y[au]).abs().mean(dim=1))
    expected = float(torch.stack(terms).mean())
    optimiser = torch.optim.SGD(networks.parameters(), lr=1e-3)
    assert take_mapping_step(networks, optimiser, x, y) == pytest.approx(expected, rel=1e-5)
    assert take_mapping_step(networks, optimiser, x, y) < expected


def test_balanced_loss_equals_a_loop() -> None:
    networks = make_networks()
    rows = np.flatnonzero(FRAMES.usable)[:20]
    y, weight = FRAMES.labels[rows], np.random.default_rng(0).random((12, 20)).astype(np.float32)
    got = _balanced_loss(networks, Features(FEATURES, PLAIN), FRAMES, rows, weight)
    out = Mapping(networks, 8)(FEATURES[rows])
    for variant in range(2):
        for au in range(12):
            errors = [float(weight[au, n]) * abs(float(out[variant][n, au]) - y[n, au]) for n in range(20)]
            assert float(got[variant, au]) == pytest.approx(sum(errors) / float(weight[au].sum()), rel=1e-4)


def test_round_trip(tmp_path: Path, fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    mapping, curves = fitted
    mapping.save(tmp_path / "mapping", curves)
    about = store.read_json(tmp_path / "mapping" / "about.json")
    assert about.pop("loss") == "l1"
    store.write_json(tmp_path / "mapping" / "about.json", about)  # as files of before
    loaded = Mapping.load(tmp_path / "mapping")
    np.testing.assert_array_equal(loaded(FEATURES), mapping(FEATURES))
    assert loaded.width == 16
    assert store.read_jsonl(tmp_path / "mapping" / "curves.jsonl") == curves


@pytest.mark.parametrize("name", ["mapping.safetensors", "about.json"])
def test_a_corrupt_or_missing_file_gets_one_line(
    tmp_path: Path, fitted: tuple[Mapping, list[dict[str, float]]], name: str
) -> None:
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


def test_weights_of_another_width(tmp_path: Path, fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    fitted[0].save(tmp_path / "mapping", [])
    about = store.read_json(tmp_path / "mapping" / "about.json")
    store.write_json(tmp_path / "mapping" / "about.json", {**about, "width": 17})
    with pytest.raises(ArtifactError) as caught:
        Mapping.load(tmp_path / "mapping")
    assert str(caught.value).startswith(
        f"weights do not fit their network: in {tmp_path / 'mapping'}, got size mismatch"
    )
    assert "\n" not in str(caught.value)


def test_nothing_half_written(
    tmp_path: Path, fitted: tuple[Mapping, list[dict[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        fitted[0].save(tmp_path / "mapping", [])
    assert list(tmp_path.iterdir()) == []
