"""The ways to train f beside the paper's: one image at a time, and a trunk with a second head for sigma."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from aupair.aus import AFFWILD2
from aupair.errors import ParamsError
from aupair.log import SILENT
from aupair.params import Params, parse_params
from aupair.ranking.ensemble import load_ensemble
from aupair.ranking.fit import CHUNK, forward_all
from aupair.ranking.losses import PairBatch, level_loss
from aupair.ranking.networks import FLOOR, AUNetwork, second_head_sigma
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights
from aupair.ranking.pseudo_intensity import integrated_loss, train_f
from aupair.ranking.samples import TrainingSet
from aupair.ranking.scores import Scorer, load_f, read_sigma, save_f, save_h
from aupair.ranking.uncertainty import train_h
from training_sets import NARROW, SIZE, Faces, small_training_set

CPU = torch.device("cpu")


def make_faces(levels: np.ndarray) -> Faces:
    """Return faces whose right half is as bright as the level, and whose left half is noise."""
    pixels = np.random.default_rng(1).integers(0, 100, (len(levels), SIZE, SIZE, 3))
    pixels[:, :, SIZE // 2 :] = 40 + 40 * levels[:, None, None, None].clip(0)
    return Faces(pixels)


def make_data(levels: int = 2, folds: int = 2) -> TrainingSet:
    return small_training_set(lambda labels: make_faces(labels[:, 0]), levels, folds)


def make_params(steps: int = 3, uncertainty: str = "network", **changes: Any) -> Params:
    network = {**NARROW, "dropout": 0.0, "sharing": "integrated" if uncertainty == "integrated" else "shared"}
    optimiser = {
        "name": "adamw", "learning_rate": 3e-3, "steps": steps, "fold_steps": 2, "batch": 18, "evaluate_every": steps,
        "keep": "last",
    }  # fmt: skip
    f = {"network": network, "optimiser": optimiser, "augment": 0.0, "device": "cpu", **changes}
    h = {"kind": uncertainty, "device": "cpu"}
    return parse_params({"train_pseudo_intensity": f, "train_uncertainty": h})


@pytest.mark.parametrize("levels", [2, 6])
def test_the_loss_of_single_images_equals_a_loop(levels: int) -> None:
    rng = np.random.default_rng(0)
    outputs, truth = rng.normal(size=(9, 12)), rng.integers(-1, levels, (9, 12))
    terms = []
    for value, level in zip(outputs.ravel(), truth.ravel()):
        if level < 0:
            continue
        p = 1 / (1 + math.exp(-value))
        terms.append(-math.log(p if level else 1 - p) if levels == 2 else (value - level) ** 2)
    got = level_loss(torch.from_numpy(outputs), torch.from_numpy(truth), binary=levels == 2)
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("levels", [2, 6])
def test_single_images_are_graded_and_no_pair_is_used(levels: int) -> None:
    data = make_data(levels)
    result = train_f(data, make_params(steps=60, objective="single"), 0)
    scored = data.frames.usable & data.frames.of_split("validation")
    assert (
        np.corrcoef(result.y_hat["final"][scored, 0], data.frames.labels[scored, 0])[0, 1] > 0.7
    )  # AU1 is the brightness
    turned = {name: Pairs(p.i, p.j, p.au, -p.r) for name, p in data.pairs.items()}
    other = train_f(
        TrainingSet(data.frames, data.images, data.groups, turned, data.folds), make_params(60, objective="single"), 0
    )
    np.testing.assert_array_equal(result.y_hat["final"], other.y_hat["final"])


def test_the_integrated_loss_equals_a_loop_and_leaves_the_values_to_the_order() -> None:
    rng = np.random.default_rng(0)
    labels, video = rng.integers(0, 2, (8, 12)).astype(np.int8), np.repeat([0, 1], 4)
    pairs = all_pairs(labels, video)
    weight = cell_weights(pairs, video)
    outputs = torch.from_numpy(rng.normal(size=(8, 24))).requires_grad_(True)
    loss = integrated_loss(outputs, PairBatch.from_pairs(pairs, weight), margin=0.9, uncertainty_weight=0.7)
    values = outputs.detach().numpy()
    sigma = FLOOR + np.log1p(np.exp(values[:, 12:] + 0.54))
    total = 0.7 * 1e-3 * float((np.log(sigma) ** 2).mean())
    for i, j, au, r, w in zip(pairs.i, pairs.j, pairs.au, pairs.r, weight):
        d = r * (values[i, au] - values[j, au])
        s = math.sqrt(sigma[i, au] ** 2 + sigma[j, au] ** 2 + 1e-6)
        total += w * (max(0.0, 0.9 - d) - 0.7 * norm.logcdf(d / s))
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    loss.backward()
    assert outputs.grad is not None
    alone = outputs.detach().clone().requires_grad_(True)
    integrated_loss(alone, PairBatch.from_pairs(pairs, weight), margin=0.9, uncertainty_weight=0.0).backward()
    assert alone.grad is not None
    torch.testing.assert_close(outputs.grad[:, :12], alone.grad[:, :12])
    assert float(outputs.grad[:, 12:].abs().max()) > 0
    assert float(alone.grad[:, 12:].abs().max()) == 0


@pytest.fixture(scope="module")
def integrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, Path, np.ndarray]:
    """Return an integrated f and its h as files, and the quality of the faces, which is not used."""
    data, params, folder = make_data(), make_params(uncertainty="integrated"), tmp_path_factory.mktemp("trial")
    save_f(folder / "f", train_f(data, params, 0), params, SIZE, AFFWILD2)
    quality = np.random.default_rng(0).random((len(data.frames), 3)).astype(np.float32)
    ensemble = load_ensemble([folder / "f"], len(data.frames), "all")
    h = train_h(data, ensemble, quality, lambda member: load_f(folder / "f", member.name), params, 0)
    save_h(folder / "h", h, params, SIZE, AFFWILD2)
    assert h.curves == []
    return data, folder, quality


def test_second_heads_give_sigma_in_the_unit_of_y_hat_out_of_fold(
    integrated: tuple[TrainingSet, Path, np.ndarray],
) -> None:
    data, folder, _ = integrated
    sigma = read_sigma(folder / "h", len(data.frames), "unguarded")
    assert (np.isnan(sigma).any(axis=1) == ~data.frames.ok).all()
    fit, of_new = data.frames.of_split("fit"), []
    new = np.flatnonzero(~fit & data.frames.ok)
    for name, trained in data.training_masks().items():
        model, _, scale = load_f(folder / "f", name)

        def own(rows: np.ndarray, model: Any = model, scale: np.ndarray = scale) -> np.ndarray:
            outputs = torch.from_numpy(forward_all(model, data.images, rows, CPU, SILENT))
            return np.log(second_head_sigma(outputs).numpy() / scale)

        of_new.append(own(new))
        if name != "final":
            rows = np.flatnonzero(fit & ~trained & data.frames.ok)
            np.testing.assert_allclose(np.log(sigma[rows]), own(rows), atol=1e-4)
    np.testing.assert_allclose(np.log(sigma[new]), np.mean(of_new, axis=0), atol=1e-4)


def test_the_scorer_takes_both_from_one_pass(
    integrated: tuple[TrainingSet, Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder, quality = integrated
    ensemble = load_ensemble([folder / "f"], len(data.frames), "all")
    scorer = Scorer([folder / "f"], folder / "h", ensemble.members, "cpu")
    rows = np.flatnonzero(data.frames.ok & data.frames.of_split("validation"))
    passes, forward = [], AUNetwork.forward
    monkeypatch.setattr(AUNetwork, "forward", lambda self, x: passes.append(self) or forward(self, x))
    y_hat, sigma, _ = scorer(data.images(rows)[:CHUNK], quality[rows][:CHUNK])
    assert len(passes) == 3
    np.testing.assert_array_equal(y_hat, ensemble.y_hat[rows][:CHUNK])
    np.testing.assert_array_equal(sigma, read_sigma(folder / "h", len(data.frames))[rows][:CHUNK])


@pytest.mark.parametrize(
    ("f", "h"),
    [
        ({"network": {"sharing": "integrated"}}, {}),
        ({}, {"kind": "integrated"}),
    ],
)
def test_integrated_is_set_in_both_sections_or_in_none(f: dict[str, Any], h: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="`integrated` in both"):
        parse_params({"train_pseudo_intensity": f, "train_uncertainty": h})


def test_a_network_of_h_has_one_head() -> None:
    with pytest.raises(ParamsError, match=r"train_uncertainty\.network\.sharing.*expected 'shared' or 'per_au'"):
        parse_params({"train_uncertainty": {"network": {"sharing": "integrated"}}})
