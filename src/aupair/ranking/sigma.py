"""Inference of h, which computes sigma from the outputs and feature maps of f's networks, or from images, and its files.

log sigma of a frame is the mean over the readers of h plus a linear term of the signals; then the guard (`ranking.guard`)
is applied. A reader computes log sigma from the outputs or the feature map of one network of f. Instead of readers, h may be
a separate network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.ranking.about import AboutH
from aupair.ranking.ensemble import FINAL, Member
from aupair.ranking.guard import Guard
from aupair.ranking.networks import AUNetwork, second_head_sigma
from aupair.ranking.signals import CLIP, Signals
from aupair.ranking.weights import load_network, read_state, write_state

FORMAT = 2
"""the format of h's folder; format 1, with a copy of f's trunk and without a guard, is not numbered in its files"""
SIDE = 3
"""the feature map of a block is averaged over SIDE x SIDE areas, so that phi has D = channels x SIDE^2 components"""


class FactorReader(nn.Module):
    """A reader of f's trunk: log sigma = bias + clip((phi - center) / scale) . weight.

    Args:
        block: the block of the trunk whose feature map is phi.
        inputs: number of features, D.
        au_count: number of AUs, A.
    """

    center: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, block: int, inputs: int, au_count: int) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("weight", torch.zeros(inputs, au_count))
        self.register_buffer("bias", torch.zeros(au_count))

    def forward(self, outputs: Tensor, feature_map: Tensor) -> Tensor:
        """Compute log sigma from the feature map (B, C, H, W) of the block: (B, A)."""
        standard = ((phi_of_map(feature_map) - self.center) / self.scale).clamp(-CLIP, CLIP)
        return standard @ self.weight + self.bias


def phi_of_map(feature_map: Tensor) -> Tensor:
    """Return phi, the feature map averaged over SIDE x SIDE areas: (B, C, H, W) -> (B, D) float32.

    The features of a backbone, (B, D), are only converted to float32.
    """
    if feature_map.ndim == 2:
        return feature_map.float()
    return nn.functional.adaptive_avg_pool2d(feature_map.float(), SIDE).flatten(1)


class OldFactorReader(nn.Module):
    """A reader of format 1: sigma = floor + softplus(clip((phi - center) / scale) / sqrt(D) . down . up + offset).

    The copy of the trunk in its file is not used, since it is the same as the trunk of f.
    """

    center: Tensor
    scale: Tensor
    down: Tensor
    up: Tensor
    offset: Tensor

    def __init__(self, block: int, floor: float, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.block, self.floor = block, floor
        for name in ("network.center", "network.scale", "network.down", "network.up", "offset"):
            self.register_buffer(name.removeprefix("network."), state[name])

    def forward(self, outputs: Tensor, feature_map: Tensor) -> Tensor:
        """Compute log sigma from the feature map (B, C, H, W) of the block: (B, A)."""
        phi = phi_of_map(feature_map)
        standard = ((phi - self.center) / self.scale).clamp(-CLIP, CLIP) / phi.shape[1] ** 0.5
        return torch.log(self.floor + nn.functional.softplus(standard @ self.down @ self.up + self.offset))


class SecondHeadReader(nn.Module):
    """A reader of f's second head, which divides its sigma by `scale`, (A,), to convert it to the unit of y_hat."""

    block = None
    scale: Tensor

    def __init__(self, scale: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, outputs: Tensor, feature_map: Tensor | None) -> Tensor:
        """Compute log sigma from f's outputs, (B, 2A) -> (B, A)."""
        return torch.log(second_head_sigma(outputs) / self.scale)


Reader = FactorReader | OldFactorReader | SecondHeadReader


