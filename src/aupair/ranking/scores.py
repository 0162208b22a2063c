"""Files of f and h, and the scorer that computes y_hat and sigma of aligned faces from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.ensemble import Member, mean_of_members
from aupair.ranking.fit import forward_in_chunks, to_network_input
from aupair.ranking.networks import AUNetwork, Factors, SecondHead, Vgg, build_factors, pick_device
from aupair.ranking.pseudo_intensity import PseudoIntensity
from aupair.ranking.uncertainty import Sigma, Uncertainty
from aupair.training_params import parse_network

Y_HAT, SIGMA = "y_hat.safetensors", "sigma.safetensors"


def save_f(folder: Path, f: PseudoIntensity, params: Params, size: int, aus: Sequence[str]) -> None:
    """Write f to a folder: a safetensors file per network, y_hat of every frame, about.json, the curves."""
    network = params.train_pseudo_intensity.network.model_dump()
    standardisation = {name: {"center": f.center[name], "scale": f.scale[name]} for name in f.models}
    about = {"aus": aus, "size": size, "network": network, "standardisation": standardisation}
    _save(folder, f, Y_HAT, f.y_hat, about | {"select_pair_accuracy": f.select_pair_accuracy})


def save_h(folder: Path, h: Uncertainty, params: Params, size: int, aus: Sequence[str]) -> None:
    """Write h to a folder, as `save_f` does for f."""
    keys = {"kind", "factors", "block", "network", "floor", "loss"}
    about = {"aus": aus, "size": size} | params.train_uncertainty.model_dump(include=keys)
    final = h.models["final"]
    if isinstance(final, SecondHead):
        about["trunk"] = final.network.params.model_dump()
    elif isinstance(final.network, Factors):
        about["trunk"] = final.network.f.model_dump()
    _save(folder, h, SIGMA, {"sigma": h.sigma}, about)


def _save(
    folder: Path, result: PseudoIntensity | Uncertainty, name: str, arrays: dict[str, np.ndarray], about: dict[str, Any]
) -> None:
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        for key, model in result.models.items():
            state = {k: v.detach().cpu().numpy() for k, v in model.state_dict().items()}
            store.write_arrays(temporary / f"{key}.safetensors", state)
        store.write_arrays(temporary / name, arrays)
        store.write_json(temporary / "about.json", about)
        store.write_jsonl(temporary / "curves.jsonl", result.curves)


def load_f(folder: Path, name: str = "final") -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Load a network of f with its center and scale, (A,) float32 each."""
    about = store.read_json(Path(folder) / "about.json")
    model = AUNetwork(parse_network(about["network"]), about["size"], len(about["aus"]))
    load_weights(model, Path(folder) / f"{name}.safetensors")
    standard = about["standardisation"][name]
    return model, np.array(standard["center"], np.float32), np.array(standard["scale"], np.float32)


