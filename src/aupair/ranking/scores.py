"""The files of f and h, and the scorer that loads them and computes y_hat and sigma of aligned faces."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from aupair import store
from aupair.data.quality import QUALITY_SIGNALS
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.about import AboutF, AboutH
from aupair.ranking.ensemble import Member, mean_of_members, spread_of_members
from aupair.ranking.fit import forward_in_chunks, to_network_input
from aupair.ranking.networks import AUNetwork, pick_device
from aupair.ranking.pseudo_intensity import PseudoIntensity
from aupair.ranking.sigma import MemberScorer, load_sigma_model, save_sigma_model
from aupair.ranking.trunks import load_trunk
from aupair.ranking.uncertainty import Uncertainty
from aupair.ranking.weights import load_network, read_state, write_state
from aupair.training_params import AnyNetwork

Y_HAT, SIGMA = "y_hat.safetensors", "sigma.safetensors"
FOLDS = "folds"
"""the subfolder of h with the models of folds, which prediction does not need"""


def save_f(folder: Path, f: PseudoIntensity, params: Params, size: int, aus: Sequence[str]) -> None:
    """Write f to a folder: a safetensors file per network, y_hat of every frame, about.json and the curves."""
    network = params.train_pseudo_intensity.network.model_dump()
    more = _features_of(f.models.values())
    standardisation = {name: {"center": f.center[name], "scale": f.scale[name]} for name in f.models}
    about = {"aus": aus, "size": size, "network": network, "standardisation": standardisation} | more
    with store.atomic(folder, beside=folder.parent) as temporary:  # a killed process must leave nothing in `work/f`
        temporary.mkdir()
        for name, model in f.models.items():
            write_state(temporary / f"{name}.safetensors", model)
        store.write_arrays(temporary / Y_HAT, f.y_hat)
        store.write_json(temporary / "about.json", about | {"select_pair_accuracy": f.select_pair_accuracy})
        store.write_jsonl(temporary / "curves.jsonl", f.curves)


def save_h(folder: Path, h: Uncertainty, params: Params, size: int, aus: Sequence[str]) -> None:
    """Write h to a folder: the weights of its models, sigma of every frame, about.json and the curves.

    Models that only score the people of a fold are in the subfolder `folds`.
    """
    keys = {"kind", "factors", "block", "network", "loss"}
    about = {"aus": aus, "size": size, "ensemble": h.members} | params.train_uncertainty.model_dump(include=keys)
    with store.atomic(folder) as temporary:
        temporary.mkdir()
        about |= save_sigma_model(temporary, h.model)
        if h.model.network is not None:
            about |= _features_of(h.model.network.children())
        if h.folds:
            (temporary / FOLDS).mkdir()
        for name, model in h.folds.items():
            write_state(temporary / FOLDS / f"{name}.safetensors", model)
        store.write_arrays(temporary / SIGMA, {"sigma": h.sigma, "unguarded": h.unguarded})
        store.write_json(temporary / "about.json", about)
        store.write_jsonl(temporary / "curves.jsonl", h.curves)


def _features_of(networks: Iterable[nn.Module]) -> dict[str, int]:
    """Return the entry of about.json with the number of input features, if the networks have a frozen trunk."""
    frozen = [network for network in networks if isinstance(network, AUNetwork) and network.params.frozen]
    return {"features": frozen[0].inputs} if frozen else {}


def load_f(folder: Path, name: str = "final") -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Load a network of f with its center and scale, (A,) float32 each: y_hat = (output - center) / scale."""
    path = Path(folder) / "about.json"
    about = store.read_record(path, AboutF)
    with store.fitting(path):
        standard = about.standardisation[name]
    weights = Path(folder) / f"{name}.safetensors"
    model = load_network(
        lambda: AUNetwork(about.network, about.inputs, len(about.aus)),
        read_state(weights),
        weights,
        about.compares(about.network),
    )
    return model, np.array(standard.center, np.float32), np.array(standard.scale, np.float32)


def read_network(folder: Path) -> AnyNetwork:
    """Return the settings of the networks of f in a folder."""
    return store.read_record(Path(folder) / "about.json", AboutF).network