class SigmaNetwork(nn.Module):
    """h as a separate network: sigma = floor + softplus(h(x) + offset).

    The offset is trained as well; it is initialised so that h(x) = 0 gives sigma = `start`.

    Args:
        network: h, which maps RGB images (B, 3, S, S) in 0..255, or features (B, D), to (B, A).
        start: (A,) initial sigma.
        floor: smallest sigma.
    """

    def __init__(self, network: nn.Module, start: np.ndarray, floor: float) -> None:
        super().__init__()
        self.network, self.floor = network, floor
        above = torch.as_tensor(start, dtype=torch.float32).clamp(min=floor + 1e-3) - floor
        self.offset = nn.Parameter(torch.log(torch.expm1(above)))

    @property
    def reads_features(self) -> bool:
        """Return whether the input is the features of a frozen trunk instead of images."""
        return isinstance(self.network, AUNetwork) and self.network.params.frozen

    def forward(self, x: Tensor) -> Tensor:
        """Compute sigma (B, A), at least `floor`, from RGB (B, 3, S, S) in 0..255 or features (B, D)."""
        return self.floor + nn.functional.softplus(self.network(x).float() + self.offset)


class MemberScorer(nn.Module):
    """A network of f together with the reader of h that reads it, if any; the trunk is computed once for both."""

    def __init__(self, f: AUNetwork, reader: Reader | None) -> None:
        super().__init__()
        self.f, self.reader = f, reader
        self.layers = 0 if reader is None or reader.block is None else f.layers_through(reader.block)

    def forward(self, images: Tensor) -> Tensor:
        """Compute f's outputs before standardisation, (B, A), or with a reader outputs and log sigma, (B, 2A)."""
        feature_map = None
        if self.layers:
            outputs, feature_map = self.f.forward_with_map(images, self.layers)
        else:
            outputs = self.f(images)
        values = outputs[:, : self.f.au_count].float()
        return values if self.reader is None else torch.cat([values, self.reader(outputs, feature_map)], dim=1)


