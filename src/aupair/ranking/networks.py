"""The networks of f and h: a VGG16 of full or reduced width, or a pretrained backbone, with a head for each AU."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from aupair.errors import ArtifactError, ParamsError
from aupair.ranking.backbones import MEAN, STD, build_backbone, load_backbone
from aupair.ranking.pretrained import load_pretrained
from aupair.training_params import AnyNetwork, BackboneNetwork, VggNetwork

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions; a pooling follows each block."""
_LAST_BLOCK = len(_BLOCKS)


class Vgg(nn.Module):
    """VGG16 with torchvision's layers and names, so that torchvision's weights can be loaded.

    Args:
        params: width (fraction of the channels), batch_norm, dropout.
        size: side of the images, pixels; the trunk's map is pooled to a side of size // 32 (7 for 224), at most 7.
        outputs: number of outputs per image.
    """

    def __init__(self, params: VggNetwork, size: int, outputs: int) -> None:
        super().__init__()
        blocks = _channels(params)
        side = min(7, max(1, size // 32))
        self.features = _build_blocks(blocks, params.batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier: nn.Module = _build_head(params, blocks[-1][-1] * side * side, outputs)
        for module in self.modules():
            # On the device `meta`, drawing numbers would only make torch import its compiler, which takes 3 s.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Forward images (B, 3, S, S) -> (B, outputs)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def forward_with_map(self, x: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the outputs (B, outputs), and the feature map after the first `layers` of `features`, (B, C, H, W)."""
        feature_map = self.features[:layers](x)
        return self.classifier(self.avgpool(self.features[layers:](feature_map)).flatten(1)), feature_map


def _build_blocks(blocks: Sequence[Sequence[int]], batch_norm: bool) -> nn.Sequential:
    """Build VGG's convolutions with the given channels; they are defined here to avoid the slow import of torchvision."""
    layers: list[nn.Module] = []
    inputs = 3
    for block in blocks:
        for outputs in block:
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        layers.append(nn.MaxPool2d(kernel_size=2))
    return nn.Sequential(*layers)


class BackboneWithHead(nn.Module):
    """A backbone and a head with one hidden layer.

    Args:
        size: side of the faces, pixels.
        outputs: number of outputs per image.
    """

    def __init__(self, params: BackboneNetwork, size: int, outputs: int) -> None:
        super().__init__()
        self.trunk = build_backbone(params, size)
        self.classifier: nn.Module = _build_head(params, self.trunk.features, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255 -> (B, outputs)."""
        outputs: Tensor = self.classifier(self.trunk(images))
        return outputs

    def forward_with_map(self, images: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the outputs (B, outputs), and the features of the backbone, (B, D)."""
        features = self.trunk(images)
        return self.classifier(features), features


def _per_channel(values: Sequence[float]) -> Tensor:
    """Convert statistics of images in 0..1 to statistics of images in 0..255: (1, 3, 1, 1) float32.

    The multiplication is done by numpy, since on the device `meta` torch would import its compiler for it.
    """
    return torch.tensor((np.array(values, np.float32) * np.float32(255)).tolist()).view(1, 3, 1, 1)


class AUNetwork(nn.Module):
    """A network with one output for each AU: a shared trunk with a head for each AU, or a separate network for each AU.

    With sharing `integrated`, one trunk has two outputs for each AU: first the values of all AUs, then the outputs of the
    second head, from which `second_head_sigma` computes sigma.

    Args:
        params: the section `network` of the params.
        inputs: side of the images, pixels; with a frozen trunk, which is not part of this network, the number of features.
        au_count: number of AUs, A.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, params: AnyNetwork, inputs: int, au_count: int) -> None:
        super().__init__()
        self.params, self.inputs, self.au_count = params, inputs, au_count
        sizes = {"shared": (1, au_count), "per_au": (au_count, 1), "integrated": (1, 2 * au_count)}
        count, outputs = sizes[params.sharing]
        self.networks = nn.ModuleList(_build_one(params, inputs, outputs) for _ in range(count))
        self.register_buffer("mean", _per_channel(MEAN), persistent=False)
        self.register_buffer("std", _per_channel(STD), persistent=False)

    def heads(self) -> list[nn.Linear]:
        """Return the last linear layer of each network."""
        return [[layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1] for network in self.networks]

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255, of any dtype, or features (B, D) -> (B, A), or (B, 2A) if integrated."""
        x = self.normalise(images)
        return torch.cat([network(x) for network in self.networks], dim=1)

    def forward_with_map(self, images: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the outputs, and the feature map after the first `layers` of the shared trunk: (B, C, H, W) or (B, D)."""
        if self.params.frozen:
            return self(images), self._to_map(images)
        (network,) = self.networks
        assert isinstance(network, Vgg | BackboneWithHead)
        return network.forward_with_map(self.normalise(images), layers)

    def layers_through(self, block: int) -> int:
        """Return the number of layers of the shared trunk up to the pooling after a block, 1 to 5.

        A backbone and a frozen trunk count as one layer and are the last block.

        Raises:
            ArtifactError: there is a trunk for each AU, or the network has features of the last block only.
        """
        if len(self.networks) > 1 and not self.params.frozen:
            raise ArtifactError(
                "no shared trunk to read factors from", got="sharing: per_au", todo="use kind: network for h"
            )
        network = self.networks[0]
        if not isinstance(network, Vgg):
            if block != _LAST_BLOCK:
                raise ArtifactError("a block without features", got=f"block: {block}", expected=f"block: {_LAST_BLOCK}")
            return 1
        return [k for k, layer in enumerate(network.features, 1) if isinstance(layer, nn.MaxPool2d)][block - 1]

    def normalise(self, images: Tensor) -> Tensor:
        """Convert RGB (B, 3, S, S) in 0..255 to the input of VGG16: shrunk, standardised, channels last.

        The input of a backbone is returned unchanged, since a backbone standardises images itself; so are features.
        """
        if self.params.frozen or not isinstance(self.params, VggNetwork):
            return images
        return ((_shrink(images, self.params) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _to_map(self, features: Tensor) -> Tensor:
        """Reshape the features (B, D) of a frozen VGG16 to the feature map (B, C, H, W); return other features unchanged."""
        if not isinstance(self.params, VggNetwork):
            return features
        channels = _channels(self.params)[-1][-1]
        return features.unflatten(1, (channels, math.isqrt(features.shape[1] // channels), -1))


def _build_one(params: AnyNetwork, inputs: int, outputs: int) -> nn.Module:
    """Build a trunk with its head, or only the head if the trunk is frozen; see AUNetwork for `inputs`."""
    if params.frozen:
        return _build_head(params, inputs, outputs)
    if isinstance(params, VggNetwork):
        return Vgg(params, inputs // params.shrink, outputs)
    return BackboneWithHead(params, inputs, outputs)


def _channels(params: VggNetwork) -> list[list[int]]:
    """Return the channels of each block's convolutions."""
    return [[max(1, round(channels * params.width)) for channels in block] for block in _BLOCKS]


def _build_head(params: VggNetwork | BackboneNetwork, features: int, outputs: int) -> nn.Sequential:
    """Build the head from features (B, features) to outputs: VGG16's classifier, or one hidden layer for a backbone."""
    dropout = params.dropout
    if isinstance(params, BackboneNetwork):
        return nn.Sequential(
            nn.Linear(features, params.head), nn.ReLU(True), nn.Dropout(dropout), nn.Linear(params.head, outputs)
        )
    hidden = max(outputs, round(4096 * params.width))
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(True), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


def _shrink(images: Tensor, params: VggNetwork) -> Tensor:
    """Average images over blocks of `shrink` x `shrink` pixels: (B, 3, S, S) -> (B, 3, S // shrink, S // shrink)."""
    return nn.functional.avg_pool2d(images.float(), params.shrink) if params.shrink > 1 else images


FLOOR = 0.05
"""smallest sigma of a second head, in the unit of f's outputs"""


def second_head_sigma(outputs: Tensor) -> Tensor:
    """Return sigma = FLOOR + softplus(o + 0.54) of the second head's outputs o: (B, 2A) -> (B, A), about 1 for o = 0."""
    return FLOOR + nn.functional.softplus(outputs[:, outputs.shape[1] // 2 :].float() + 0.54)


def build_network(params: AnyNetwork, inputs: int, seed: int, au_count: int) -> AUNetwork:
    """Build a network with seeded random or pretrained weights, and freeze the layers that `params` freezes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AUNetwork(params, inputs, au_count)
    for network in model.networks:
        if isinstance(network, BackboneWithHead) and isinstance(params, BackboneNetwork):
            load_backbone(network.trunk, params)
            network.trunk.train_last_blocks(params.trained_blocks)
        elif isinstance(network, Vgg) and isinstance(params, VggNetwork):
            if params.weights != "none":
                load_pretrained(network, params.weights, params.kind, last="classifier.6.")
            convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
            for convolution in convolutions[: params.frozen_convolutions]:
                convolution.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def build_trunk(params: AnyNetwork, size: int, seed: int) -> nn.Module:
    """Build the trunk that `build_network` would build: images (B, 3, S, S) in 0..255 -> features (B, D).

    Args:
        size: side of the images, pixels.
    """
    return _without_head(build_network(_of_trunk(params), size, seed, 1))


def empty_trunk(params: AnyNetwork, size: int) -> nn.Module:
    """Build a trunk whose weights the caller then loads."""
    return _without_head(AUNetwork(_of_trunk(params), size, 1))


def _of_trunk(params: AnyNetwork) -> AnyNetwork:
    """Return the settings that build the trunk of a network, trained or frozen, with a head."""
    return params.model_copy(update={"frozen": False, "sharing": "shared", "frozen_convolutions": 0})


def _without_head(model: AUNetwork) -> AUNetwork:
    """Replace the head of a network with a shared trunk by the identity."""
    (network,) = model.networks
    assert isinstance(network, Vgg | BackboneWithHead)
    network.classifier = nn.Identity()
    return model


def pick_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        ParamsError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParamsError("no such device", got=name, expected="auto, cpu, or a GPU of this machine") from error
    return device
