"""The VGG16 of f and h: equal to torchvision's, narrow where asked; every bad weights file is an error of one line."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG16_Weights, vgg16

from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, ParamsError
from aupair.ranking.networks import MEAN, STD, AUNetwork, build_network, pick_device
from aupair.ranking.sigma import FactorReader, phi_of_map
from aupair.training_params import Network

NARROW = Network(width=0.05, batch_norm=True, weights="none", frozen_convolutions=0)
PLAIN = Network(width=0.05, weights="none", frozen_convolutions=0)


def images(count: int, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size)).astype(np.float32))


def one_line(caught: pytest.ExceptionInfo[ArtifactError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_full_width_is_torchvisions_vgg16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        reference = vgg16(weights=None, init_weights=False)
    reference = reference.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in reference.parameters():
        bound = (6 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, **kwargs: tensor)  # seconds, and overwritten anyway
    x = images(1, 224)
    normal = (x / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        features = reference.features(normal)
        expected = reference.classifier[:6](reference.avgpool(features).flatten(1))
    path = tmp_path / "vgg16.pth"
    torch.save(reference.state_dict(), path)
    del reference
    model = build_network(Network(weights=str(path)), 224, 0, 12).eval()
    network = model.networks[0]
    inputs_of_last: list[torch.Tensor] = []
    network.classifier[6].register_forward_pre_hook(lambda module, inputs: inputs_of_last.append(inputs[0]))
    with torch.no_grad():
        torch.testing.assert_close(network.features(normal), features, rtol=1e-3, atol=1e-3)
        assert model(x).shape == (1, len(AFFWILD2))
    torch.testing.assert_close(inputs_of_last[0], expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.1
    frozen = [m.weight.requires_grad for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert frozen == [False] * 2 + [True] * 11  # features.0 and features.2, as the authors did


def test_a_vgg16_draws_its_weights_in_the_order_of_before() -> None:
    """Check the bits of the demo's start: convolutions, then the classifier, then the convolutions again."""
    params = Network(width=0.05, weights="none", frozen_convolutions=0)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        channels = [round(c * 0.05) for c in (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)]
        convolutions = [nn.Conv2d(a, b, 3) for a, b in zip([3, *channels], channels)]
        linear = [nn.Linear(26, 205), nn.Linear(205, 205), nn.Linear(205, 12)]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    network = build_network(params, 32, 7, 12).networks[0]
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(layers, [*convolutions, *linear], strict=True))


def test_imagenet_mean_and_std() -> None:
    preset = VGG16_Weights.IMAGENET1K_V1.transforms()
    assert preset.mean == list(MEAN)
    assert preset.std == list(STD)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_load_from_a_file_but_for_the_last_layer(tmp_path: Path, suffix: str) -> None:
    source = build_network(PLAIN, 32, 1, 12).networks[0].state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source, path)
    else:
        save_file({k: v.contiguous() for k, v in source.items()}, path)
    for sharing in ("shared", "per_au"):
        params = PLAIN.model_copy(update={"weights": str(path), "sharing": sharing})
        model, blank = (
            build_network(params, 32, 2, 12),
            build_network(params.model_copy(update={"weights": "none"}), 32, 2, 12),
        )
        for network, before in zip(model.networks, blank.networks):
            for name, value in network.state_dict().items():
                expected = before.state_dict() if name.startswith("classifier.6.") else source
                assert torch.equal(value, expected[name]), (sharing, name)


def narrow_state() -> dict[str, torch.Tensor]:
    return dict(build_network(PLAIN, 32, 0, 12).networks[0].state_dict())


