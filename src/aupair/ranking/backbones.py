"""Pretrained backbones, which map images to features: torchvision's by name, or a user's by a factory function.

torchvision is imported only when a backbone is built, since the import takes seconds.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from aupair.errors import ParamsError
from aupair.ranking.pretrained import load_pretrained
from aupair.record import FACTORY
from aupair.training_params import BackboneNetwork

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""mean and standard deviation of ImageNet, per RGB channel of images in 0..1"""


class Backbone(nn.Module):
    """A network that maps images to features, after the resizing and standardisation that its weights expect.

    Args:
        network: standardised images (B, 3, S, S) -> features (B, D).
        side: S, the side to which images are resized, pixels.
        mean, std: (3,), mean and standard deviation of the pretraining images, per RGB channel of images in 0..1.
        blocks: the blocks of the network, in order, for `train_last_blocks`.

    Attributes:
        features: number of features, D.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, side: int, mean: Tensor, std: Tensor, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.side = network, side
        self._blocks = tuple(blocks)
        self._frozen: list[nn.Module] = []
        self.register_buffer("mean", mean.float().view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", std.float().view(1, 3, 1, 1) * 255, persistent=False)
        self.features = self._count_features()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features (B, D) of RGB images (B, 3, S, S) of any size S, in 0..255."""
        x = images.float()
        if x.shape[-2:] != (self.side, self.side):
            x = nn.functional.interpolate(
                x, size=(self.side, self.side), mode="bilinear", align_corners=False, antialias=True
            )
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network(x)
        return features

    def train_last_blocks(self, count: int | None) -> None:
        """Freeze everything before the last `count` blocks, including batch norms; None: freeze nothing.

        Raises:
            ParamsError: the network has fewer blocks.
        """
        if count is None:
            return
        if count > len(self._blocks):
            raise ParamsError("too many trained_blocks", got=count, expected=f"at most {len(self._blocks)}, or null")
        self.network.requires_grad_(False)
        modules = list(self.network.modules())  # in the order of registration, which is that of the forward pass
        first = modules.index(self._blocks[-count])
        self._frozen = modules[1:first]
        for module in modules[first:]:
            module.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode of all but the frozen modules, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def _count_features(self) -> int:
        """Return the number of features, found by a forward pass.

        Raises:
            ParamsError: the network does not return features (B, D).
        """
        self.network.eval()
        with torch.no_grad():
            features = self.network(torch.zeros(2, 3, self.side, self.side))
        self.network.train()
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
            got = f"{tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ParamsError("a backbone must return features", got=got, expected="a tensor (images, features)")
        return features.shape[1]


def build_backbone(params: BackboneNetwork, size: int) -> Backbone:
    """Build a backbone with random weights, or with the weights that a factory sets.

    Args:
        size: side of the faces, to which images are resized for a factory's network that has no attribute `size`.

    Raises:
        ParamsError: a factory cannot be imported, or returns no network.
    """
    if params.kind == FACTORY:
        return _call_factory(params.factory or "", size)
    from torchvision.models import get_model, get_model_weights

    network = get_model(params.kind, weights=None)
    preset = get_model_weights(params.kind).DEFAULT.transforms()
    _remove_last_layer(network)
    mean, std = torch.tensor(preset.mean), torch.tensor(preset.std)
    return Backbone(network, preset.crop_size[0], mean, std, _blocks_of(network))


def load_backbone(backbone: Backbone, params: BackboneNetwork) -> None:
    """Load the weights that the params specify into a backbone."""
    if params.weights == "none" or (params.kind == FACTORY and params.weights == "default"):
        return
    load_pretrained(backbone.network, params.weights, params.kind)


def _remove_last_layer(network: nn.Module) -> None:
    """Remove the layer that computes ImageNet's classes, and a dropout before it."""
    for name in ("fc", "heads"):
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    classifier = getattr(network, "classifier", None)
    if isinstance(classifier, nn.Sequential):
        norms = [layer for layer in classifier if not isinstance(layer, nn.Linear | nn.Dropout)]  # ConvNeXt has them
        network.classifier = nn.Sequential(*norms)


def _blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of one of torchvision's networks, in order."""
    if hasattr(network, "encoder"):
        return list(network.encoder.layers)  # type: ignore[union-attr,arg-type]  # torch's stubs know only Module
    if hasattr(network, "layer1"):
        return [getattr(network, f"layer{k}") for k in range(1, 5)]
    return list(network.features)  # type: ignore[arg-type]  # torch's stubs know only Module


def _call_factory(name: str, size: int) -> Backbone:
    """Build a backbone by a user's function, with the attributes `size`, `mean`, `std` and `blocks` of its network if any.

    Args:
        size: side of the images if the network has no attribute `size`.
    """
    module, _, function = name.partition(":")
    todo = "install its package, or put its folder into PYTHONPATH; predict needs it, too"
    try:
        network: Any = getattr(import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ParamsError("a factory cannot be imported", where=f"kind: {name}", got=error, todo=todo) from error
    except Exception as error:  # the user's own function may raise anything
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParamsError("a factory failed", where=f"kind: {name}", got=got) from error
    if not isinstance(network, nn.Module):
        raise ParamsError(
            "a factory returned no network",
            where=f"kind: {name}",
            got=type(network).__name__,
            expected="a torch module",
        )
    mean, std = (torch.as_tensor(getattr(network, key, default)) for key, default in (("mean", MEAN), ("std", STD)))
    with_weights = [child for child in network.children() if next(child.parameters(), None) is not None]
    blocks = getattr(network, "blocks", None) or with_weights
    return Backbone(network, getattr(network, "size", size), mean, std, list(blocks))
