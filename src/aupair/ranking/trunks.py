"""A frozen trunk, which maps images to features in half precision, and its files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.ranking.about import AboutTrunk
from aupair.ranking.networks import empty_trunk
from aupair.ranking.weights import load_state, read_state, write_state
from aupair.training_params import AnyNetwork

WEIGHTS = "weights.safetensors"
_LARGEST = float(np.finfo(np.float16).max)


class Trunk(nn.Module):
    """A frozen trunk, always in eval mode, whose features are rounded to the precision in which they are stored.

    Args:
        network: images (B, 3, S, S) in 0..255 -> features (B, D).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images (B, 3, S, S) in 0..255: (B, D), float32 rounded to float16."""
        features: Tensor = self.network(images).float()
        return features.clamp(-_LARGEST, _LARGEST).half().float()

    def train(self, mode: bool = True) -> "Trunk":
        """Stay in eval mode."""
        return super().train(False)


def save_trunk(folder: Path, trunk: Trunk, params: AnyNetwork, size: int) -> None:
    """Write the weights of a trunk and the settings needed to load it to a folder."""
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        write_state(temporary / WEIGHTS, trunk.network)
        store.write_json(temporary / "about.json", {"network": params.trunk_settings(), "size": size})


def load_trunk(folder: Path) -> Trunk:
    """Load the trunk that `save_trunk` wrote.

    Raises:
        ArtifactError: a file is missing or corrupt.
        ParamsError: the package of a user's trunk is not installed.
    """
    about = store.read_record(folder / "about.json", AboutTrunk)
    network = empty_trunk(about.network, about.size)
    path = folder / WEIGHTS
    load_state(network, read_state(path), path)
    return Trunk(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # torch's stubs lack it