def load_member(folders: Sequence[Path], member: Member) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Load a network of f from the folders of all trials, as `load_f` does."""
    return load_f(folders[member.trial], member.name)


def load_h(folder: Path, name: str = "final") -> Sigma | SecondHead:
    """Load a network of h."""
    about = store.read_json(Path(folder) / "about.json")
    kind, start = about["kind"], np.ones(len(about["aus"]))
    network = AUNetwork(parse_network(about["network" if kind == "network" else "trunk"]), about["size"], len(start))
    if kind == "integrated":
        model: Sigma | SecondHead = SecondHead(network, start)
    else:
        network_of_h = (
            build_factors(network, about["block"], about["factors"], seed=0) if kind == "factors" else network
        )
        model = Sigma(network_of_h, start, about["floor"])
    load_weights(model, Path(folder) / f"{name}.safetensors")
    return model


def read_sigma(folder: Path, count: int) -> np.ndarray:
    """Read sigma of every frame: (count, A) float32, NaN where there is no face.

    Raises:
        ArtifactError: the file is missing or corrupt, or the faces have changed since.
    """
    path = Path(folder) / SIGMA
    values = store.read_arrays(path)["sigma"]
    if len(values) != count:
        got = f"{len(values)} frames"
        raise ArtifactError("scores of other faces", where=path, got=got, expected=count, todo="train again")
    return values


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a network from a safetensors file.

    Raises:
        ArtifactError: the file is missing or corrupt, or has the weights of another network.
    """
    state = {k: torch.from_numpy(v) for k, v in store.read_arrays(path).items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtifactError("weights do not fit their network", where=path, got=reason) from error


class JointScorer(nn.Module):
    """A module that computes the outputs of f and h; if h uses the same trunk as f, it is computed only once for a face.

    Args:
        f, h: networks as `load_f` and `load_h` return them.
    """

    def __init__(self, f: AUNetwork, h: Sigma | SecondHead) -> None:
        super().__init__()
        self.f, self.h = f, h
        self.shared = isinstance(h.network, Factors) and _shares_trunk(h.network, f)

    def forward(self, images: Tensor) -> Tensor:
        """Compute f's outputs, not yet standardised, and sigma, (B, 2A), of RGB (B, 3, S, S) in 0..255."""
        if isinstance(self.h, SecondHead):
            values = self.f(images)
            return torch.cat([values[:, : self.f.au_count], self.h.sigma_from_outputs(values)], dim=1)
        if self.shared:
            assert isinstance(self.h.network, Factors)
            values, feature_map = self.f.forward_with_map(images, len(self.h.network.trunk))
            return torch.cat([values, self.h(self.h.network.phi_from_map(feature_map))], dim=1)
        return torch.cat([self.f(images), self.h(images)], dim=1)


def _shares_trunk(factors: Factors, f: AUNetwork) -> bool:
    """Return whether the trunk that h reads equals the first layers of f to the bit, so that it need not be computed again."""
    vgg = f.networks[0]
    if len(f.networks) > 1 or not isinstance(vgg, Vgg) or f.params != factors.f:
        return False
    of_f = vgg.features[: len(factors.trunk)].state_dict()
    return all(torch.equal(value, of_f[key]) for key, value in factors.trunk.state_dict().items())


class Scorer:
    """The networks of f of an ensemble and those of h; the scores of a face do not depend on the batch.

    Args:
        f: the folders of f of the trials.
        h: the folder of h.
        members: the networks of f whose mean is y_hat.

    Attributes:
        aus: names of the AUs, in the order of its scores.
        size: side of the faces it takes, pixels.

    Raises:
        ArtifactError: f and h are of different AUs.
    """

    def __init__(self, f: Sequence[Path], h: Path, members: Sequence[Member], device: str = "auto") -> None:
        self.device = pick_device(device)
        of_f, of_h = (store.read_json(Path(folder) / "about.json") for folder in (f[0], h))
        self.size: int = of_f["size"]
        self.aus: tuple[str, ...] = tuple(of_f["aus"])
        if of_h["aus"] != of_f["aus"]:
            raise ArtifactError("f and h are of different AUs", where=h, got=of_h["aus"], expected=of_f["aus"])
        loaded = [load_f(f[trial], name) for trial, name in members]
        self._standardisation = [(center, scale) for _, center, scale in loaded]
        first = JointScorer(loaded[0][0], load_h(h))
        self._networks = [network.to(self.device).eval() for network in (first, *(model for model, _, _ in loaded[1:]))]

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score faces: (B, S, S, 3) uint8 RGB -> y_hat (B, A), sigma (B, A), float32.

        Raises:
            ArtifactError: the faces have another size.
        """
        if images.shape[1:] != (self.size, self.size, 3):
            raise ArtifactError("faces of another size", got=images.shape, expected=f"(n, {self.size}, {self.size}, 3)")
        x, count = to_network_input(images, self.device), len(self.aus)
        outputs = [forward_in_chunks(network, x) for network in self._networks]
        y_hat = [(part[:, :count] - center) / scale for part, (center, scale) in zip(outputs, self._standardisation)]
        return mean_of_members(np.stack(y_hat)), outputs[0][:, count:]
