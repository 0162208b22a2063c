"""The backbones by name and by a user's function: torchvision's numbers, frozen blocks, weights from local files, errors."""

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import efficientnet_b0, get_model, get_model_weights

from aupair.errors import ArtifactError, ParamsError
from aupair.evaluation.cost import cost_of
from aupair.params import load_params, parse_params
from aupair.ranking.networks import AUNetwork, BackboneWithHead, build_network
from aupair.ranking.sigma import MemberScorer, phi_of_map
from aupair.training_params import AnyNetwork, Backbone, IntegratedBackbone, parse_network

KINDS = {"efficientnet_b0": 1280, "efficientnet_v2_s": 1280, "convnext_tiny": 768, "resnet50": 2048, "vit_b_16": 768}
"""The number of features of each kind."""
BLOCKS = {"efficientnet_b0": 9, "efficientnet_v2_s": 8, "convnext_tiny": 8, "resnet50": 4, "vit_b_16": 12}
FACTORY = """
from torch import nn
class Net(nn.Module):
    size, mean, std = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
    def forward(self, x):
        assert x.shape[1:] == (3, 16, 16)
        return self.second(self.first(x)).mean((2, 3))
def build(): return Net()
def maps(): return nn.Conv2d(3, 4, 3)
def nothing(): return 3
def breaks(): raise OSError("no file\\nface.pt")
"""


def images(count: int, size: int = 96) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size)).astype(np.float32))


def only_network(model: AUNetwork) -> BackboneWithHead:
    (network,) = model.networks
    assert isinstance(network, BackboneWithHead)
    return network


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "faces_of_mine.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "faces_of_mine"
    sys.modules.pop("faces_of_mine", None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_features_and_the_input_of_its_weights(kind: str) -> None:
    preset = get_model_weights(kind).DEFAULT.transforms()
    with torch.device("meta"):
        model = AUNetwork(parse_network({"kind": kind, "head": 7}), 96, 12)
        trunk = only_network(model).trunk
        assert model(torch.empty(2, 3, 96, 96)).shape == (2, 12)
        assert phi_of_map(model.forward_with_map(torch.empty(2, 3, 96, 96), 1)[1]).shape == (2, KINDS[kind])
    assert (trunk.features, trunk.side, len(trunk._blocks)) == (KINDS[kind], preset.crop_size[0], BLOCKS[kind])
    assert [layer.out_features for layer in model.heads()] == [12]
    assert [module.out_features for module in trunk.modules() if isinstance(module, nn.Linear)].count(1000) == 0


def test_features_are_those_of_torchvision_before_its_last_layer() -> None:
    model = only_network(build_network(Backbone(kind="efficientnet_b0", weights="none"), 96, 3, 12)).eval()
    reference = efficientnet_b0(weights=None).eval()
    reference.load_state_dict(model.trunk.network.state_dict(), strict=False)
    reference.classifier = nn.Identity()
    preset = get_model_weights("efficientnet_b0").DEFAULT.transforms()
    x = images(2)
    resized = nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preset.mean, preset.std))
    with torch.no_grad():
        expected = reference((resized / 255 - mean) / std)
        torch.testing.assert_close(model.trunk(x), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model.trunk(x.to(torch.uint8)), expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_blocks_and_the_head_are_trained(kind: str) -> None:
    with torch.device("meta"):
        network = only_network(AUNetwork(parse_network({"kind": kind}), 96, 12))
    trunk = network.trunk
    trunk.train_last_blocks(2)
    network.train()
    trained = {p for block in trunk._blocks[-2:] for p in block.parameters()}
    first = {p for block in trunk._blocks[:-2] for p in block.parameters()}
    assert all(p.requires_grad for p in trained)
    assert first
    assert not any(p.requires_grad for p in first)
    assert not any(p.requires_grad for p in [*trunk.parameters()][:1]), "the stem"
    assert all(p.requires_grad for p in network.classifier.parameters())
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training == next(m.parameters()).requires_grad for m in norms)
    with pytest.raises(ParamsError, match=f"too many trained_blocks, got 13, expected at most {BLOCKS[kind]}"):
        trunk.train_last_blocks(13)


def test_frozen_blocks_stay_as_they_are_while_the_rest_learns() -> None:
    model = build_network(Backbone(kind="efficientnet_b0", weights="none", trained_blocks=1), 32, 0, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model.train()(images(4, 32)).square().mean().backward()
        optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("networks.0.trunk.network.features.8", "networks.0.classifier")) for name in changed)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "networks.0.trunk.network."])
def test_weights_load_from_a_file_with_and_without_its_last_layer(tmp_path: Path, suffix: str, prefix: str) -> None:
    torch.manual_seed(1)
    source = {f"{prefix}{key}": value for key, value in efficientnet_b0(weights=None).state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(source, path) if suffix == ".pth" else save_file(source, path)
    for sharing in ("shared", "integrated"):
        params = parse_network({"kind": "efficientnet_b0", "weights": str(path), "sharing": sharing})
        trunk = only_network(build_network(params, 96, 0, 12)).trunk
        assert all(torch.equal(value, source[prefix + key]) for key, value in trunk.network.state_dict().items())


def test_weights_of_another_kind_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), path)
    with pytest.raises(ArtifactError, match=r"weights do not fit: in .*other\.pth: .*give a file of efficientnet_b0"):
        build_network(Backbone(kind="efficientnet_b0", weights=str(path)), 96, 0, 12)
    with pytest.raises(
        ArtifactError, match=r"no weights: in nowhere\.pth, got no such file, expected default, none, or a file"
    ):
        build_network(Backbone(kind="efficientnet_b0", weights="nowhere.pth"), 96, 0, 12)