@dataclass(frozen=True)
class SigmaModel:
    """An h that computes sigma of new frames.

    Attributes:
        readers: the readers by the network of f that they read.
        network: a separate network that computes sigma, or None.
        floor: smallest sigma.
        signals: the standardisation of the signals that h uses, or None.
        signal_weight: (Q, A) float64, the weights of the standardised signals in log sigma.
        guard: the guard of sigma; None: sigma is not guarded.
    """

    readers: dict[Member, Reader] = field(default_factory=dict)
    network: SigmaNetwork | None = None
    floor: float = 0.0
    signals: Signals | None = None
    signal_weight: np.ndarray | None = None
    guard: Guard | None = None

    def log_sigma(self, terms: np.ndarray, quality: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
        """Return unguarded log sigma, (n, A) float64; the result for a frame does not depend on other frames.

        Args:
            terms: (R, n, A), log sigma of each reader or of the network.
            quality: (n, 3), see `data.quality.load_quality`.
            spread: (n, A), the standard deviation over the networks of f, or None.
        """
        total: np.ndarray = sum(term.astype(np.float64) for term in terms) / len(terms)
        if self.signals is not None and self.signal_weight is not None:
            total = total + add_signals(self.signals(quality, spread), self.signal_weight)
        return total

    def sigma(self, terms: np.ndarray, quality: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
        """Return guarded sigma of frames outside fit, (n, A) float32; the arguments are those of `log_sigma`."""
        values = self.log_sigma(terms, quality, spread)
        return self.to_sigma(values if self.guard is None else self.guard.apply_to_new(values))

    def affine(self, new: bool, au_count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the guard as offset and slope, (A,) each: guarded log sigma = offset + slope x log sigma.

        Args:
            new: whether the frames are outside fit.
        """
        if self.guard is None:
            return np.zeros(au_count), np.ones(au_count)
        zeros = np.zeros((1, au_count))
        offset = self.guard.apply_to_new(zeros) if new else self.guard.apply(zeros)
        return offset[0], self.guard.strength

    def to_sigma(self, log_sigma: np.ndarray) -> np.ndarray:
        """Return max(exp(log sigma), floor), float32."""
        return np.maximum(np.exp(log_sigma), self.floor).astype(np.float32)


def add_signals(signals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return signals (n, Q) @ weight (Q, A), summed in a fixed order, so that a row does not depend on other rows."""
    total = np.zeros((len(signals), weight.shape[1]))
    for column, of_aus in zip(signals.T, weight):
        total += column[:, None] * of_aus
    return total


def save_sigma_model(folder: Path, model: SigmaModel) -> dict[str, Any]:
    """Write the weights of h to a folder and return the entries of about.json that describe them."""
    for member, reader in model.readers.items():
        write_state(_reader_file(folder, member), reader)
    if model.network is not None:
        write_state(folder / f"{FINAL}.safetensors", model.network)
    if model.signal_weight is not None:
        store.write_arrays(folder / "signals.safetensors", {"weight": model.signal_weight})
    return {
        "format": FORMAT, "members": list(model.readers), "floor": model.floor,
        "signals": model.signals and model.signals.to_json(), "guard_of_aus": model.guard and model.guard.to_json(),
    }  # fmt: skip


def load_sigma_model(folder: Path) -> SigmaModel:
    """Load h, of format 1 or 2, from the folder of a training or of a bundle.

    Raises:
        ArtifactError: a file is missing, corrupt or does not fit the others.
    """
    about = read_about(folder)
    if about.format == 1:
        return _load_old(Path(folder), about)
    readers = {member: load_reader(_reader_file(Path(folder), member), about) for member in about.members}
    network = load_sigma_network(Path(folder) / f"{FINAL}.safetensors", about) if about.kind == "network" else None
    guard = None if about.guard_of_aus is None else Guard.from_json(about.guard_of_aus.model_dump())
    if about.signals is None:
        return SigmaModel(readers, network, about.floor, guard=guard)
    signals = Signals(np.array(about.signals.center, np.float64), np.array(about.signals.scale, np.float64))
    path = Path(folder) / "signals.safetensors"
    shape = len(signals.center), len(about.aus)
    weight = store.check_array(store.read_arrays(path).get("weight"), "weight", shape, "f", path)
    return SigmaModel(readers, network, about.floor, signals, weight, guard)


def read_about(folder: Path) -> AboutH:
    """Read the description of h.

    Raises:
        ArtifactError: about.json is missing or malformed.
    """
    return store.read_record(Path(folder) / "about.json", AboutH)


def _reader_file(folder: Path, member: Member) -> Path:
    return folder / f"{member.trial}.{member.name}.safetensors"


def load_reader(path: Path, about: AboutH) -> Reader:
    """Load a reader of h.

    Raises:
        ArtifactError: the file is missing or corrupt, or has other AUs than about.json.
    """
    state, aus = read_state(path), len(about.aus)
    if about.kind == "integrated":
        return _second_head(state, aus, path)
    assert about.block is not None
    block, weight = about.block, state.get("weight")
    inputs = store.check_array(None if weight is None else weight.numpy(), "weight", (None, aus), "f", path).shape[0]
    return load_network(lambda: FactorReader(block, inputs, aus), state, path)


def _second_head(state: Mapping[str, Tensor], aus: int, path: Path) -> SecondHeadReader:
    scale = state.get("scale")
    return SecondHeadReader(store.check_array(None if scale is None else scale.numpy(), "scale", (aus,), "f", path))


def load_sigma_network(path: Path, about: AboutH) -> SigmaNetwork:
    """Load an h of `kind: network`, of format 1 or 2.

    Raises:
        ArtifactError: the file is missing or corrupt, or has the weights of another network.
    """
    assert about.network is not None
    params, inputs, aus, floor = about.network, about.inputs, len(about.aus), about.floor

    def build() -> SigmaNetwork:
        return SigmaNetwork(AUNetwork(params, inputs, aus), np.ones(aus), floor)

    return load_network(build, read_state(path), path, about.compares(about.network))


def _load_old(folder: Path, about: AboutH) -> SigmaModel:
    """Load h of format 1, which has only `final` and neither signals nor guard."""
    path = folder / f"{FINAL}.safetensors"
    if about.kind == "network":
        return SigmaModel(network=load_sigma_network(path, about))
    state = read_state(path)
    if about.kind == "integrated":
        return SigmaModel({Member(0, FINAL): _second_head(state, len(about.aus), path)})
    assert about.block is not None
    with store.fitting(path):
        return SigmaModel({Member(0, FINAL): OldFactorReader(about.block, about.floor, state)})
