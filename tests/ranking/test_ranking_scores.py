"""f and h as files: the scorer gives the numbers that training stored, whatever the batch; bad files in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aupair import store
from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.ensemble import Member, load_ensemble
from aupair.ranking.fit import forward_all
from aupair.ranking.networks import AUNetwork, Factors, build_factors, build_network
from aupair.ranking.pseudo_intensity import PseudoIntensity
from aupair.ranking.scores import Scorer, _shares_trunk, load_f, load_h, read_sigma, save_f, save_h
from aupair.ranking.uncertainty import Sigma, Uncertainty
from training_sets import NARROW, SIZE, Faces

COUNT, CPU = 41, torch.device("cpu")
NETWORK = NARROW
PARAMS = Params.model_validate(
    {"train_pseudo_intensity": {"network": NETWORK}, "train_uncertainty": {"network": NETWORK, "floor": 0.07}}
)
FACTORS = Params.model_validate({"train_uncertainty": {"kind": "factors", "floor": 0.07, "factors": 3, "block": 4}})
"""its section of f has full width: the trunk in a file of h is that of the f it was trained with"""


FACES = Faces(np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3)))


def make_factors(f: AUNetwork, seed: int) -> Factors:
    """Factors with a center, a scale and weights as after training."""
    factors, rng = build_factors(f, 4, 3, seed), np.random.default_rng(seed)
    with torch.no_grad():
        phi = factors.phi(torch.from_numpy(FACES.pixels).permute(0, 3, 1, 2).float())
        factors.center.copy_(phi.mean(0))
        factors.scale.copy_(phi.std(0) + 0.01)
        factors.down.copy_(torch.from_numpy(rng.normal(size=tuple(factors.down.shape))))
    return factors


def trained(kind: str = "network") -> tuple[PseudoIntensity, Uncertainty]:
    """f and h as training would give them, batch norms not at their start."""
    models = {
        name: build_network(PARAMS.train_pseudo_intensity.network, SIZE, k, 12)
        for k, name in enumerate(("final", "fold0"))
    }
    networks = {name: build_network(PARAMS.train_uncertainty.network, SIZE, 9 + k, 12) for k, name in enumerate(models)}
    for model in (*models.values(), *networks.values()):
        model.train()(torch.from_numpy(FACES.pixels[:8]).permute(0, 3, 1, 2).float())
    sigmas = {
        name: Sigma(
            make_factors(models[name], k) if kind == "factors" else networks[name], np.linspace(0.3, 2, 12), 0.07
        )
        for k, name in enumerate(models)
    }
    out = forward_all(models["final"], FACES, np.arange(COUNT), CPU)
    center, scale = np.median(out, axis=0), out.std(axis=0)
    y_hat, sigma = (out - center) / scale, forward_all(sigmas["final"], FACES, np.arange(COUNT), CPU)
    center_of, scale_of = {"final": center, "fold0": center * 2}, {"final": scale, "fold0": scale * 2}
    curves = [{"network": "f.final", "step": 1, "loss": float("nan")}]
    return PseudoIntensity(dict(models), center_of, scale_of, y_hat, curves), Uncertainty(sigmas, sigma, curves)


@pytest.fixture(scope="module", params=["network", "factors"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, PseudoIntensity, Uncertainty]:
    folder = tmp_path_factory.mktemp("trial")
    f, h = trained(request.param)
    save_f(folder / "f", f, PARAMS, SIZE, AFFWILD2)
    save_h(folder / "h", h, FACTORS if request.param == "factors" else PARAMS, SIZE, AFFWILD2)
    return folder / "f", folder / "h", f, h


@pytest.mark.parametrize("size", [1, 10, 32, COUNT])
def test_the_scorer_gives_what_training_stored(
    saved: tuple[Path, Path, PseudoIntensity, Uncertainty], size: int
) -> None:
    f, h, _, _ = saved
    scorer = Scorer([f], h, [Member(0, "final")], "cpu")
    parts = [scorer(FACES.pixels[start : start + size]) for start in range(0, COUNT, size)]
    y_hat, sigma = (np.concatenate([part[k] for part in parts]) for k in range(2))
    np.testing.assert_array_equal(y_hat, load_ensemble([f], COUNT, "all").y_hat)
    np.testing.assert_array_equal(sigma, read_sigma(h, COUNT))
    assert y_hat.dtype == sigma.dtype == np.float32
    assert (sigma.std(axis=0) > 1e-3).all()
    assert [part.shape for part in scorer(FACES.pixels[:0])] == [(0, len(AFFWILD2))] * 2


def convolutions_done(scorer: Scorer) -> int:
    """Return the number of convolutions that a chunk of faces takes."""
    done: list[nn.Module] = []
    layers = [layer for layer in scorer._networks.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, *_: done.append(layer)) for layer in layers]
    scorer(FACES.pixels[:7])
    for hook in hooks:
        hook.remove()
    return len(done)


def test_a_trunk_that_both_read_is_forwarded_once(
    saved: tuple[Path, Path, PseudoIntensity, Uncertainty], tmp_path: Path
) -> None:
    f, h, _, trained = saved
    if isinstance(trained.models["final"].network, AUNetwork):
        assert convolutions_done(Scorer([f], h, [Member(0, "final")], "cpu")) == 13 + 13
        return
    assert convolutions_done(Scorer([f], h, [Member(0, "final")], "cpu")) == 13
    other = Path(shutil.copytree(h, tmp_path / "h"))
    shutil.copy(h / "fold0.safetensors", other / "final.safetensors")
    scorer = Scorer([f], other, [Member(0, "final")], "cpu")
    assert convolutions_done(scorer) == 13 + 10, "ten in four blocks"
    y_hat, sigma = scorer(FACES.pixels)
    np.testing.assert_array_equal(y_hat, load_ensemble([f], COUNT, "all").y_hat)
    np.testing.assert_array_equal(sigma, forward_all(load_h(other), FACES, np.arange(COUNT), CPU))


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "21.bias"])
def test_a_trunk_that_differs_in_one_number_is_no_copy(name: str) -> None:
    f = build_network(PARAMS.train_pseudo_intensity.network, SIZE, 0, 12)
    factors = build_factors(f, 3, 2, 0)
    assert _shares_trunk(factors, f)
    value = factors.trunk.state_dict()[name]
    value[(-1,) * value.ndim].add_(1e-6)
    assert not _shares_trunk(factors, f)
    factors = build_factors(f, 3, 2, 0)
    factors.f = factors.f.model_copy(update={"shrink": 2})
    assert not _shares_trunk(factors, f), "the same weights, but other settings"


def test_every_network_comes_back_as_it_was(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f_path, h_path, f, h = saved
    for name in ("final", "fold0"):
        model, center, scale = load_f(f_path, name)
        for key, value in f.models[name].state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key
        np.testing.assert_array_equal(center, f.center[name])
        np.testing.assert_array_equal(scale, f.scale[name])
        loaded = load_h(h_path, name)
        assert isinstance(loaded.network, type(h.models[name].network))
        assert loaded.state_dict().keys() == h.models[name].state_dict().keys()
        assert loaded.floor == PARAMS.train_uncertainty.floor
        for key, value in h.models[name].state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


def test_files_can_be_read_by_a_person(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f, h, _, _ = saved
    about = json.loads((f / "about.json").read_text())
    assert about["aus"] == list(AFFWILD2)
    assert about["size"] == SIZE
    assert len(about["standardisation"]["final"]["center"]) == 12
    about = json.loads((h / "about.json").read_text())
    assert about["loss"] == "nll"
    assert ("trunk" in about) == (about["kind"] == "factors")
    assert store.read_jsonl(f / "curves.jsonl") == [{"network": "f.final", "step": 1, "loss": None}]


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    f, h = trained()
    save_f(tmp_path / "f", f, PARAMS, SIZE, AFFWILD2)
    save_h(tmp_path / "h", h, PARAMS, SIZE, AFFWILD2)
    return tmp_path / "f", tmp_path / "h"


@pytest.mark.parametrize("name", ["f/final.safetensors", "h/final.safetensors", "f/about.json"])
def test_a_corrupt_or_missing_file_gets_one_line(copied: tuple[Path, Path], name: str) -> None:
    f, h = copied
    path = f.parent / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ArtifactError) as caught:
        Scorer([f], h, [Member(0, "final")], "cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing file"):
        Scorer([f], h, [Member(0, "final")], "cpu")


def test_weights_of_another_network_get_one_line(copied: tuple[Path, Path]) -> None:
    f, h = copied
    wide = build_network(PARAMS.train_pseudo_intensity.network.model_copy(update={"width": 0.1}), SIZE, 0, 12)
    store.write_arrays(f / "final.safetensors", {k: v.numpy() for k, v in wide.state_dict().items()})
    with pytest.raises(ArtifactError) as caught:
        Scorer([f], h, [Member(0, "final")], "cpu")
    assert str(caught.value).startswith(f"weights do not fit their network: in {f / 'final.safetensors'}, got ")
    assert "\n" not in str(caught.value)


def test_scores_of_other_faces(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f, h, _, _ = saved
    with pytest.raises(
        ArtifactError, match=r"scores of other faces: in .*y_hat\.safetensors, got 41 frames, expected 40"
    ):
        load_ensemble([f], 40, "all")
    with pytest.raises(ArtifactError, match=r"scores of other faces: in .*sigma\.safetensors"):
        read_sigma(h, 42)


def test_factors_of_another_trunk_get_one_line(tmp_path: Path) -> None:
    f, h = trained("factors")
    save_f(tmp_path / "f", f, PARAMS, SIZE, AFFWILD2)
    save_h(tmp_path / "h", h, FACTORS, SIZE, AFFWILD2)
    about = store.read_json(tmp_path / "h" / "about.json")
    store.write_json(tmp_path / "h" / "about.json", {**about, "trunk": {**about["trunk"], "width": 0.1}})
    with pytest.raises(ArtifactError) as caught:
        Scorer([tmp_path / "f"], tmp_path / "h", [Member(0, "final")], "cpu")
    assert str(caught.value).startswith("weights do not fit their network: in ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 3, SIZE, SIZE), (2, SIZE, SIZE, 1)])
def test_faces_of_another_size(saved: tuple[Path, Path, PseudoIntensity, Uncertainty], shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"faces of another size, got .*expected \(n, 32, 32, 3\)"):
        Scorer([saved[0]], saved[1], [Member(0, "final")], "cpu")(np.zeros(shape, np.uint8))


def test_nothing_half_written_and_an_old_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    f, _ = trained()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "fold7.safetensors").write_text("stale")

    def full(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_json", full)
        with pytest.raises(OSError, match="no space left"):
            save_f(tmp_path / "f", f, PARAMS, SIZE, AFFWILD2)
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "fold7.safetensors"]
    save_f(tmp_path / "f", f, PARAMS, SIZE, AFFWILD2)
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        "about.json", "curves.jsonl", "final.safetensors", "fold0.safetensors", "y_hat.safetensors",
    ]  # fmt: skip
