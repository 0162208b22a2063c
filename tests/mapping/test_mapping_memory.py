"""Features are read from disk in parts, and the weights are those of training in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aupair.aus import AFFWILD2
from aupair.mapping import fit as module
from aupair.mapping.features import Features, open_features, write_features
from aupair.mapping.fit import _compute_moments, _draw, _draw_probability
from aupair.mapping.model import CHUNK
from aupair.mapping.networks import MappingNetworks
from aupair.params import DistributionFeatures, TrainMapping
from frame_sets import make_frames
from mapping.toy import FEATURES, FRAMES, PARAMS, SEEDS, F, fit, outputs, split_routes


def in_memory(params: TrainMapping, seed: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train with L1 on arrays; return the weights of each network's best epoch and the losses on `select`."""
    fits, selects = (np.flatnonzero(FRAMES.usable & FRAMES.of_split(s)) for s in ("fit", "select"))
    seen = FEATURES[fits]
    center, scale = (m(0, dtype=np.float64).astype(np.float32) for m in (seen.mean, seen.std))
    torch.manual_seed(seed)
    moments = torch.from_numpy(center), torch.from_numpy(np.maximum(scale, 1e-3))
    networks = MappingNetworks(*moments, params.width, params.dropout, seeds=SEEDS)
    rate, decay = params.learning_rate, params.weight_decay
    # fused, as fit's is: else the last bits differ
    optimiser = torch.optim.AdamW(networks.parameters(), lr=rate, weight_decay=decay, fused=True)
    x, y = torch.from_numpy(FEATURES), torch.from_numpy(FRAMES.labels.astype(np.float32))
    weight = torch.from_numpy(_draw_probability(FRAMES.labels[selects], FRAMES.video[selects]).astype(np.float32))
    generators, au = [np.random.default_rng([seed, 7, k]) for k in range(SEEDS)], torch.arange(12)[:, None]
    best, weights, curve = torch.full((SEEDS, 12), torch.inf), {}, []
    probability = _draw_probability(FRAMES.labels[fits], FRAMES.video[fits])
    for _ in range(params.epochs):
        drawn = fits[np.stack([_draw(probability, params.draws, rng) for rng in generators])]
        networks.train()
        for start in range(0, params.draws, params.batch):
            rows = torch.from_numpy(drawn[:, :, start : start + params.batch])
            optimiser.zero_grad()
            (networks(x[rows, au]) - y[rows, au]).abs().mean(dim=-1).sum().backward()
            optimiser.step()
        with torch.no_grad():
            error = (networks.eval()(x[selects].swapaxes(0, 1)) - y[selects].T).abs()
        loss = (error * weight).sum(dim=2) / weight.sum(dim=1)
        better = (loss < best).flatten()
        best = torch.minimum(best, loss)
        curve.append(float(loss.mean()))
        for name, value in networks.named_parameters():
            old = weights.setdefault(name, value.detach().clone())
            old[better] = value.detach()[better]
    return weights, curve


def test_the_weights_are_those_of_training_in_memory_to_the_bit() -> None:
    params = PARAMS.model_copy(update={"learning_rate": 0.03})  # so that the best epochs differ
    with torch.random.fork_rng(devices=[]):
        expected, curve = in_memory(params, 3)
    mapping, curves = fit(FRAMES, FEATURES, params, 3)
    weights = dict(mapping.networks["both"].named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert [row["both.select_loss"] for row in curves] == curve


def test_draws_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    monkeypatch.setattr(module, "INPUTS", SEEDS * 12 * F * PARAMS.batch * 3)
    parts, again = fit(FRAMES, FEATURES, PARAMS, 0)
    np.testing.assert_array_equal(outputs(parts, FEATURES), outputs(whole, FEATURES))
    assert curves == again


def test_the_loss_on_select_is_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, curves = fit(FRAMES, FEATURES, PARAMS, 0)
    monkeypatch.setattr(module, "ACTIVATIONS", SEEDS * 12 * PARAMS.width * 7)
    parts, again = fit(FRAMES, FEATURES, PARAMS, 0)
    np.testing.assert_array_equal(outputs(parts, FEATURES), outputs(whole, FEATURES))
    for one, two in zip(curves, again):
        assert one == pytest.approx(two, rel=1e-5)


def test_moments_are_numpys_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(3, 100, (9001, 12, F)).astype(np.float32)
    rows = np.flatnonzero(rng.random(9001) < 0.95)
    center, spread = _compute_moments(Features(array), rows)
    np.testing.assert_array_equal(center, array[rows].mean(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(spread, array[rows].std(axis=0, dtype=np.float64))


def test_rows_are_those_of_the_array() -> None:
    features, rng = Features(FEATURES), np.random.default_rng(0)
    rows = rng.integers(0, len(FRAMES), 50)  # in any order, some twice
    np.testing.assert_array_equal(np.concatenate(list(features.chunks(rows, 7))), FEATURES[rows])
    drawn = rng.integers(0, len(FRAMES), (12, 30))
    np.testing.assert_array_equal(features.of_each_au(drawn), FEATURES[drawn, np.arange(12)[:, None]])
    of_seeds = rng.integers(0, len(FRAMES), (3, 12, 30))
    np.testing.assert_array_equal(features.of_each_au(of_seeds), FEATURES[of_seeds, np.arange(12)[:, None]])
    assert (len(features), features.width) == (len(FRAMES), F)
    assert list(features.chunks(rows[:0])) == []


def test_mapping_all_equals_mapping_an_array() -> None:
    mapping, _ = fit(FRAMES, FEATURES, PARAMS, 0)
    times = 8 * CHUNK // len(FRAMES) + 2  # more than a chunk
    array = np.concatenate([FEATURES] * times)
    out = mapping.map_all({route: Features(values) for route, values in split_routes(array).items()})
    np.testing.assert_array_equal([out["raw"], out["both"]], outputs(mapping, array))
    empty = mapping.map_all({route: Features(values[:0]) for route, values in split_routes(array).items()})
    assert empty["raw"].shape == (0, 12)


def test_the_file_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    """Opening 60 MB of features and reading a few rows needs a small part of that memory."""
    n, params = 12_000, DistributionFeatures(windows=(1.0,), context_points=40, compare=())
    frames = make_frames((0, 0), np.zeros((n, 12)))
    y_hat = np.random.default_rng(0).normal(size=(n, len(AFFWILD2))).astype(np.float32)
    quality = np.full((n, 3), np.nan, np.float32)
    write_features(tmp_path / "features", frames, y_hat, np.ones_like(y_hat), quality, params)
    size = (tmp_path / "features" / "routes" / "both.npy").stat().st_size
    assert size > 50e6
    before = resident()
    features = open_features(tmp_path / "features", frames)["both"]
    (part,) = features.chunks(np.arange(n // 2 - 10, n // 2 + 10))
    assert np.isfinite(part).all()
    assert resident() - before < size / 10


def resident() -> int:
    """Return the memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
