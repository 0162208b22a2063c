"""The files of a mapping: a round trip, one line for each bad file, and files of before that predict the same bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.model import Mapping
from mapping.toy import FEATURES, FRAMES, PARAMS, SEEDS, F, fit, outputs, split_routes

Fitted = tuple[Mapping, list[dict[str, float]]]


@pytest.fixture(scope="module", params=["l1", "cross_entropy"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return fit(FRAMES, FEATURES, PARAMS.model_copy(update={"loss": request.param, "epochs": 2}), 0)


def test_round_trip(tmp_path: Path, fitted: Fitted) -> None:
    mapping, curves = fitted
    mapping.save(tmp_path / "mapping", curves)
    about = store.read_json(tmp_path / "mapping" / "about.json")
    expected = {"raw": {"features": 4, "width": 16}, "both": {"features": F, "width": 16}}
    assert (about["format"], about["seeds"], about["routes"]) == (2, SEEDS, expected)
    assert list(about["routes"]) == ["raw", "both"], "the deciding ones come first"
    assert about["loss"] == ("l1" if mapping.networks["raw"].outputs == 1 else "cross_entropy")
    loaded = Mapping.load(tmp_path / "mapping")
    np.testing.assert_array_equal(outputs(loaded, FEATURES), outputs(mapping, FEATURES))
    assert store.read_jsonl(tmp_path / "mapping" / "curves.jsonl") == curves


def test_only_the_routes_asked_for_are_read(tmp_path: Path, fitted: Fitted) -> None:
    fitted[0].save(tmp_path / "mapping", [])
    (tmp_path / "mapping" / "both.safetensors").unlink()
    loaded = Mapping.load(tmp_path / "mapping", ("raw",))
    assert loaded.routes == ("raw",)
    np.testing.assert_array_equal(loaded({"raw": FEATURES[..., :4]})["raw"], fitted[0](split_routes(FEATURES))["raw"])


@pytest.mark.parametrize("name", ["both.safetensors", "about.json"])
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


@pytest.mark.parametrize("change", [{"seeds": 3}, {"loss": "cross_entropy", "levels": 6}])
def test_weights_of_another_network(tmp_path: Path, fitted: Fitted, change: dict[str, object]) -> None:
    fitted[0].save(tmp_path / "mapping", [])
    about = store.read_json(tmp_path / "mapping" / "about.json")
    store.write_json(tmp_path / "mapping" / "about.json", about | change)
    with pytest.raises(ArtifactError) as caught:
        Mapping.load(tmp_path / "mapping")
    path = tmp_path / "mapping" / "raw.safetensors"
    assert str(caught.value).startswith(f"weights do not fit their network: in {path}, got ")
    assert "\n" not in str(caught.value)


def test_nothing_half_written(tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        fitted[0].save(tmp_path / "mapping", [])
    assert list(tmp_path.iterdir()) == []


class EarlierNetworks(nn.Module):
    """The networks of version 0.2: for each AU one that reads all columns and one with masked columns."""

    def __init__(self, mask: torch.Tensor, aus: int, width: int, outputs: int) -> None:
        super().__init__()
        features = mask.shape[2]
        self.outputs = outputs
        self.register_buffer("mask", mask)
        self.register_buffer("center", torch.randn(aus, features))
        self.register_buffer("scale", torch.rand(aus, features) + 0.5)
        self.layers = nn.ModuleList()
        for inputs, out in ((features, width), (width, width), (width, outputs)):
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.randn(2 * aus, inputs, out) / inputs**0.5)
            layer.bias = nn.Parameter(torch.randn(2 * aus, 1, out))
            self.layers.append(layer)

    @torch.no_grad()
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = (features - self.center[:, None]) / self.scale[:, None]
        x = torch.cat([x, x]) * self.mask
        for k, layer in enumerate(self.layers):
            x = torch.baddbmm(layer.bias, functional.relu(x) if k else x, layer.weight)
        x = x.unflatten(0, (2, -1))
        return x.squeeze(-1) if self.outputs == 1 else x.softmax(-1) @ torch.arange(float(self.outputs))


def write_earlier_version(folder: Path, masked: bool, outputs: int) -> EarlierNetworks:
    """Write the files of version 0.2, and return its networks."""
    torch.manual_seed(0)
    plain = torch.arange(F) < (4 if masked else F)
    mask = torch.stack([torch.ones(F), plain.float()]).repeat_interleave(12, 0)[:, None]
    networks = EarlierNetworks(mask, 12, 16, outputs)
    folder.mkdir()
    store.write_arrays(folder / "mapping.safetensors", {k: v.numpy() for k, v in networks.state_dict().items()})
    about = {"aus": FRAMES.aus, "features": F, "width": 16}
    about |= {"loss": "l1"} if outputs == 1 else {"loss": "cross_entropy", "levels": outputs}
    store.write_json(folder / "about.json", about)
    return networks


@pytest.mark.parametrize("outputs", [1, 6])
def test_a_file_of_before_predicts_the_same_bits(tmp_path: Path, outputs: int) -> None:
    networks = write_earlier_version(tmp_path / "mapping", masked=True, outputs=outputs)
    x = np.zeros((512, 12, F), np.float32)
    x[: len(FEATURES)] = FEATURES
    expected = networks(torch.from_numpy(x.swapaxes(0, 1))).numpy()[:, :, : len(FEATURES)].swapaxes(1, 2)
    mapping = Mapping.load(tmp_path / "mapping")
    assert mapping.routes == ("raw", "columns")
    out = mapping({"columns": FEATURES})
    np.testing.assert_array_equal(out["columns"], expected[0])
    np.testing.assert_array_equal(out["raw"], expected[1])
    assert not np.allclose(expected[0][FRAMES.ok], expected[1][FRAMES.ok])


def test_a_file_of_before_without_columns_of_uncertainty_has_one_route(tmp_path: Path) -> None:
    networks = write_earlier_version(tmp_path / "mapping", masked=False, outputs=1)
    mapping = Mapping.load(tmp_path / "mapping")
    assert mapping.routes == ("raw",)
    x = np.zeros((512, 12, F), np.float32)
    x[: len(FEATURES)] = FEATURES
    expected = networks(torch.from_numpy(x.swapaxes(0, 1))).numpy()[1].T[: len(FEATURES)]
    np.testing.assert_array_equal(mapping({"raw": FEATURES})["raw"], expected)
