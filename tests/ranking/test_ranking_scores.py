"""f and h as files: the scorer gives the numbers that training stored, whatever the batch; bad files in one line."""

import json
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
from aupair.ranking.guard import Guard
from aupair.ranking.networks import AUNetwork, build_network
from aupair.ranking.pseudo_intensity import PseudoIntensity
from aupair.ranking.scores import Scorer, load_f, read_sigma, save_f, save_h
from aupair.ranking.sigma import FactorReader, MemberScorer, SigmaModel, SigmaNetwork, load_sigma_model
from aupair.ranking.signals import Signals
from aupair.ranking.uncertainty import Uncertainty
from training_sets import NARROW, SIZE, Faces

COUNT, CPU = 41, torch.device("cpu")
NETWORK = NARROW
PARAMS = Params.model_validate(
    {"train_pseudo_intensity": {"network": NETWORK}, "train_uncertainty": {"network": NETWORK, "floor": 0.07}}
)
FACTORS = Params.model_validate({"train_uncertainty": {"kind": "factors", "floor": 0.07, "block": 4}})
MEMBERS = (Member(0, "final"), Member(0, "fold0"))

FACES = Faces(np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3)))
QUALITY = np.random.default_rng(1).lognormal(size=(COUNT, 3)).astype(np.float32)
QUALITY[::4] = np.nan


def make_factors(f: AUNetwork, rng: np.random.Generator) -> SigmaModel:
    """Return an h as after training, which reads the network of the fold."""
    inputs = 9 * round(512 * NETWORK["width"])
    reader = FactorReader(4, inputs, 12)
    for name, value in reader.named_buffers():
        value.copy_(
            torch.from_numpy(
                rng.uniform(0.5, 1, tuple(value.shape)) if name == "scale" else rng.normal(size=value.shape) / 9
            )
        )
    signals = Signals(rng.normal(size=3), rng.uniform(0.5, 1, 3))
    guard = Guard(rng.uniform(0, 1, 12), rng.normal(size=12), rng.normal(size=12), {"constant": np.ones(12)}, 0.8)
    return SigmaModel({MEMBERS[1]: reader}, None, 0.07, signals, rng.normal(size=(3, 12)), guard)


def trained(kind: str = "network") -> tuple[PseudoIntensity, Uncertainty]:
    """Return f and h as training would give them, batch norms not at their start."""
    models = {
        name: build_network(PARAMS.train_pseudo_intensity.network, SIZE, k, 12)
        for k, name in enumerate(("final", "fold0"))
    }
    network = build_network(PARAMS.train_uncertainty.network, SIZE, 9, 12)
    for model in (*models.values(), network):
        model.train()(torch.from_numpy(FACES.pixels[:8]).permute(0, 3, 1, 2).float())
    rows = np.arange(COUNT)
    outputs = {name: forward_all(model, FACES, rows, CPU) for name, model in models.items()}
    center = {name: np.median(out, axis=0) for name, out in outputs.items()}
    scale = {name: out.std(axis=0) for name, out in outputs.items()}
    y_hat = {name: (out - center[name]) / scale[name] for name, out in outputs.items()}
    if kind == "network":
        h = SigmaModel(network=SigmaNetwork(network, np.linspace(0.3, 2, 12), 0.07), floor=0.07)
        terms = np.log(forward_all(h.network, FACES, rows, CPU))
    else:
        h = make_factors(models["fold0"], np.random.default_rng(0))
        terms = forward_all(MemberScorer(models["fold0"], h.readers[MEMBERS[1]]), FACES, rows, CPU)[:, 12:]
    sigma, unguarded = h.sigma(terms[None], QUALITY), h.to_sigma(h.log_sigma(terms[None], QUALITY))
    curves = [{"network": "f.final", "step": 1, "loss": float("nan")}]
    folds = {"fold0": h.network} if h.network is not None else {}
    return PseudoIntensity(dict(models), center, scale, y_hat, curves, 0.5), Uncertainty(
        h, sigma, unguarded, curves, MEMBERS, folds
    )


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
    scorer = Scorer([f], h, MEMBERS, "cpu")
    parts = [
        scorer(FACES.pixels[start : start + size], QUALITY[start : start + size]) for start in range(0, COUNT, size)
    ]
    y_hat, sigma, unguarded = (np.concatenate([part[k] for part in parts]) for k in range(3))
    np.testing.assert_array_equal(y_hat, load_ensemble([f], COUNT, "all").y_hat)
    np.testing.assert_array_equal(sigma, read_sigma(h, COUNT))
    np.testing.assert_array_equal(unguarded, read_sigma(h, COUNT, "unguarded"))
    assert y_hat.dtype == sigma.dtype == np.float32
    assert (sigma.std(axis=0) > 1e-3).all()
    assert [part.shape for part in scorer(FACES.pixels[:0])] == [(0, len(AFFWILD2))] * 3


