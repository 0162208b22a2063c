"""The networks of f and h: VGG16, full or narrow, or a pretrained backbone, with a head for each AU."""

from collections.abc import Sequence

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
        params: width (share of the channels), batch_norm, dropout.
        size: side of the images; the trunk's map is pooled to size // 32 a side (7 for 224), 7 at most.
        outputs: how many numbers it computes per image.
    """

    def __init__(self, params: VggNetwork, size: int, outputs: int) -> None:
        super().__init__()
        blocks = [[max(1, round(channels * params.width)) for channels in block] for block in _BLOCKS]
        hidden = max(outputs, round(4096 * params.width))
        side = min(7, max(1, size // 32))
        self.features = _build_blocks(blocks, params.batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(blocks[-1][-1] * side * side, hidden), nn.ReLU(True), nn.Dropout(params.dropout),
            nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(params.dropout),
            nn.Linear(hidden, outputs),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
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
    """Build VGG's convolutions with the given channels: here, since importing torchvision takes longer than torch."""
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
    """A backbone and a head of one hidden layer.

    Args:
        size: side of the faces, pixels.
        outputs: how many numbers it computes per image.
    """

    def __init__(self, params: BackboneNetwork, size: int, outputs: int) -> None:
        super().__init__()
        self.trunk = build_backbone(params, size)
        self.classifier = nn.Sequential(
            nn.Linear(self.trunk.features, params.head), nn.ReLU(True), nn.Dropout(params.dropout),
            nn.Linear(params.head, outputs),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255 -> (B, outputs)."""
        outputs: Tensor = self.classifier(self.trunk(images))
        return outputs

    def forward_with_map(self, images: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the outputs (B, outputs), and the features of the backbone, (B, D)."""
        features = self.trunk(images)
        return self.classifier(features), features


class AUNetwork(nn.Module):
    """A network with one number for each AU and image: a shared trunk with a head for each AU, or one network per AU.

    With sharing `integrated` there are two numbers from one trunk: the values of all AUs, then the second head's
    outputs, from which `second_head_sigma` computes their sigmas.

    Args:
        params: the Network section.
        size: side of the images, pixels.
        au_count: number of AUs, A.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, params: AnyNetwork, size: int, au_count: int) -> None:
        super().__init__()
        self.params, self.au_count = params, au_count
        sizes = {"shared": (1, au_count), "per_au": (au_count, 1), "integrated": (1, 2 * au_count)}
        count, outputs = sizes[params.sharing]
        self.networks = nn.ModuleList(_build_one(params, size, outputs) for _ in range(count))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)

    def heads(self) -> list[nn.Linear]:
        """Return the last layer of each network."""
        return [[layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1] for network in self.networks]

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255, of any dtype -> (B, A), or (B, 2A) if integrated."""
        x = self.normalise(images)
        return torch.cat([network(x) for network in self.networks], dim=1)

    def forward_with_map(self, images: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the outputs, and the feature map after the first `layers` of the only trunk, (B, C, H, W) or (B, D)."""
        (network,) = self.networks
        assert isinstance(network, Vgg | BackboneWithHead)
        return network.forward_with_map(self.normalise(images), layers)

    def layers_through(self, block: int) -> int:
        """Return the number of layers of the only trunk up to the pooling that follows a block, 1 to 5.

        A backbone counts as one layer, which is its last block.

        Raises:
            ArtifactError: there is a trunk for each AU, or a backbone's features are those of its last block alone.
        """
        if len(self.networks) > 1:
            raise ArtifactError(
                "no shared trunk to read factors from", got="sharing: per_au", todo="use kind: network for h"
            )
        (network,) = self.networks
        if not isinstance(network, Vgg):
            if block != _LAST_BLOCK:
                raise ArtifactError("a block without features", got=f"block: {block}", expected=f"block: {_LAST_BLOCK}")
            return 1
        return [k for k, layer in enumerate(network.features, 1) if isinstance(layer, nn.MaxPool2d)][block - 1]

    def normalise(self, images: Tensor) -> Tensor:
        """Convert RGB (B, 3, S, S) in 0..255 to the input of a VGG16: shrunk, standardised, channels last.

        A backbone, whose weights decide about the input, does it itself.
        """
        if not isinstance(self.params, VggNetwork):
            return images
        return ((_shrink(images, self.params) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _build_one(params: AnyNetwork, size: int, outputs: int) -> nn.Module:
    """Build a trunk with its head."""
    if isinstance(params, VggNetwork):
        return Vgg(params, size // params.shrink, outputs)
    return BackboneWithHead(params, size, outputs)


def _shrink(images: Tensor, params: VggNetwork) -> Tensor:
    """Average images over blocks of `shrink` x `shrink` pixels: (B, 3, S, S) -> (B, 3, S // shrink, S // shrink)."""
    return nn.functional.avg_pool2d(images.float(), params.shrink) if params.shrink > 1 else images


FLOOR = 0.05
"""smallest sigma of a second head, in the unit of f's outputs"""


def second_head_sigma(outputs: Tensor) -> Tensor:
    """Compute sigma from the outputs of a network with a second head, (B, 2A) -> (B, A); it starts at about 1."""
    return FLOOR + nn.functional.softplus(outputs[:, outputs.shape[1] // 2 :].float() + 0.54)


def build_network(params: AnyNetwork, size: int, seed: int, au_count: int) -> AUNetwork:
    """Build a network with seeded random weights, or with those that `weights` names, and freeze what `params` freezes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AUNetwork(params, size, au_count)
    for network in model.networks:
        if isinstance(network, BackboneWithHead) and isinstance(params, BackboneNetwork):
            load_backbone(network.trunk, params)
            network.trunk.train_last_blocks(params.trained_blocks)
        elif isinstance(params, VggNetwork):
            if params.weights != "none":
                load_pretrained(network, params.weights, params.kind, last="classifier.6.")
            convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
            for convolution in convolutions[: params.frozen_convolutions]:
                convolution.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def pick_device(name: str) -> torch.device:
    """Return the device with a name; `auto` is a GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParamsError("no such device", got=name, expected="auto, cpu, or a GPU of this machine") from error
    return device