def load_member(folders: Sequence[Path], member: Member) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Load a member of an ensemble from the folders of all trials; see `load_f`."""
    return load_f(folders[member.trial], member.name)


def read_sigma(folder: Path, count: int, name: str = "sigma") -> np.ndarray:
    """Read sigma of every frame: (count, A) float32, NaN for a frame without a face.

    Args:
        name: `sigma`, or `unguarded`.

    Raises:
        ArtifactError: the file is missing or corrupt, or has another number of frames.
    """
    path = Path(folder) / SIGMA
    values = store.check_array(store.read_arrays(path).get(name), name, (None, None), "f", path)
    if len(values) != count:
        got = f"{len(values)} frames"
        raise ArtifactError("scores of other faces", where=path, got=got, expected=count, todo="train again")
    return values


class FaceScores(NamedTuple):
    """The scores of B faces.

    Attributes:
        y_hat: (B, A) float32.
        sigma, unguarded: (B, A) float32, with and without the guard of h.
    """

    y_hat: np.ndarray
    sigma: np.ndarray
    unguarded: np.ndarray


class Scorer:
    """A scorer of faces by the networks of f and h; the scores of a face do not depend on the batch.

    Args:
        f: the folders of f of all trials.
        h: the folder of h.
        members: the networks of f whose mean is y_hat.
        trunk: the folder of the frozen trunk, if there is one; its features are computed once for all networks.

    Attributes:
        aus: names of the AUs, in the order of the scores.
        size: side of the faces, pixels.

    Raises:
        ArtifactError: f and h have different AUs, or h reads a network that is not in the ensemble.
    """

    def __init__(
        self, f: Sequence[Path], h: Path, members: Sequence[Member], device: str = "auto", trunk: Path | None = None
    ) -> None:
        self.device = pick_device(device)
        self._trunk = None if trunk is None else load_trunk(trunk).to(self.device)
        first = Path(f[members[0].trial])
        of_f = store.read_record(first / "about.json", AboutF)
        of_h = store.read_record(Path(h) / "about.json", AboutH)
        self.size, self.aus = of_f.size, of_f.aus
        if of_h.aus != of_f.aus:
            raise ArtifactError("f and h have different AUs", where=h, got=of_h.aus, expected=of_f.aus)
        self._h = load_sigma_model(h)
        if missing := [member for member in self._h.readers if member not in members]:
            raise ArtifactError(
                "h reads networks of f that are not in the ensemble", where=h, got=missing, expected=members,
                todo="run train-uncertainty again",
            )  # fmt: skip
        self._networks, self._standardisation = [], []
        for member in members:
            network, center, scale = load_f(f[member.trial], member.name)
            self._networks.append(MemberScorer(network, self._h.readers.get(member)).to(self.device).eval())
            self._standardisation.append((center, scale))
        if self._h.network is not None:
            self._h.network.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, images: np.ndarray, quality: np.ndarray | None = None) -> FaceScores:
        """Score faces, (B, S, S, 3) uint8 RGB.

        Args:
            quality: (B, 3), see `data.quality.load_quality`; None: unknown.

        Raises:
            ArtifactError: the faces have another size.
        """
        if images.shape[1:] != (self.size, self.size, 3):
            raise ArtifactError("faces of another size", got=images.shape, expected=f"(n, {self.size}, {self.size}, 3)")
        if quality is None:
            quality = np.full((len(images), len(QUALITY_SIGNALS)), np.nan, np.float32)
        x, count = to_network_input(images, self.device), len(self.aus)
        features = x
        if self._trunk is not None:
            features = torch.from_numpy(forward_in_chunks(self._trunk, x)).to(self.device)
        outputs = [forward_in_chunks(network, features if network.f.params.frozen else x) for network in self._networks]
        y_hat = np.stack(
            [(o[:, :count] - center) / scale for o, (center, scale) in zip(outputs, self._standardisation)]
        )
        terms = [part[:, count:] for part in outputs if part.shape[1] > count]
        if self._h.network is not None:
            terms.append(np.log(forward_in_chunks(self._h.network, features if self._h.network.reads_features else x)))
        inputs = np.stack(terms), quality, self._spread(y_hat)
        return FaceScores(mean_of_members(y_hat), self._h.sigma(*inputs), self._h.to_sigma(self._h.log_sigma(*inputs)))

    def _spread(self, y_hat: np.ndarray) -> np.ndarray | None:
        """Return the standard deviation of y_hat over the members, (B, A), if h uses it, else None."""
        signals = self._h.signals
        reads_it = signals is not None and len(signals.center) > len(QUALITY_SIGNALS)
        return spread_of_members(y_hat) if reads_it else None