def test_unknown_quality_is_that_of_the_average_frame(
    saved: tuple[Path, Path, PseudoIntensity, Uncertainty],
) -> None:
    f, h, _, _ = saved
    scorer = Scorer([f], h, MEMBERS, "cpu")
    sigma = scorer(FACES.pixels).sigma
    np.testing.assert_array_equal(sigma, scorer(FACES.pixels, np.full((COUNT, 3), np.nan, np.float32))[1])
    np.testing.assert_array_equal(sigma[::4], read_sigma(h, COUNT)[::4])


def convolutions_done(scorer: Scorer) -> int:
    """Return the number of convolutions that a chunk of faces takes."""
    done: list[nn.Module] = []
    networks = [*scorer._networks, *([scorer._h.network] if scorer._h.network is not None else [])]
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, *_: done.append(layer)) for layer in layers]
    scorer(FACES.pixels[:7])
    for hook in hooks:
        hook.remove()
    return len(done)


def test_a_trunk_that_both_read_is_forwarded_once(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f, h, _, trained = saved
    own = trained.model.network is not None
    assert convolutions_done(Scorer([f], h, MEMBERS, "cpu")) == 13 * (3 if own else 2)


def test_h_needs_the_networks_that_it_reads(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f, h, _, trained = saved
    if trained.model.network is not None:
        assert Scorer([f], h, MEMBERS[:1], "cpu")(FACES.pixels)[1].shape == (COUNT, 12)
        return
    with pytest.raises(ArtifactError, match="h reads networks of f that are not in the ensemble"):
        Scorer([f], h, MEMBERS[:1], "cpu")


def test_every_network_comes_back_as_it_was(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f_path, h_path, f, h = saved
    for name in ("final", "fold0"):
        model, center, scale = load_f(f_path, name)
        for key, value in f.models[name].state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key
        np.testing.assert_array_equal(center, f.center[name])
        np.testing.assert_array_equal(scale, f.scale[name])
    loaded = load_sigma_model(h_path)
    assert loaded.readers.keys() == h.model.readers.keys()
    pairs = [(loaded.readers[member], reader) for member, reader in h.model.readers.items()]
    for model, stored in [*pairs, *([(loaded.network, h.model.network)] if h.model.network is not None else [])]:
        assert all(torch.equal(model.state_dict()[key], value) for key, value in stored.state_dict().items())
    assert loaded.floor == h.model.floor
    assert not any("trunk" in key for path in h_path.glob("*.safetensors") for key in store.read_arrays(path))
    assert (h_path / "folds").exists() == (h.model.network is not None)


def test_files_can_be_read_by_a_person(saved: tuple[Path, Path, PseudoIntensity, Uncertainty]) -> None:
    f, h, _, trained = saved
    about = json.loads((f / "about.json").read_text())
    assert about["aus"] == list(AFFWILD2)
    assert about["size"] == SIZE
    assert len(about["standardisation"]["final"]["center"]) == 12
    about = json.loads((h / "about.json").read_text())
    assert about["loss"] == "nll"
    assert about["format"] == 2
    assert about["members"] == [list(member) for member in trained.model.readers]
    assert (about["guard_of_aus"] is None) == (trained.model.guard is None)
    assert store.read_jsonl(f / "curves.jsonl") == [{"network": "f.final", "step": 1, "loss": None}]
    np.testing.assert_array_equal(read_sigma(h, COUNT, "unguarded"), trained.unguarded)


@pytest.mark.parametrize("kind", ["network", "factors", "integrated"])
def test_an_h_of_the_format_before_scores_as_it_did(kind: str, tmp_path: Path) -> None:
    rng, f, floor, network = np.random.default_rng(3), tmp_path / "f", 0.07, dict(NETWORK)
    if kind == "integrated":
        network["sharing"] = "integrated"
    params = Params.model_validate(
        {"train_pseudo_intensity": {"network": network}, "train_uncertainty": {"kind": kind}}
        if kind == "integrated" else {"train_pseudo_intensity": {"network": network}}
    )  # fmt: skip
    model = build_network(params.train_pseudo_intensity.network, SIZE, 0, 12).eval()
    center, scale = rng.normal(size=12).astype("f4"), rng.uniform(1, 2, 12).astype("f4")
    result = PseudoIntensity(
        {"final": model}, {"final": center}, {"final": scale}, {"final": np.zeros((1, 12))}, [], 0.5
    )
    save_f(f, result, params, SIZE, AFFWILD2)
    about = {"aus": AFFWILD2, "size": SIZE, "kind": kind, "floor": floor, "block": 4, "factors": 3, "trunk": network}
    offset = rng.normal(size=12).astype("f4")
    images = torch.from_numpy(FACES.pixels).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        if kind == "network":
            own = build_network(params.train_uncertainty.network.model_copy(update=NETWORK), SIZE, 5, 12).eval()
            about["network"] = own.params.model_dump()
            state = {f"network.{key}": value.numpy() for key, value in own.state_dict().items()} | {"offset": offset}
            expected = floor + np.log1p(np.exp(own(images).numpy() + offset))
        elif kind == "integrated":
            state = {f"network.{key}": value.numpy() for key, value in model.state_dict().items()} | {"scale": scale}
            expected = (0.05 + np.log1p(np.exp(model(images).numpy()[:, 12:] + 0.54))) / scale
        else:
            layers = model.layers_through(4)
            phi = nn.functional.adaptive_avg_pool2d(model.forward_with_map(images, layers)[1], 3).flatten(1).numpy()
            inputs = phi.shape[1]
            weights = {
                "center": phi.mean(0), "scale": phi.std(0) + 0.01, "down": rng.normal(size=(inputs, 3)).astype("f4"),
                "up": rng.normal(size=(3, 12)).astype("f4"),
            }  # fmt: skip
            trunk = {
                f"trunk.{key}": value.numpy() for key, value in model.networks[0].features[:layers].state_dict().items()
            }
            state = {f"network.{key}": value for key, value in (weights | trunk).items()} | {"offset": offset}
            z = np.clip((phi - weights["center"]) / weights["scale"], -4, 4) / inputs**0.5
            expected = floor + np.log1p(np.exp(z @ weights["down"] @ weights["up"] + offset))
    h = tmp_path / "h"
    h.mkdir()
    store.write_json(h / "about.json", about)
    store.write_arrays(h / "final.safetensors", state)
    y_hat, sigma, unguarded = Scorer([f], h, MEMBERS[:1], "cpu")(FACES.pixels, QUALITY)
    np.testing.assert_array_equal(unguarded, sigma)
    np.testing.assert_allclose(sigma, expected, rtol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(y_hat, (model(images).numpy()[:, :12] - center) / scale, rtol=1e-3, atol=1e-4)


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
        Scorer([f], h, MEMBERS, "cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing file"):
        Scorer([f], h, MEMBERS, "cpu")


def test_weights_of_another_network_get_one_line(copied: tuple[Path, Path]) -> None:
    f, h = copied
    wide = build_network(PARAMS.train_pseudo_intensity.network.model_copy(update={"width": 0.1}), SIZE, 0, 12)
    store.write_arrays(f / "final.safetensors", {k: v.numpy() for k, v in wide.state_dict().items()})
    with pytest.raises(ArtifactError) as caught:
        Scorer([f], h, MEMBERS, "cpu")
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


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 3, SIZE, SIZE), (2, SIZE, SIZE, 1)])
def test_faces_of_another_size(saved: tuple[Path, Path, PseudoIntensity, Uncertainty], shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"faces of another size, got .*expected \(n, 32, 32, 3\)"):
        Scorer([saved[0]], saved[1], MEMBERS, "cpu")(np.zeros(shape, np.uint8))


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