def save_half(path: Path) -> None:
    torch.save(narrow_state(), path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save(narrow_state(), path), "weights do not fit: in {}: "),
        (lambda path: torch.save({}, path), "weights do not fit: in {}: "),
        (
            lambda path: torch.save({"state_dict": narrow_state()}, path),
            "not a state dict: in {}, got state_dict, expected names",
        ),
        (lambda path: torch.save([1, 2], path), "not a state dict: in {}, got list, expected names and tensors; save"),
        (lambda path: path.write_text("hello"), "weights cannot be read: in {}, got "),
        (save_half, "weights cannot be read: in {}, got "),
        (lambda path: None, "no weights: in {}, got no such file, expected default, none, or a file of weights"),
    ],
)
def test_a_bad_weights_file_gets_one_line(
    tmp_path: Path, write: Callable[[Path], Any], message: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    write(path)
    if suffix == ".safetensors" and re.search("do not fit|not a state dict", message):
        message = "weights cannot be read: in {}, got "  # torch's format under the name of another
    wide = PLAIN.model_copy(update={"width": 0.1, "weights": str(path)})
    with pytest.raises(ArtifactError) as caught:
        build_network(wide, 32, 0, 12)
    assert one_line(caught).startswith(message.format(path))


class Evil:
    """A pickle that would make a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save({"features.0.weight": Evil(mark)}, path)
    with pytest.raises(ArtifactError) as caught:
        build_network(PLAIN.model_copy(update={"weights": str(path)}), 32, 0, 12)
    assert one_line(caught).startswith(f"weights cannot be read: in {path}")
    assert not mark.exists()


def test_no_network_names_the_file_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ArtifactError) as caught:
        build_network(PLAIN.model_copy(update={"weights": "imagenet"}), 32, 0, 12)
    text = one_line(caught)
    assert "no route to host" in text
    assert "vgg16-397923af.pth" in text


def test_a_narrow_network_cannot_take_imagenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ArtifactError, match="set weights: none"):
        build_network(PLAIN.model_copy(update={"weights": "imagenet"}), 32, 0, 12)


def test_narrow_with_batch_norm() -> None:
    model = build_network(NARROW.model_copy(update={"width": 0.25}), 96, 0, 12)
    network = model.networks[0]
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 13
    assert network.classifier[0].in_features == 128 * 3 * 3
    assert model(images(2, 96)).shape == (2, len(AFFWILD2))


def test_one_network_an_au() -> None:
    model = build_network(PLAIN.model_copy(update={"sharing": "per_au"}), 32, 0, 12)
    assert len(model.networks) == len(AFFWILD2)
    out = model(images(2))
    assert out.shape == (2, len(AFFWILD2))
    out[:, 3].sum().backward()
    touched = [any(p.grad is not None and p.grad.any() for p in network.parameters()) for network in model.networks]
    assert touched == [k == 3 for k in range(len(AFFWILD2))]
    first = [network.features[0].weight for network in model.networks]
    assert not torch.equal(first[0], first[1])


def test_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = ([*build_network(NARROW, 32, seed, 12).parameters()] for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one, same))
    assert not torch.equal(one[0], other[0])


def test_heads_are_the_last_layers() -> None:
    for sharing, count, outputs in (("shared", 1, len(AFFWILD2)), ("per_au", len(AFFWILD2), 1)):
        model = build_network(PLAIN.model_copy(update={"sharing": sharing}), 32, 0, 12)
        assert [head.out_features for head in model.heads()] == [outputs] * count
        for head in model.heads():
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, 3.0)
        assert (model(images(2)) == 3).all()


def trained_f(size: int = 96) -> AUNetwork:
    """A network whose batch statistics are not those of a new one."""
    model = build_network(NARROW, size, 0, 12)
    for _ in range(20):
        model.train()(images(4, size))
    return model


def naive_phi(f: AUNetwork, block: int, x: torch.Tensor) -> torch.Tensor:
    """Forward layer by layer up to a block's pooling, then the means of 3 x 3 cells, as adaptive pooling lays them."""
    x = (x / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    pools = 0
    for layer in f.eval().networks[0].features:
        x = layer(x)
        pools += isinstance(layer, nn.MaxPool2d)
        if pools == block:
            break
    side = x.shape[-1]
    edges = [(k * side // 3, -(-(k + 1) * side // 3)) for k in range(3)]
    cells = [x[:, :, top:bottom, left:right].mean(dim=(2, 3)) for top, bottom in edges for left, right in edges]
    return torch.stack(cells, dim=2).flatten(1)


def phi_of(f: AUNetwork, block: int, x: torch.Tensor) -> torch.Tensor:
    return phi_of_map(f.forward_with_map(x, f.layers_through(block))[1])


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5])
def test_phi_equals_a_forward_through_the_first_blocks_of_f(block: int) -> None:
    f, x = trained_f().eval(), images(3, 96)
    with torch.no_grad():
        phi = phi_of(f, block, x)
        torch.testing.assert_close(phi, naive_phi(f, block, x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(f.forward_with_map(x, f.layers_through(block))[0], f(x), rtol=1e-4, atol=1e-4)
    assert phi.shape == (3, round((64, 128, 256, 512, 512)[block - 1] * NARROW.width) * 9)


def test_log_sigma_of_a_trunk_equals_a_loop() -> None:
    f, x, rng = trained_f().eval(), images(4, 96), np.random.default_rng(0)
    with torch.no_grad():
        feature_map = f.forward_with_map(x, f.layers_through(5))[1]
        phi = phi_of_map(feature_map).numpy()
        reader = FactorReader(5, phi.shape[1], 12)
        reader.center.copy_(torch.from_numpy(phi.mean(axis=0)))
        reader.scale.copy_(torch.from_numpy(rng.uniform(0.02, 0.5, phi.shape[1])))
        reader.weight.copy_(torch.from_numpy(rng.normal(size=(phi.shape[1], 12)) / 10))
        reader.bias.copy_(torch.from_numpy(rng.normal(size=12)))
        got = reader(x, feature_map).numpy()
    center, scale, weight, bias = (getattr(reader, name).numpy() for name in ("center", "scale", "weight", "bias"))
    cut, expected = 0, np.zeros((4, 12))
    for n in range(4):
        for au in range(12):
            expected[n, au] = bias[au]
            for d in range(phi.shape[1]):
                z = (float(phi[n, d]) - center[d]) / scale[d]
                cut += abs(z) > 4
                expected[n, au] += float(np.clip(z, -4, 4)) * weight[d, au]
    assert cut > 10
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_factors_of_one_network_an_au_get_one_line() -> None:
    f = build_network(PLAIN.model_copy(update={"sharing": "per_au"}), 32, 0, 12)
    with pytest.raises(ArtifactError) as caught:
        f.layers_through(5)
    assert one_line(caught).startswith("no shared trunk to read factors from")
    assert "kind: network" in one_line(caught)


def test_device_by_name() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ParamsError, match="no such device, got toaster"):
        pick_device("toaster")


@pytest.mark.parametrize("block", [1, 5])
def test_a_shrunk_network_sees_means_of_blocks(block: int) -> None:
    params = Network(width=0.05, batch_norm=True, weights="none", frozen_convolutions=0, shrink=2)
    model, x = build_network(params, 64, 0, 12).eval(), images(3, 64)
    means = torch.stack([x[:, :, i::2, j::2] for i in range(2) for j in range(2)]).mean(0)
    plain = build_network(params.model_copy(update={"shrink": 1}), 32, 0, 12).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(means))
        torch.testing.assert_close(model(x.to(torch.uint8)), plain(means))
        torch.testing.assert_close(phi_of(model, block, x), phi_of(plain, block, means))
