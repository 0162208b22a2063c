"""The cost of a recognizer: its parameters, and its multiplications for each frame, counted by torch's FlopCounterMode.

The networks are built without allocating weights (torch's device `meta`) and run once. Even with one VGG16 for each AU this
takes about a second.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupair import store
from aupair.errors import ArtifactError
from aupair.params import Params, parse_stored_params
from aupair.ranking.about import AboutF, AboutH
from aupair.record import FACTORY
from aupair.training_params import AnyNetwork, TrainUncertainty

if TYPE_CHECKING:
    from torch import Tensor, nn


class _MappingShape(NamedTuple):
    """The sizes of the mappings from which one is chosen for each AU.

    Attributes:
        aus: number of AUs.
        widths: number of features and width of the networks, for each route.
        outputs: number of outputs of a network.
        seeds: number of networks for each AU and route.
    """

    aus: int
    widths: tuple[tuple[int, int], ...]
    outputs: int
    seeds: int


@dataclass(frozen=True)
class _Networks:
    """The networks f and h of a recognizer: `members` networks of f, and `readers` of their trunks (h of factors).

    A frozen trunk is counted once, since all networks share its features of a face.
    """

    f: AnyNetwork
    h: TrainUncertainty
    size: int
    members: int = 1
    readers: int = 1


def cost_of(params: Params, aus: int) -> dict[str, Any]:
    """Compute the cost of `predict` for a frame with a face, without the detection of the face.

    Args:
        aus: the number of AUs.

    Returns:
        parameters: of all networks in the bundle; gmac_per_frame: 1e9 multiply-accumulate operations; passes: number of
        passes of an image through a trunk (an h of kind `factors` reuses the feature maps of f's networks); parts: the
        same for f, for h, and for both mappings, with uncertainty and without.
    """
    from aupair.mapping.columns import columns

    f, size = params.train_pseudo_intensity.network, params.preprocess_faces.size
    mapping = params.train_mapping
    outputs = 1 if mapping.loss == "l1" else params.levels
    section = params.extract_features
    widths = [len(columns(section, route == "columns")) for route in dict.fromkeys(("raw", section.deciding))]
    shape = _MappingShape(aus, tuple((width, mapping.width) for width in widths), outputs, mapping.seeds)
    folds = params.sample_pairs.folds if params.sample_pairs.folds > 1 else 0
    networks = _Networks(f, params.train_uncertainty, size)
    if params.ensemble == "all":
        trials = len(params.trials)
        networks = replace(networks, members=trials * (1 + folds), readers=trials * max(folds, 1))
    return _cost(networks, shape)


def cost_of_files(f: Path, h: Path, mapping: Path) -> dict[str, Any]:
    """Compute the same as `cost_of` from the about.json of the networks' folders.

    Args:
        f: the folder of one trial; the about.json of h lists the networks of all trials that are used.

    Raises:
        ArtifactError: a folder has no about.json.
    """
    from aupair.mapping.model import About, read_about

    of_f = store.read_record(Path(f) / "about.json", AboutF)
    of_h = store.read_record(Path(h) / "about.json", AboutH)
    section = parse_stored_params({"train_uncertainty": store.read_json(Path(h) / "about.json")}, where=str(h))
    of_mapping = read_about(mapping)
    if not isinstance(of_mapping, About):
        raise ArtifactError("mappings of an earlier version", where=mapping, todo="run train-mapping again")
    deciding = list(of_mapping.routes.values())[:2]  # further ones are rows of tables
    widths = tuple((route.features, route.width) for route in deciding)
    shape = _MappingShape(len(of_mapping.aus), widths, of_mapping.levels, of_mapping.seeds)
    members, readers = len(of_h.ensemble), len(of_h.members)
    return _cost(_Networks(of_f.network, section.train_uncertainty, of_f.size, members, readers), shape)


def _cost(networks: _Networks, mapping: _MappingShape) -> dict[str, Any]:
    """Count f, h and the mappings; an integrated h is f's second head and adds no cost."""
    import numpy as np
    import torch
    from torch import nn

    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.backbones import Backbone
    from aupair.ranking.networks import AUNetwork, Vgg, empty_trunk
    from aupair.ranking.sigma import SigmaNetwork, phi_of_map

    h, size = networks.h, networks.size
    aus, outputs, seeds = mapping.aus, mapping.outputs, mapping.seeds
    with torch.device("cpu" if networks.f.kind == FACTORY else "meta"):  # a user's function may need its weights
        x = face = torch.zeros(1, 3, size, size)
        counted: list[tuple[str, nn.Module, Tensor, int]] = []
        if networks.f.frozen:
            trunk = empty_trunk(networks.f, size).eval()
            counted.append(("f", trunk, face, 1))
            x = trunk(face)
        f = AUNetwork(networks.f, x.shape[-1], aus)
        counted.append(("f", f, x, networks.members))
        if h.kind == "network":
            h_input = x if h.network.frozen else face
            network_of_h = AUNetwork(h.network, h_input.shape[-1], aus)
            counted.append(("h", SigmaNetwork(network_of_h, np.ones(aus), floor=0.05), h_input, 1))
        elif h.kind == "factors":
            phi = phi_of_map(f.forward_with_map(x, f.layers_through(h.block))[1])
            counted.append(("h", nn.Linear(phi.shape[1], aus), phi, networks.readers))
        for features, width in mapping.widths:
            columns = torch.zeros(aus, features)
            networks_of_route = MappingNetworks(columns, columns, width, 0.0, outputs, seeds=seeds)
            counted.append(("mapping", networks_of_route, columns[:, None], 1))
        parts: dict[str, dict[str, float]] = {}
        for name, network, x, times in counted:
            part = parts.setdefault(name, {"parameters": 0, "gmac_per_frame": 0.0, "passes": 0})
            part["parameters"] += times * sum(p.numel() for p in network.parameters())
            part["gmac_per_frame"] += times * _macs(network, x) / 1e9
            part["passes"] += times * sum(isinstance(module, Vgg | Backbone) for module in network.modules())
    totals = {key: sum(part[key] for part in parts.values()) for key in ("parameters", "gmac_per_frame", "passes")}
    return {**totals, "parts": parts}


def _macs(network: "nn.Module", x: "Tensor") -> int:
    """Count the multiply-accumulate operations of one forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    return counter.get_total_flops() // 2