@pytest.mark.parametrize("kind", ["efficientnet_b0", "resnet50"])
def test_unreachable_weights_name_the_file_and_its_address(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ArtifactError) as caught:
        build_network(parse_network({"kind": kind}), 96, 0, 12)
    text, url = str(caught.value), str(get_model_weights(kind).DEFAULT.url)
    assert "\n" not in text
    assert f"{kind}'s weights cannot be downloaded: in {url}" in text
    assert f"fetch {url.rpartition('/')[2]} elsewhere and give its path as `weights`" in text


def test_a_users_function_brings_its_network_and_its_input(user_module: str) -> None:
    params = parse_network({"kind": f"{user_module}:build", "trained_blocks": 1, "head": 6})
    assert (params.kind, params.weights) == ("factory", "default")
    model = build_network(params, 96, 0, 12)
    trunk = only_network(model).trunk
    assert (trunk.side, trunk.features) == (16, 5)
    assert model(images(2)).shape == (2, 12)
    learns = {name: p.requires_grad for name, p in trunk.named_parameters()}
    assert learns == {
        f"network.{layer}.{key}": layer == "second" for layer in ("first", "second") for key in ("weight", "bias")
    }
    black = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(trunk(black), trunk.network(black - 2), msg="mean .5 and std .25")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("build_it", "a factory cannot be imported: in kind: {}:build_it, got module"),
        ("nothing", "a factory returned no network: in kind: {}:nothing, got int, expected a torch module"),
        ("breaks", "a factory failed: in kind: {}:breaks, got OSError: no file face.pt"),
        ("maps", "a backbone must return features, got (2, 4, 30, 30), expected a tensor (images, features)"),
    ],
)
def test_a_function_that_is_no_factory_gets_one_line(user_module: str, function: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        build_network(parse_network({"kind": f"{user_module}:{function}"}), 32, 0, 12)
    assert str(caught.value).startswith(message.format(user_module))
    assert "\n" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        ParamsError, match=r"kind: no_such_package\.here:build, got No module.*; install its package, or put"
    ):
        build_network(parse_network({"kind": "no_such_package.here:build"}), 96, 0, 12)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"kind": "efficientnet_b1"},
            "network.kind: in params, got 'efficientnet_b1', expected one of .*; did you mean",
        ),
        ({"kind": "vgg61"}, "got 'vgg61'.*; did you mean vgg16"),
        ({"kind": "resnet50", "width": 0.5}, r"network\.width; leave it out, it has no effect with kind: "),
        ({"kind": "vgg16", "head": 3}, r"network\.head; leave it out, it has no effect with kind: vgg16"),
        ({"kind": "resnet50", "trained_blocks": 0}, "trained_blocks: in params, got 0"),
        (
            {"kind": "resnet50", "factory": "a:b"},
            "got kind: resnet50, factory: a:b, expected kind: package.module:function, or",
        ),
        (
            {"kind": "factory"},
            "got kind: factory, expected kind: package.module:function, or another kind with factory: null",
        ),
        ({"kind": "faktory"}, "'vit_b_16', package.module:function$"),
        ({"kind": "a b:c"}, "factory: package.module:function"),
    ],
)
def test_wrong_settings_get_one_line(network: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        parse_params({"train_pseudo_intensity": {"network": network}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["resnet50", "my.module:build"])
def test_an_override_of_the_kind_drops_the_keys_of_the_former(kind: str) -> None:
    file = Path(__file__).parents[2] / "params.yaml"
    params = load_params(file, [f"train_pseudo_intensity.network.kind={kind}"])
    network = params.train_pseudo_intensity.network
    assert isinstance(network, Backbone)
    assert (network.dropout, network.sharing, network.weights) == (0.0, "shared", "none"), "keys of both stay"
    assert parse_network(network.model_dump()) == network
    back = load_params(file).train_pseudo_intensity.network
    assert back.kind == "vgg16", "a file without kind means VGG16"


def test_factors_and_second_heads_read_a_backbone() -> None:
    params: AnyNetwork = IntegratedBackbone(kind="efficientnet_b0", weights="none")
    f = build_network(params, 32, 0, 12).eval()
    with torch.no_grad():
        assert MemberScorer(f, None)(images(2, 32)).shape == (2, 12)
        assert f(images(2, 32)).shape == (2, 24)
    assert f.layers_through(5) == 1
    with pytest.raises(ArtifactError, match="a block without features, got block: 4, expected block: 5"):
        f.layers_through(4)


def test_the_cost_of_a_backbone_is_counted() -> None:
    tree = {"train_pseudo_intensity": {"network": {"kind": "efficientnet_b0"}}}
    cost = cost_of(parse_params(tree | {"train_uncertainty": {"kind": "factors"}}), 12)
    assert cost["passes"] == 1
    assert cost["parts"]["f"]["parameters"] == 4_007_548 + 1281 * 128 + 129 * 12, "torchvision's less its last layer"
    assert cost["parts"]["f"]["gmac_per_frame"] == pytest.approx(0.386, abs=0.01), "torchvision says .39"
